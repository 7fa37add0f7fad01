//! The suite of every backend, on the machine's GPU or on the emulated one.

#[path = "../../../tests/cuda_emu/mod.rs"]
mod cuda_emu;

use super::{Buffer, Cuda};
use crate::backend::conformance::check_backend;
use crate::backend::{Backend, Gemm, Precision, View, ViewMut, Write};
use crate::pixels::{Cutout, PixelRow};
use crate::shape::{Conv, Images};

#[test]
fn the_gpu_agrees_with_the_oracle() {
    if cuda_emu::ready() {
        check_backend(|| Cuda::new(0).expect("a GPU"));
    }
}

#[test]
fn an_upload_may_be_overwritten_on_the_host_at_once() {
    if !cuda_emu::ready() {
        return;
    }
    let cuda = Cuda::new(0).expect("a GPU");
    let len = 300_000;
    let mut buf = cuda.alloc(3 * len).expect("memory");
    // More than the staging memory holds at a time, and an upload that does not go through it.
    let mut host = vec![0.0; len];
    for round in 0..9 {
        let count = if round == 4 { len } else { len / 2 };
        host.fill(round as f32);
        let offset = round % 3 * len;
        let dst = ViewMut {
            buf: &mut buf,
            offset,
            len: count,
        };
        cuda.upload(dst, &host[..count]);
    }
    host.fill(-1.0);
    let mut all = vec![0.0; 3 * len];
    let src = View {
        buf: &buf,
        offset: 0,
        len: all.len(),
    };
    cuda.download(src, &mut all);
    for (part, first) in all.chunks(len).zip([6.0, 7.0, 8.0]) {
        assert!(part[..len / 2].iter().all(|&x| x == first));
    }
    assert!(all[len + len / 2..2 * len].iter().all(|&x| x == 4.0));
}

/// Eighths between -1 and 1: TF32 and bfloat16 hold them exactly, and f32 their sums of products.
fn eighths(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * i + 7 * i) % 17) as f32 / 8.0 - 1.0)
        .collect()
}

/// A result of `run` on numbers of these lengths (the last one is added to), in each precision.
fn in_each_precision(
    cuda: &mut Cuda,
    lens: [usize; 3],
    run: impl Fn(&Cuda, [View<'_, Buffer>; 2], ViewMut<'_, Buffer>),
) -> [Vec<f32>; 3] {
    [Precision::Full, Precision::Tf32, Precision::Bf16].map(|precision| {
        cuda.set_precision(precision);
        let [a, b, mut c] = lens.map(|len| {
            let mut buf = cuda.alloc(len).expect("memory");
            let dst = ViewMut {
                buf: &mut buf,
                offset: 0,
                len,
            };
            cuda.upload(dst, &eighths(len));
            buf
        });
        let view = |buf, len| View {
            buf,
            offset: 0,
            len,
        };
        let dst = ViewMut {
            buf: &mut c,
            offset: 0,
            len: lens[2],
        };
        run(cuda, [view(&a, lens[0]), view(&b, lens[1])], dst);
        let mut out = vec![0.0; lens[2]];
        cuda.download(view(&c, lens[2]), &mut out);
        out
    })
}

#[test]
fn tensor_cores_give_what_f32_gives_where_nothing_is_rounded() {
    if !cuda_emu::ready() {
        return;
    }
    let mut cuda = Cuda::new(0).expect("a GPU");
    let all_equal = |what: String, [full, tf32, bf16]: [Vec<f32>; 3]| {
        assert!(full == tf32, "{what} in TF32");
        assert!(full == bf16, "{what} in bfloat16");
    };
    // The last two do not lie in fours everywhere.
    for (m, n, k) in [
        (4, 4, 4),
        (20, 100, 784),
        (132, 68, 36),
        (260, 64, 16),
        (5, 8, 12),
        (8, 6, 300),
    ] {
        for (a_transposed, b_transposed) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let dims = Gemm {
                m,
                n,
                k,
                a_transposed,
                b_transposed,
            };
            let results = in_each_precision(&mut cuda, [m * k, k * n, m * n], |cuda, [a, b], c| {
                cuda.gemm(c, a, b, dims, Write::Add);
            });
            all_equal(format!("{dims:?}"), results);
        }
    }
    for (c, out_c, kernel, stride, padding) in [
        (4, 8, 3, 1, 1),
        (20, 36, 3, 2, 1),
        (8, 4, 1, 2, 0),
        (64, 64, 3, 1, 1),
        (3, 8, 3, 1, 1),
    ] {
        let input = Images {
            n: 3,
            c,
            h: 7,
            w: 6,
        };
        let conv = Conv {
            input,
            out_c,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
        };
        let (x, y, w) = (input.len(), conv.output().len(), conv.weight_len());
        let results = in_each_precision(&mut cuda, [x, w, y], |cuda, [x, w], y| {
            cuda.conv2d(y, x, w, conv);
        });
        all_equal(format!("{conv:?}"), results);
        let results = in_each_precision(&mut cuda, [y, w, x], |cuda, [dy, w], dx| {
            cuda.conv2d_backward_data(dx, dy, w, conv, Write::Add);
        });
        all_equal(format!("gradient of the input of {conv:?}"), results);
        let results = in_each_precision(&mut cuda, [x, y, w], |cuda, [x, dy], dw| {
            cuda.conv2d_backward_weight(dw, x, dy, conv, Write::Add);
        });
        all_equal(format!("gradient of the weight of {conv:?}"), results);
    }
}

#[test]
fn a_precision_rounds_factors_as_it_says() {
    if !cuda_emu::ready() {
        return;
    }
    let mut cuda = Cuda::new(0).expect("a GPU");
    let n = 4;
    // One above 1 by half of the last place of each format, and a little more.
    for (precision, kept, lost) in [
        (Precision::Full, 1.0 + 2.0_f32.powi(-20), None),
        (
            Precision::Tf32,
            1.0 + 2.0_f32.powi(-10),
            Some(1.0 + 2.0_f32.powi(-12)),
        ),
        (
            Precision::Bf16,
            1.0 + 2.0_f32.powi(-7),
            Some(1.0 + 2.0_f32.powi(-9)),
        ),
    ] {
        cuda.set_precision(precision);
        for (x, want) in [(kept, kept)].into_iter().chain(lost.map(|x| (x, 1.0))) {
            let mut bufs = [0, 1, 2].map(|_| cuda.alloc(n * n).expect("memory"));
            // x times the unit matrix, times the unit matrix.
            for (buf, diagonal) in bufs.iter_mut().zip([x, 1.0]) {
                let host: Vec<f32> = (0..n * n)
                    .map(|i| if i % (n + 1) == 0 { diagonal } else { 0.0 })
                    .collect();
                let dst = ViewMut {
                    buf,
                    offset: 0,
                    len: n * n,
                };
                cuda.upload(dst, &host);
            }
            let [a, b, c] = &mut bufs;
            let view = |buf| View {
                buf,
                offset: 0,
                len: n * n,
            };
            let dims = Gemm {
                m: n,
                n,
                k: n,
                a_transposed: false,
                b_transposed: false,
            };
            let dst = ViewMut {
                buf: c,
                offset: 0,
                len: n * n,
            };
            cuda.gemm(dst, view(a), view(b), dims, Write::Set);
            let mut out = vec![0.0; n * n];
            cuda.download(view(c), &mut out);
            assert_eq!(out[n + 1], want, "{x} in {precision:?}");
        }
    }
}

/// Slots of samples that are gone are used again, but not while something that is written down reads them.
#[test]
fn pixels_of_samples_that_come_and_go_are_never_mixed_up() {
    if !cuda_emu::ready() {
        return;
    }
    let cuda = Cuda::new(0).expect("a GPU");
    let (rounds, size) = (3000, 12);
    let mut buf = cuda.alloc(rounds * size).expect("memory");
    let tables = std::sync::Arc::new([std::array::from_fn(|b| b as f32)]);
    let mut alive = std::collections::VecDeque::new();
    for round in 0..rounds {
        let row = PixelRow {
            pixels: (0..size).map(|i| (round * 7 + i) as u8).collect(),
            first: 0,
            map: None,
            tables: tables.clone(),
            cutout: Cutout::whole([1, size]),
        };
        let dst = ViewMut {
            buf: &mut buf,
            offset: round * size,
            len: size,
        };
        cuda.gather_pixels(dst, std::slice::from_ref(&row));
        alive.push_back(row);
        if alive.len() > 20 {
            alive.pop_front();
        }
    }
    let mut all = vec![0.0; rounds * size];
    let src = View {
        buf: &buf,
        offset: 0,
        len: all.len(),
    };
    cuda.download(src, &mut all);
    for (at, x) in all.into_iter().enumerate() {
        let (round, i) = (at / size, at % size);
        assert_eq!(x, f32::from((round * 7 + i) as u8), "round {round}");
    }
}
