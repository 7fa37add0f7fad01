use super::*;
use crate::backend::Write;
use crate::backend::cpu::check::{before, noise, with_threads, written};
use crate::backend::cpu::isa::{AMX_MODEL, bf16::present};
use crate::backend::cpu::{check, scratch};

/// Every way this CPU has to multiply bfloat16 numbers, AMX as plain Rust always among them, with numbers
/// split and not.
pub(crate) fn modes() -> Vec<Factors> {
    check::tables(); // Says what is required and missing.
    let kernels = present().chain([&AMX_MODEL]);
    let both = kernels.map(|kernels| [false, true].map(|split| Factors::always(kernels, split)));
    both.flatten().collect()
}

/// The relative error (root of mean squares) that products of `factors` may have over `len` results. Few
/// results may all be off more than most are.
pub(crate) fn tolerance(factors: Factors, len: usize) -> f64 {
    let most = if factors.split { 1e-5 } else { 3e-3 };
    most * (1.0 + 4.0 / (len.max(1) as f64).sqrt())
}

/// Compares what [`written`] returned with sums of products of noise.
#[track_caller]
pub(crate) fn assert_rounded(got: &[f32], sums: &[f64], write: Write, of: (Factors, &str)) {
    assert_eq!(got.len(), sums.len(), "{of:?}");
    let start = before(got.len(), write);
    let (mut error, mut size) = (0.0, 0.0);
    for (i, (&got, &sum)) in got.iter().zip(sums).enumerate() {
        let want = match write {
            Write::Set => sum,
            Write::Add => f64::from(start[i]) + sum,
        };
        error += (f64::from(got) - want).powi(2);
        size += sum.powi(2);
    }
    let len = got.len() as f64;
    let (error, size) = (error.sqrt(), size.sqrt());
    let allowed = tolerance(of.0, got.len()) * size + 1e-7 * len.sqrt();
    // A NaN is never close enough.
    assert!(
        error <= allowed,
        "{of:?}, {write:?}: error {error:e}, allowed {allowed:e} (size {size:e})"
    );
}

/// Runs `f` on a thread whose scratch memory is full of NaN.
pub(crate) fn with_dirty_scratch(f: impl FnOnce() + Send) {
    fn dirty(deep: usize) {
        scratch::numbers(1 << 18, |numbers| {
            numbers.fill(f32::NAN);
            if deep > 0 {
                dirty(deep - 1);
            }
        });
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread").install(|| {
        dirty(5);
        f();
    });
}

fn check_gemm(m: usize, n: usize, k: usize) {
    for (a_transposed, b_transposed) in [(false, false), (true, false), (false, true), (true, true)]
    {
        let dims = Gemm {
            m,
            n,
            k,
            a_transposed,
            b_transposed,
        };
        let (a, b) = (noise(1, m * k), noise(2, k * n));
        let at_a = |i, p| if a_transposed { p * m + i } else { i * k + p };
        let at_b = |p, j| if b_transposed { j * k + p } else { p * n + j };
        let sums: Vec<f64> = (0..m * n)
            .map(|at| {
                let (i, j) = (at / n, at % n);
                let product = |p| f64::from(a[at_a(i, p)]) * f64::from(b[at_b(p, j)]);
                (0..k).map(product).sum()
            })
            .collect();
        for factors in modes() {
            for write in [Write::Set, Write::Add] {
                let got = written(m * n, write, |c| gemm(factors, c, &a, &b, dims, write));
                assert_rounded(&got, &sums, write, (factors, &format!("{dims:?}")));
            }
        }
    }
}

#[test]
fn products_of_awkward_sizes() {
    with_dirty_scratch(|| {
        for (m, n, k) in [
            (0, 3, 4),
            (3, 0, 4),
            (3, 4, 0),
            (1, 1, 1),
            (1, 2, 3),
            (2, 1, 2),
            (1, 40, 33),
            (40, 1, 31),
            (14, 32, 64),
            (15, 33, 65),
            (16, 16, 32),
            (17, 15, 31),
            (33, 48, 100),
            (50, 64, 1),
            (97, 131, 130),
            (130, 70, 513),
        ] {
            check_gemm(m, n, k);
        }
    });
}

#[test]
fn sums_longer_than_a_step_and_rows_a_page_apart() {
    with_dirty_scratch(|| {
        check_gemm(20, 40, 2048);
        check_gemm(20, 40, 2049);
        check_gemm(35, 33, 4101);
    });
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let (m, n, k) = (300, 290, 401);
    let (a, b) = (noise(1, m * k), noise(2, k * n));
    for transposed in [false, true] {
        let dims = Gemm {
            m,
            n,
            k,
            a_transposed: transposed,
            b_transposed: transposed,
        };
        assert!(2 * m * n * k >= crate::backend::cpu::gemm::PARALLEL_FLOPS);
        for factors in modes() {
            let [one, three] = with_threads(|| {
                let mut c = noise(3, m * n);
                gemm(factors, &mut c, &a, &b, dims, Write::Add);
                c
            });
            let same = (one.iter().zip(&three)).all(|(x, y)| x.to_bits() == y.to_bits());
            assert!(same, "{factors:?}, {dims:?}");
        }
    }
}

/// bfloat16 itself: to the nearest, ties to even, in both terms of a word, on the hardware as in plain Rust.
#[test]
fn numbers_are_rounded_to_the_nearest() {
    let cases = [
        (1.0 + f32::EPSILON, 1.0),
        (1.0 + 1.0 / 256.0, 1.0),              // a tie, down to even
        (1.0 + 3.0 / 256.0, 1.0 + 1.0 / 64.0), // a tie, up to even
        (1.0 + 1.1 / 256.0, 1.0 + 1.0 / 128.0),
        (-1.0 - 1.9 / 128.0, -1.0 - 1.0 / 64.0),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        (1e-39, 0.0),
        (-0.0, 0.0),
    ];
    let dims = |k| Gemm {
        m: 1,
        n: 1,
        k,
        a_transposed: false,
        b_transposed: false,
    };
    for factors in modes().into_iter().filter(|factors| !factors.split) {
        for (x, want) in cases {
            for term in 0..3 {
                let (mut row, mut one) = ([0.0; 3], [0.0; 3]);
                (row[term], one[term]) = (x, 1.0);
                let mut c = [f32::NAN];
                gemm(factors, &mut c, &row, &one, dims(3), Write::Set);
                // Infinity times the zeros beside it is not tried: those are other terms.
                assert_eq!(c[0], want, "{factors:?}: {x:e} as term {term}");
            }
        }
        let mut c = [0.0];
        gemm(factors, &mut c, &[f32::NAN], &[1.0], dims(1), Write::Set);
        assert!(c[0].is_nan(), "{factors:?}");
    }
}

#[test]
fn split_numbers_keep_sixteen_bits() {
    let dims = Gemm {
        m: 1,
        n: 1,
        k: 1,
        a_transposed: false,
        b_transposed: false,
    };
    for factors in modes().into_iter().filter(|factors| factors.split) {
        for x in [1.0 + 1.0 / 32768.0, 1.5 - 1.0 / 65536.0, -3.141_601_6] {
            let mut c = [f32::NAN];
            gemm(factors, &mut c, &[x], &[1.0], dims, Write::Set);
            assert!(
                (c[0] / x - 1.0).abs() <= 1e-5,
                "{factors:?}: {x} became {}",
                c[0]
            );
        }
    }
}

/// The assembly against plain Rust, where there is AMX. `UNFORGET_REQUIRE=amx` makes its absence a failure.
#[test]
fn amx_does_what_its_model_does() {
    check::tables();
    let Some(amx) = present().find(|kernels| kernels.name() == "amx") else {
        println!("skipped: this CPU has no AMX");
        return;
    };
    for (m, n, k) in [
        (1, 1, 1),
        (16, 16, 32),
        (33, 47, 70),
        (70, 17, 300),
        (40, 64, 513),
    ] {
        for (a_transposed, b_transposed) in [(false, false), (true, true)] {
            let dims = Gemm {
                m,
                n,
                k,
                a_transposed,
                b_transposed,
            };
            let (a, b) = (noise(1, m * k), noise(2, k * n));
            for (split, write) in [(false, Write::Set), (true, Write::Add)] {
                let [hardware, model] = [amx, &AMX_MODEL].map(|kernels| {
                    let factors = Factors::always(kernels, split);
                    written(m * n, write, |c| gemm(factors, c, &a, &b, dims, write))
                });
                for (i, (x, y)) in hardware.iter().zip(&model).enumerate() {
                    let close = (x - y).abs() <= 1e-6 * (k as f32).sqrt();
                    assert!(
                        close,
                        "{dims:?}, {write:?}: number {i} is {x}, the model has {y}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_worth_it() {
    let cpu = present().next_back().unwrap_or(&AMX_MODEL);
    let factors = Factors::always(cpu, false).where_it_pays();
    let dims = |m, n, k| Gemm {
        m,
        n,
        k,
        a_transposed: false,
        b_transposed: false,
    };
    assert!(factors.multiply(dims(1024, 1024, 1024)));
    assert!(factors.multiply(dims(384, 100, 784)));
    for small in [dims(20, 100, 784), dims(1024, 10, 512), dims(1024, 1024, 1)] {
        assert!(!factors.multiply(small), "{small:?}");
    }
}

#[test]
fn a_precision_is_had_or_refused() {
    assert!(Factors::new(Precision::Full).unwrap().is_none());
    let error = Factors::new(Precision::Tf32).unwrap_err().to_string();
    assert!(error.contains("--precision high"), "{error}");
    let best = select_pairs();
    let bf16 = Factors::new(Precision::Bf16).unwrap();
    let fast = best.filter(|k| k.fast());
    assert_eq!(bf16.map(|f| f.kernels.name()), fast.map(|k| k.name()));
    let high = Factors::new(Precision::High).unwrap();
    assert_eq!(high.is_some(), best.is_some_and(|k| k.name() == "amx"));
    assert!(high.is_none_or(|f| f.split) && bf16.is_none_or(|f| !f.split));
}
