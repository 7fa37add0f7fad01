use super::*;
use crate::backend::cpu::check::{assert_sums, noise, tables, with_threads, written};

/// The product by its definition, in f64.
fn definition(a: &[f32], b: &[f32], dims: Gemm) -> Vec<f64> {
    let Gemm { m, n, k, .. } = dims;
    let (a_row, a_col) = strides(dims.a_transposed, k, m);
    let (b_row, b_col) = strides(dims.b_transposed, n, k);
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for p in 0..k {
            let x = f64::from(a[i * a_row + p * a_col]);
            for j in 0..n {
                c[i * n + j] += x * f64::from(b[p * b_row + j * b_col]);
            }
        }
    }
    c
}

const STORED: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn check(
    m: usize,
    n: usize,
    k: usize,
    run: impl Fn(&Table, &mut [f32], &[f32], &[f32], Gemm, Write),
) {
    for (a_transposed, b_transposed) in STORED {
        let dims = Gemm {
            m,
            n,
            k,
            a_transposed,
            b_transposed,
        };
        let (a, b) = (noise(1, m * k), noise(2, k * n));
        let sums = definition(&a, &b, dims);
        for table in tables() {
            for write in [Write::Set, Write::Add] {
                let c = written(m * n, write, |c| run(table, c, &a, &b, dims, write));
                assert_sums(&c, &sums, k, write, &format!("{} {dims:?}", table.isa()));
            }
        }
    }
}

#[test]
fn every_table_multiplies_awkward_sizes() {
    for m in [0, 1, 2, 5, 14, 15, 29] {
        for n in [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 47, 65, 100, 150] {
            for k in [0, 1, 2, 17] {
                check(m, n, k, gemm_with);
            }
        }
    }
    check(300, 20, 0, gemm_with);
}

#[test]
fn every_table_multiplies_the_shapes_of_an_mlp() {
    for rows in [10, 20, 30, 128] {
        for (m, n, k) in [
            (rows, 100, 784),
            (784, 100, rows),
            (rows, 100, 100),
            (rows, 10, 100),
            (rows, 100, 10),
        ] {
            check(m, n, k, gemm_with);
        }
    }
}

#[test]
fn every_table_multiplies_large_sizes() {
    // Packed for its B, packed for its stride, and large without packing; nothing divides evenly.
    for (m, n, k) in [(143, 517, 530), (45, 1024, 800), (1200, 100, 350)] {
        assert!(flops(m, n, k) >= PACKED_FLOPS && flops(m, n, k) >= PARALLEL_FLOPS);
        check(m, n, k, gemm_with);
    }
}

#[test]
fn packing_meets_every_edge_of_its_blocks() {
    let run = |table: &Table, c: &mut [f32], a: &[f32], b: &[f32], dims: Gemm, write| {
        let Some(blocking) = table.blocking() else {
            return gemm_with(table, c, a, b, dims, write);
        };
        let blocking = Blocking {
            mc: 26,
            nc: 3 * blocking.nv * table.lanes(),
            kc: 5,
            ..blocking
        };
        let (a_row, a_col) = strides(dims.a_transposed, dims.k, dims.m);
        let (b_row, b_col) = strides(dims.b_transposed, dims.n, dims.k);
        let a = Strided {
            data: a,
            row: a_row,
            col: a_col,
        };
        let b = Strided {
            data: b,
            row: b_row,
            col: b_col,
        };
        let c = TileMut::new(c, dims.m, dims.n, dims.n);
        packed(table, blocking, c, a, b, dims.k, write);
    };
    for m in [1, 13, 14, 29, 57] {
        for n in [1, 16, 31, 97, 130] {
            for k in [1, 5, 6, 16] {
                check(m, n, k, run);
            }
        }
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for (m, n, k) in [(300, 700, 600), (1200, 100, 350), (64, 1024, 700)] {
        assert!(flops(m, n, k) >= PARALLEL_FLOPS);
        let (a, b) = (noise(3, m * k), noise(4, k * n));
        for (a_transposed, b_transposed) in STORED {
            let dims = Gemm {
                m,
                n,
                k,
                a_transposed,
                b_transposed,
            };
            for table in tables() {
                let [one, three] = with_threads(|| {
                    let mut c = noise(5, m * n);
                    gemm_with(table, &mut c, &a, &b, dims, Write::Add);
                    c
                });
                let same = one
                    .iter()
                    .zip(&three)
                    .all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same, "{} {dims:?}", table.isa());
            }
        }
    }
}

#[test]
fn not_a_number_is_not_lost() {
    let dims = Gemm {
        m: 2,
        n: 3,
        k: 2,
        a_transposed: false,
        b_transposed: false,
    };
    for table in tables() {
        let mut c = [0.0; 6];
        let a = [0.0, 1.0, 0.0, 0.0];
        let b = [f32::NAN, 1.0, f32::INFINITY, 1.0, 2.0, 3.0];
        gemm_with(table, &mut c, &a, &b, dims, Write::Set);
        assert!(c[0].is_nan() && c[2].is_nan() && c[3].is_nan() && c[5].is_nan());
        assert_eq!([c[1], c[4]], [2.0, 0.0]);
    }
}

#[test]
#[should_panic(expected = "gemm Gemm { m: 2, n: 3, k: 4")]
fn operands_must_have_their_sizes() {
    let dims = Gemm {
        m: 2,
        n: 3,
        k: 4,
        a_transposed: false,
        b_transposed: false,
    };
    gemm(&mut [0.0; 6], &[0.0; 8], &[0.0; 11], dims, Write::Set);
}

/// Rows of pixels of which three in four are `ground`, and so is the whole pixel 5 and the last; noise without a ground.
fn images(ground: Option<f32>, rows: usize, width: usize) -> Vec<f32> {
    let mut images = noise(1, rows * width);
    let Some(ground) = ground else { return images };
    for (i, (x, hide)) in images.iter_mut().zip(noise(2, rows * width)).enumerate() {
        if hide < 0.5 || [5, width - 1].contains(&(i % width)) {
            *x = ground;
        }
    }
    images
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// The gradient of the weight of a layer with `n` units.
fn of_weight(rows: usize, width: usize, n: usize) -> Gemm {
    Gemm {
        m: width,
        n,
        k: rows,
        a_transposed: true,
        b_transposed: false,
    }
}

#[test]
fn a_step_by_a_product_has_the_bits_of_product_and_step() {
    for (rows, width, n) in [
        (4, 128, 32),
        (20, 784, 100),
        (33, 191, 47),
        (64, 192, 300),
        (70, 130, 33),
    ] {
        let (dims, mut dy) = (of_weight(rows, width, n), noise(3, rows * n));
        let mut weight = noise(4, width * n);
        // Gradients that vanish have a sign, which turns a weight of -0.
        dy.iter_mut().step_by(n).for_each(|x| *x = 0.0);
        dy[0] = -f32::from_bits(1);
        weight.iter_mut().step_by(n).for_each(|x| *x = -0.0);
        // Zeros of both signs, and what is no number, also where the gradient is zero.
        for (i, x) in [-0.0, 0.0, f32::NAN, f32::INFINITY].into_iter().enumerate() {
            (weight[3 * n + i], weight[5 * n + i]) = (x, x);
        }
        let grounds = [Some(0.0), Some(-0.4242), None];
        for (table, ground) in (tables().into_iter()).flat_map(|t| grounds.map(|g| (t, g))) {
            let (x, what) = (
                images(ground, rows, width),
                format!("{} {dims:?} on {ground:?}", table.isa()),
            );
            let (mut gradient, mut want) = (vec![f32::NAN; width * n], weight.clone());
            gemm_with(table, &mut gradient, &x, &dy, dims, Write::Set);
            want.iter_mut()
                .zip(&gradient)
                .for_each(|(w, g)| *w -= 0.3 * g);
            let mut stepped = true;
            let got = written(width * n, Write::Set, |w| {
                w.copy_from_slice(&weight);
                stepped = descend_with(table, w, Left::Numbers(&x), &dy, dims, 0.3);
            });
            assert!(stepped, "{what}");
            assert_eq!(bits(&got), bits(&want), "{what}");
        }
    }
}

#[test]
fn a_step_that_is_no_faster_is_left_to_others() {
    let (rows, width, n) = (20, 200, 40);
    let (dims, dy) = (of_weight(rows, width, n), noise(3, rows * n));
    let weight = noise(4, width * n);
    for table in tables() {
        let refused = |x: &[f32], lr: f32| {
            let mut w = weight.clone();
            let stepped = descend_with(table, &mut w, Left::Numbers(x), &dy, dims, lr);
            assert_eq!(stepped, w != weight, "{} by {lr}", table.isa());
            !stepped
        };
        let black = images(Some(0.0), rows, width);
        assert!(!refused(&black, 0.1));
        for lr in [0.0, -0.1, f32::INFINITY, f32::NAN] {
            assert!(refused(&black, lr), "{} by {lr}", table.isa());
        }
        // More terms than are added up in registers, a product that is packed, and one without a term.
        for (rows, width, n) in [(64 * 200, 200, 40), (64, 2048, 300), (0, 200, 40)] {
            let (dims, mut w) = (of_weight(rows, width, n), vec![0.0; width * n]);
            let (x, dy) = (images(Some(0.0), rows, width), noise(3, rows * n));
            assert!(
                !descend_with(table, &mut w, Left::Numbers(&x), &dy, dims, 0.1),
                "{dims:?}"
            );
        }
    }
}
