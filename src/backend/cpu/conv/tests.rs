use super::panels::SMALL_WEIGHT;
use super::*;
use crate::backend::cpu::check::{assert_near, assert_sums, noise, tables, with_threads, written};

pub(super) fn geometry(
    n: usize,
    c: [usize; 2],
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Conv {
    let input = Images {
        n,
        c: c[0],
        h: size[0],
        w: size[1],
    };
    Conv {
        input,
        out_c: c[1],
        kernel,
        stride,
        padding,
    }
}

/// Calls `f(index in x, index in w, index in y)` for each product of a convolution.
pub(super) fn products(conv: Conv, mut f: impl FnMut(usize, usize, usize)) {
    let output = conv.output();
    let from = SpatialLayout::new(conv.input, BATCH_BLOCK);
    let to = SpatialLayout::new(output, BATCH_BLOCK);
    let inside = |o: usize, place: usize, axis: usize, len: usize| {
        (o * conv.stride[axis] + place)
            .checked_sub(conv.padding[axis])
            .filter(|&i| i < len)
    };
    for s in 0..output.n {
        for oy in 0..output.h {
            for ox in 0..output.w {
                for r in 0..conv.kernel[0] {
                    for q in 0..conv.kernel[1] {
                        let y = inside(oy, r, 0, conv.input.h);
                        let x = inside(ox, q, 1, conv.input.w);
                        let Some((y, x)) = y.zip(x) else { continue };
                        let x = from.index(s, y, x);
                        let y = to.index(s, oy, ox);
                        let w = (r * conv.kernel[1] + q) * conv.input.c * conv.out_c;
                        for i in 0..conv.input.c {
                            for o in 0..conv.out_c {
                                f(x + i, w + i * conv.out_c + o, y + o);
                            }
                        }
                    }
                }
            }
        }
    }
}

type Backward = fn(&Table, &mut [f32], &[f32], &[f32], Conv, Write);

/// A table's forward pass, gradient of the input and gradient of the weight.
struct Passes {
    forward: fn(&Table, &mut [f32], &[f32], &[f32], Conv),
    data: Backward,
    weight: Backward,
}

/// Compares all three passes of every table with the definition: number by number, or if Winograd's
/// transforms are in between by the root of the mean square.
fn check_all(conv: Conv) {
    let passes = Passes {
        forward,
        data: backward_data,
        weight: backward_weight,
    };
    check_passes(conv, &passes, winograd::pays(conv));
}

fn check_passes(conv: Conv, passes: &Passes, transformed: bool) {
    let (nx, nw, ny) = (conv.input.len(), conv.weight_len(), conv.output().len());
    let (x, w, dy) = (noise(1, nx), noise(2, nw), noise(3, ny));
    let (mut y, mut dx, mut dw) = (vec![0.0; ny], vec![0.0; nx], vec![0.0; nw]);
    let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
    products(conv, |ix, iw, iy| {
        y[iy] += product(x[ix], w[iw]);
        dx[ix] += product(dy[iy], w[iw]);
        dw[iw] += product(x[ix], dy[iy]);
    });
    let assert = |got: &[f32], sums: &[f64], terms: usize, write: Write, what: &str| {
        if transformed {
            assert_near(got, sums, WINOGRAD_ERROR, write, what);
        } else {
            assert_sums(got, sums, terms, write, what);
        }
    };
    let places = conv.kernel[0] * conv.kernel[1];
    for table in tables() {
        let what = |pass: &str| format!("{} {pass} {conv:?}", table.isa());
        let got = written(ny, Write::Set, |y| {
            (passes.forward)(table, y, &x, &w, conv);
        });
        let terms = places * conv.input.c;
        assert(&got, &y, terms, Write::Set, &what("forward"));
        for write in [Write::Set, Write::Add] {
            let got = written(nx, write, |dx| {
                (passes.data)(table, dx, &dy, &w, conv, write)
            });
            let terms = places * conv.out_c;
            assert(&got, &dx, terms, write, &what("data"));
            let got = written(nw, write, |dw| {
                (passes.weight)(table, dw, &x, &dy, conv, write);
            });
            let terms = conv.output().n * conv.output().pixels();
            assert(&got, &dw, terms, write, &what("weight"));
        }
    }
}

/// The error that Winograd's transforms may make, relative to the root of the mean square of the
/// result.
const WINOGRAD_ERROR: f64 = 5e-6;

/// The three passes by Winograd's transforms, whether they pay or not.
const TRANSFORMED: Passes = Passes {
    forward: |table, y, x, w, conv| {
        winograd::convolve(table, y, x, w, conv, false, Write::Set, None, None);
    },
    data: |table, dx, dy, w, conv, write| {
        winograd::convolve(table, dx, dy, w, conv, true, write, None, None);
    },
    weight: winograd::weight_gradient,
};

/// The gradient of the weight that goes along with that of the input, and the other way round.
const TOGETHER: Passes = Passes {
    forward: TRANSFORMED.forward,
    data: |table, dx, dy, w, conv, write| {
        let (x, mut dw) = (
            noise(5, conv.input.len()),
            vec![f32::NAN; conv.weight_len()],
        );
        both(table, (dx, write), (&x, &mut dw), dy, w, conv);
    },
    weight: |table, dw, x, dy, conv, write| {
        let (mut dx, w) = (
            vec![f32::NAN; conv.input.len()],
            noise(6, conv.weight_len()),
        );
        let mut out = vec![f32::NAN; dw.len()];
        both(table, (&mut dx, Write::Set), (x, &mut out), dy, &w, conv);
        for (dw, out) in dw.iter_mut().zip(out) {
            *dw = if write == Write::Add { *dw } else { 0.0 } + out;
        }
    },
};

fn both(
    table: &Table,
    dx: (&mut [f32], Write),
    (x, dw): (&[f32], &mut [f32]),
    dy: &[f32],
    w: &[f32],
    conv: Conv,
) {
    backward(table, dx, Some(WeightGradient { x, dw }), dy, w, conv, None);
}

#[test]
fn winograd_with_a_weight_taken_piece_by_piece() {
    for (n, c, size, padding) in [
        (33, [170, 60], [3, 4], [1, 1]),
        (2, [90, 131], [4, 4], [1, 1]),
        (5, [100, 80], [6, 5], [0, 2]),
    ] {
        let conv = geometry(n, c, size, [3, 3], [1, 1], padding);
        assert!(winograd::large::suits(conv, conv.output()), "{conv:?}");
        assert!(winograd::large::suits(conv, conv.input), "{conv:?}");
        check_passes(conv, &TRANSFORMED, true);
    }
}

#[test]
fn winograd_of_every_geometry() {
    for n in [1, 3, 20, 34] {
        for (c, size, padding) in [
            ([1, 1], [1, 1], [1, 1]),
            ([5, 18], [4, 4], [1, 1]),
            ([33, 7], [5, 7], [0, 0]),
            ([16, 40], [3, 13], [0, 2]),
            ([40, 16], [9, 2], [2, 1]),
            ([64, 70], [8, 8], [1, 1]),
        ] {
            let conv = geometry(n, c, size, [3, 3], [1, 1], padding);
            check_passes(conv, &TRANSFORMED, true);
            check_passes(conv, &TOGETHER, true);
        }
    }
}

#[test]
fn winograd_is_taken_where_it_saves_enough() {
    let same = |n, c: usize, size: usize| geometry(n, [c; 2], [size; 2], [3, 3], [1, 1], [1, 1]);
    for conv in [
        same(32, 64, 32),
        same(20, 20, 32),
        same(20, 80, 8),
        same(20, 160, 4),
        same(96, 512, 4),
    ] {
        assert!(winograd::pays(conv), "{conv:?}");
    }
    let strided = geometry(32, [64, 64], [32, 32], [3, 3], [2, 2], [1, 1]);
    let larger = geometry(32, [64, 64], [32, 32], [5, 5], [1, 1], [2, 2]);
    for conv in [
        same(1, 64, 4),
        same(32, 3, 32),
        same(0, 64, 32),
        strided,
        larger,
    ] {
        assert!(!winograd::pays(conv), "{conv:?}");
    }
}

#[test]
fn every_batch_size_and_channel_count() {
    for n in [1, 2, 5, 20, 33, 70] {
        for c in [[1, 1], [1, 6], [3, 20], [20, 3], [17, 33]] {
            for stride in [1, 2] {
                check_all(geometry(n, c, [6, 5], [3, 3], [stride; 2], [1, 1]));
            }
        }
    }
}

#[test]
fn every_geometry() {
    for n in [0, 1, 3, 9, 34] {
        for (size, kernel, stride, padding) in [
            ([7, 9], [1, 1], [1, 1], [0, 0]),
            ([7, 9], [1, 1], [2, 2], [0, 0]),
            ([8, 8], [5, 5], [1, 1], [2, 2]),
            ([8, 8], [5, 5], [1, 1], [0, 0]),
            ([9, 12], [2, 3], [3, 1], [0, 1]),
            ([9, 12], [3, 1], [1, 2], [1, 0]),
            ([11, 10], [2, 2], [3, 4], [1, 0]),
            ([4, 3], [4, 3], [1, 1], [3, 2]),
            ([3, 3], [1, 1], [1, 1], [2, 2]),
            ([1, 1], [3, 3], [1, 1], [1, 1]),
            ([2, 13], [3, 7], [1, 3], [2, 4]),
            ([5, 5], [3, 3], [2, 2], [0, 0]),
            ([6, 1], [3, 1], [1, 1], [0, 0]),
        ] {
            check_all(geometry(n, [5, 18], size, kernel, stride, padding));
        }
    }
    check_all(geometry(2, [0, 3], [4, 4], [3, 3], [1, 1], [1, 1]));
    check_all(geometry(2, [3, 0], [4, 4], [3, 3], [1, 1], [1, 1]));
    // The kernel does not fit: there is no output, and no gradient.
    check_all(geometry(2, [3, 4], [2, 2], [3, 3], [1, 1], [0, 0]));
}

#[test]
fn weights_in_panels() {
    for n in [1, 4, 20, 40] {
        for (c, stride) in [([64, 130], 1), ([130, 64], 2), ([100, 77], 1)] {
            let conv = geometry(n, c, [4, 5], [3, 3], [stride; 2], [1, 1]);
            assert!(conv.weight_len() > SMALL_WEIGHT);
            check_all(conv);
        }
    }
}

#[test]
fn large_enough_for_threads_and_parts() {
    for (n, c, size, stride) in [
        (40, [20, 20], [32, 32], 1),
        (33, [64, 128], [16, 16], 2),
        (64, [8, 16], [30, 30], 1),
    ] {
        let conv = geometry(n, c, size, [3, 3], [stride; 2], [1, 1]);
        assert!(flops(conv) >= PARALLEL_FLOPS);
        check_all(conv);
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for conv in [
        geometry(70, [20, 20], [32, 32], [3, 3], [1, 1], [1, 1]),
        geometry(20, [128, 130], [8, 8], [3, 3], [1, 1], [1, 1]),
        // Columns are cut elsewhere for several threads, and the last four or eight of them may be alone.
        geometry(16, [68, 200], [8, 8], [3, 3], [1, 1], [1, 1]),
        geometry(33, [64, 128], [16, 16], [3, 3], [2, 2], [1, 1]),
    ] {
        assert!(flops(conv) >= PARALLEL_FLOPS);
        let (nx, nw, ny) = (conv.input.len(), conv.weight_len(), conv.output().len());
        let (x, w, dy) = (noise(1, nx), noise(2, nw), noise(3, ny));
        for table in tables() {
            let [one, three] = with_threads(|| {
                let (mut y, mut dx, mut dw) = (vec![0.0; ny], noise(4, nx), noise(5, nw));
                forward(table, &mut y, &x, &w, conv);
                backward_data(table, &mut dx, &dy, &w, conv, Write::Add);
                backward_weight(table, &mut dw, &x, &dy, conv, Write::Add);
                [y, dx, dw].concat()
            });
            let same = one
                .iter()
                .zip(&three)
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{} {conv:?}", table.isa());
        }
    }
}

#[test]
#[should_panic(expected = "on an input of 18, a weight of 9 and an output of 17 numbers")]
fn operands_must_have_their_sizes() {
    let conv = geometry(2, [1, 1], [3, 3], [3, 3], [1, 1], [1, 1]);
    conv2d(None, &mut [0.0; 17], &[0.0; 18], &[0.0; 9], conv);
}
