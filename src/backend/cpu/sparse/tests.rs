//! Products with terms left out, beside whole ones.

use super::*;
use crate::backend::Write;
use crate::backend::cpu::check::{assert_sums, noise, tables, with_threads, written};
use crate::backend::cpu::gemm::gemm_with;
use crate::backend::cpu::isa::bf16::present;

/// Rows of numbers of which three in four are `background`, in no order.
fn images(background: f32, len: usize) -> Vec<f32> {
    let mut images = noise(1, len);
    for (x, hide) in images.iter_mut().zip(noise(2, len)) {
        if hide < 0.5 {
            *x = background;
        }
    }
    // In any of the places that are looked at first.
    images[0] = 0.77;
    images
}

/// The images as bytes, of which 9 stands for `background`, and what the bytes stand for.
fn stored(images: &[f32], background: f32) -> (Vec<u8>, [f32; 256]) {
    let byte = |&x: &f32| match x {
        _ if x == background => 9,
        // Not the background's byte.
        _ => (100.0 + 100.0 * x) as u8 | 128,
    };
    let mut values = std::array::from_fn(|b| b as f32 / 255.0 - 0.3);
    values[9] = background;
    (images.iter().map(byte).collect(), values)
}

fn tables_and_writes() -> impl Iterator<Item = (&'static Table, Write)> {
    let writes = [Write::Set, Write::Add];
    (tables().into_iter()).flat_map(move |table| writes.map(|write| (table, write)))
}

fn dims(m: usize, n: usize, k: usize, a_transposed: bool) -> Gemm {
    Gemm {
        m,
        n,
        k,
        a_transposed,
        b_transposed: false,
    }
}

/// `rows` images of `width` pixels through a layer with `n` units: forward and gradient of the weight.
fn both(rows: usize, width: usize, n: usize) -> [Gemm; 2] {
    [dims(rows, n, width, false), dims(width, n, rows, true)]
}

/// The product by its definition, in f64.
fn definition(a: &[f32], b: &[f32], dims: Gemm) -> Vec<f64> {
    let (a_row, a_step) = Stored::new(Left::Numbers(a), dims).strides();
    let mut c = vec![0.0; dims.m * dims.n];
    for (i, c) in c.chunks_exact_mut(dims.n).enumerate() {
        for (p, b) in b.chunks_exact(dims.n).enumerate() {
            let x = f64::from(a[i * a_row + p * a_step]);
            for (c, &b) in c.iter_mut().zip(b) {
                *c += x * f64::from(b);
            }
        }
    }
    c
}

#[test]
fn every_table_multiplies_images() {
    for (rows, width, n) in [
        (4, 128, 32),
        (5, 129, 33),
        (20, 784, 100),
        (63, 191, 47),
        (64, 192, 48),
        (131, 300, 150),
        (7, 500, 300),
    ] {
        for value in [0.0, -0.4242] {
            for dims in both(rows, width, n) {
                let (a, b) = (images(value, rows * width), noise(3, dims.k * n));
                let (bytes, values) = stored(&a, value);
                let looked_up: Vec<f32> = bytes.iter().map(|&x| values[x as usize]).collect();
                let sums = [definition(&a, &b, dims), definition(&looked_up, &b, dims)];
                let lefts = [Left::Numbers(&a), Left::Bytes(&bytes, &values)];
                for (table, write) in tables_and_writes() {
                    for (a, sums) in lefts.iter().zip(&sums) {
                        let c = written(dims.m * n, write, |c| {
                            assert!(product(table, None, c, *a, &b, dims, write));
                        });
                        let what = format!("{} {dims:?} on {value}", table.isa());
                        assert_sums(&c, sums, dims.k, write, &what);
                    }
                }
            }
        }
    }
}

/// Two terms at a time: what is left of the factors is rounded to bfloat16, the background is not.
#[test]
fn pairs_of_bytes_are_multiplied_as_words() {
    let round = |x: f32| {
        let bits = x.to_bits();
        f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
    };
    let kernels = || present().filter(|kernels| kernels.table().sparse().is_some());
    for (rows, width, n) in [(4, 128, 32), (6, 130, 33), (66, 192, 48), (384, 784, 100)] {
        for (dims, value) in both(rows, width, n).into_iter().zip([0.0, -0.4242]) {
            let (bytes, values) = stored(&images(value, rows * width), value);
            let b = noise(3, dims.k * n);
            let others = bytes.iter().map(|&x| round(values[x as usize] - value));
            let rounded: Vec<f32> = b.iter().copied().map(round).collect();
            let mut sums = definition(&others.collect::<Vec<_>>(), &rounded, dims);
            let ground = definition(&vec![value; dims.m * dims.k], &b, dims);
            sums.iter_mut().zip(ground).for_each(|(sum, c)| *sum += c);
            for kernels in kernels() {
                for write in [Write::Set, Write::Add] {
                    let c = written(dims.m * n, write, |c| {
                        let (table, a) = (kernels.table(), Left::Bytes(&bytes, &values));
                        let table = tables().into_iter().rfind(|t| t.isa() <= table.isa());
                        let table = table.expect("the portable one");
                        assert!(product(table, Some(kernels), c, a, &b, dims, write));
                    });
                    assert_sums(&c, &sums, dims.k, write, &format!("{kernels:?} {dims:?}"));
                }
            }
        }
    }
    // An odd number of terms is not divided into pairs, nor are numbers.
    let (rows, width, n) = (5, 131, 40);
    let a = images(0.0, rows * width);
    let (bytes, values) = stored(&a, 0.0);
    for dims in both(rows, width, n) {
        let (b, table) = (noise(3, dims.k * n), super::super::dispatch::select());
        for (a, kernels) in [Left::Bytes(&bytes, &values), Left::Numbers(&a)]
            .into_iter()
            .flat_map(|a| kernels().map(move |kernels| (a, kernels)))
        {
            let [mut c, mut plain] = [(); 2].map(|()| vec![0.0; dims.m * n]);
            assert!(product(
                table,
                Some(kernels),
                &mut c,
                a,
                &b,
                dims,
                Write::Set
            ));
            assert!(product(table, None, &mut plain, a, &b, dims, Write::Set));
            assert_eq!(c, plain);
        }
    }
}

#[test]
fn zeros_left_out_change_no_bit() {
    let (rows, width) = (33, 200);
    for (table, n) in tables()
        .into_iter()
        .flat_map(|table| [(table, 100), (table, 102)])
    {
        for dims in both(rows, width, n) {
            let (a, b) = (images(0.0, rows * width), noise(3, dims.k * n));
            let (mut c, mut dense) = (vec![0.0; dims.m * n], vec![0.0; dims.m * n]);
            assert!(product(
                table,
                None,
                &mut c,
                Left::Numbers(&a),
                &b,
                dims,
                Write::Set
            ));
            let (bytes, values) = stored(&a, 0.0);
            let looked_up: Vec<f32> = bytes.iter().map(|&x| values[x as usize]).collect();
            let [mut of_bytes, mut of_numbers] = [(); 2].map(|()| vec![0.0; dims.m * n]);
            let left = Left::Bytes(&bytes, &values);
            assert!(product(
                table,
                None,
                &mut of_bytes,
                left,
                &b,
                dims,
                Write::Set
            ));
            let left = Left::Numbers(&looked_up);
            assert!(product(
                table,
                None,
                &mut of_numbers,
                left,
                &b,
                dims,
                Write::Set
            ));
            assert_eq!(of_bytes, of_numbers, "bytes, {} {dims:?}", table.isa());
            // A factor that is stored transposed is not looked at.
            let mut upright = vec![0.0; b.len()];
            table.transpose((&mut upright, dims.k), (&b, n), (dims.k, n));
            let all = Gemm {
                b_transposed: true,
                ..dims
            };
            gemm_with(table, &mut dense, &a, &upright, all, Write::Set);
            // Of 100 columns the last four are not the same sums where terms share a vector, but near them.
            let same = if dims.a_transposed || n == 102 { n } else { 96 };
            for (c, dense) in c.chunks_exact(n).zip(dense.chunks_exact(n)) {
                let what = format!("{} {dims:?}", table.isa());
                assert_eq!(c[..same], dense[..same], "{what}");
                for (c, dense) in c[same..].iter().zip(&dense[same..]) {
                    assert!((c - dense).abs() <= 1e-5, "{what}: {c}, not {dense}");
                }
            }
        }
    }
}

#[test]
fn bits_past_the_last_term_mean_nothing() {
    let (m, n, k) = (5, 40, 70);
    let (a, b) = (noise(1, m * k), noise(3, k * n));
    let sums = definition(&a, &b, dims(m, n, k, false));
    let terms = SparseTerms {
        a: Left::Numbers(&a),
        b: &b,
        k,
        a_row: k,
        a_step: 1,
        b_row: n,
    };
    let words = Words {
        words: &[u64::MAX; 10],
        row: 2,
        step: 1,
    };
    let background = Background {
        value: 0.0,
        row: &[0.0; 40],
    };
    for table in tables() {
        let c = written(m * n, Write::Set, |c| {
            let c = TileMut::new(c, m, n, n);
            let kernels = table.sparse().expect("kernels");
            kernels.product(c, &terms, words, background, Write::Set);
        });
        assert_sums(&c, &sums, k, Write::Set, table.isa().name());
    }
}

#[test]
fn other_matrices_are_left_to_others() {
    let table = super::super::dispatch::select();
    let mut c = vec![0.0; 20 * 100];
    let b = noise(3, 784 * 100);
    let mut refused = |a: &[f32]| {
        !product(
            table,
            None,
            &mut c,
            Left::Numbers(a),
            &b,
            dims(20, 100, 784, false),
            Write::Set,
        )
    };
    assert!(refused(&noise(1, 20 * 784)));
    assert!(refused(&[f32::NAN; 20 * 784]));
    assert!(refused(&[f32::INFINITY; 20 * 784]));
    assert!(!refused(&images(0.0, 20 * 784)));
}

#[test]
fn what_is_not_finite_comes_through() {
    let table = super::super::dispatch::select();
    let (rows, width, n) = (20, 200, 40);
    for value in [0.0, 1.0] {
        for dims in both(rows, width, n) {
            let (mut a, b) = (images(value, rows * width), noise(3, dims.k * n));
            a[3 * width + 5] = f32::NAN;
            let mut c = vec![0.0; dims.m * n];
            assert!(product(
                table,
                None,
                &mut c,
                Left::Numbers(&a),
                &b,
                dims,
                Write::Set
            ));
            let hit = if dims.a_transposed { 5 } else { 3 };
            for (i, c) in c.chunks_exact(n).enumerate() {
                // The row that is computed together with another stays clean.
                assert!(
                    c.iter().all(|x| x.is_nan() == (i == hit)),
                    "{dims:?} row {i}"
                );
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let (rows, width, n) = (400, 784, 520);
    for dims in both(rows, width, n) {
        let (a, b) = (images(0.5, rows * width), noise(3, dims.k * n));
        let [one, three] = with_threads(|| {
            let mut c = vec![0.0; dims.m * n];
            let table = super::super::dispatch::select();
            assert!(product(
                table,
                None,
                &mut c,
                Left::Numbers(&a),
                &b,
                dims,
                Write::Set
            ));
            c
        });
        assert_eq!(one, three);
    }
}
