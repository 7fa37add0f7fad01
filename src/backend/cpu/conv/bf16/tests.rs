use super::*;
use crate::backend::cpu::bf16::tests::{assert_rounded, modes, with_dirty_scratch};
use crate::backend::cpu::check::{noise, with_threads, written};
use crate::backend::cpu::conv::tests::{geometry, products};

/// Compares all three passes with the definition, in every mode.
fn check_all(conv: Conv) {
    let (nx, nw, ny) = (conv.input.len(), conv.weight_len(), conv.output().len());
    let (x, w, dy) = (noise(1, nx), noise(2, nw), noise(3, ny));
    let (mut y, mut dx, mut dw) = (vec![0.0; ny], vec![0.0; nx], vec![0.0; nw]);
    let product = |a: f32, b: f32| f64::from(a) * f64::from(b);
    products(conv, |ix, iw, iy| {
        y[iy] += product(x[ix], w[iw]);
        dx[ix] += product(dy[iy], w[iw]);
        dw[iw] += product(x[ix], dy[iy]);
    });
    for factors in modes() {
        let assert = |got: &[f32], sums: &[f64], write, pass: &str| {
            assert_rounded(got, sums, write, (factors, &format!("{pass} of {conv:?}")));
        };
        let got = written(ny, Write::Set, |y| forward(factors, y, &x, &w, conv));
        assert(&got, &y, Write::Set, "forward");
        for write in [Write::Set, Write::Add] {
            let got = written(nx, write, |dx| {
                backward_data(factors, dx, &dy, &w, conv, write);
            });
            assert(&got, &dx, write, "data");
            let got = written(nw, write, |dw| {
                backward_weight(factors, dw, &x, &dy, conv, write);
            });
            assert(&got, &dw, write, "weight");
        }
    }
}

#[test]
fn every_batch_size_and_channel_count() {
    with_dirty_scratch(|| {
        for n in [1, 2, 5, 20, 33, 70] {
            for c in [[1, 1], [1, 6], [3, 20], [20, 3], [17, 33]] {
                for stride in [1, 2] {
                    check_all(geometry(n, c, [6, 5], [3, 3], [stride; 2], [1, 1]));
                }
            }
        }
    });
}

#[test]
fn every_geometry() {
    with_dirty_scratch(|| {
        for n in [0, 1, 3, 34] {
            for (size, kernel, stride, padding) in [
                ([7, 9], [1, 1], [1, 1], [0, 0]),
                ([7, 9], [1, 1], [2, 2], [0, 0]),
                ([8, 8], [5, 5], [1, 1], [2, 2]),
                ([9, 12], [2, 3], [3, 1], [0, 1]),
                ([9, 12], [3, 1], [1, 2], [1, 0]),
                ([4, 3], [4, 3], [1, 1], [3, 2]),
                ([3, 3], [1, 1], [1, 1], [2, 2]),
                ([1, 1], [3, 3], [1, 1], [1, 1]),
                ([5, 5], [3, 3], [2, 2], [0, 0]),
            ] {
                check_all(geometry(n, [5, 18], size, kernel, stride, padding));
            }
        }
        check_all(geometry(2, [0, 3], [4, 4], [3, 3], [1, 1], [1, 1]));
        check_all(geometry(2, [3, 0], [4, 4], [3, 3], [1, 1], [1, 1]));
        // The kernel does not fit: there is no output, and no gradient.
        check_all(geometry(2, [3, 4], [2, 2], [3, 3], [1, 1], [0, 0]));
    });
}

#[test]
fn weights_in_panels() {
    for (n, c, stride) in [(4, [64, 260], 1), (20, [260, 64], 2), (33, [101, 177], 1)] {
        check_all(geometry(n, c, [4, 5], [3, 3], [stride; 2], [1, 1]));
    }
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    for conv in [
        geometry(40, [20, 20], [32, 32], [3, 3], [1, 1], [1, 1]),
        geometry(33, [40, 70], [16, 16], [3, 3], [2, 2], [1, 1]),
    ] {
        assert!(flops(conv) >= PARALLEL_FLOPS / 2);
        let (nx, nw, ny) = (conv.input.len(), conv.weight_len(), conv.output().len());
        let (x, w, dy) = (noise(1, nx), noise(2, nw), noise(3, ny));
        for factors in modes() {
            let [one, three] = with_threads(|| {
                let (mut y, mut dx, mut dw) = (vec![0.0; ny], noise(4, nx), noise(5, nw));
                forward(factors, &mut y, &x, &w, conv);
                backward_data(factors, &mut dx, &dy, &w, conv, Write::Add);
                backward_weight(factors, &mut dw, &x, &dy, conv, Write::Add);
                [y, dx, dw].concat()
            });
            let same = (one.iter().zip(&three)).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{factors:?} {conv:?}");
        }
    }
}

#[test]
fn vectors_leave_to_winograd_what_it_does_faster() {
    let same = |c: usize, size| geometry(32, [c; 2], [size; 2], [3, 3], [1, 1], [1, 1]);
    let strided = geometry(32, [64, 128], [32, 32], [3, 3], [2, 2], [1, 1]);
    for factors in modes() {
        let factors = factors.where_it_pays();
        for pass in [bf16::Pass::Forward, bf16::Pass::Data, bf16::Pass::Weight] {
            assert!(chosen(factors, strided, pass), "{factors:?} {pass:?}");
            assert!(chosen(factors, same(512, 4), pass), "{factors:?} {pass:?}");
            let large = chosen(factors, same(128, 32), pass);
            assert_eq!(large, factors.kernels().upright(), "{factors:?} {pass:?}");
        }
        // Three channels are too few terms for a word of sixteen pairs, and one sample for a pair.
        let images = geometry(1, [3, 64], [32, 32], [3, 3], [1, 1], [1, 1]);
        assert!(!chosen(factors, images, bf16::Pass::Weight));
    }
}
