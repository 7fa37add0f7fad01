//! The register tiles of products that leave terms out.
#![allow(unsafe_code)]

use super::super::kernel::Vector;
use super::{Factors, Job, WORD};

/// The body of every [`Rows`](super::Rows): `R` rows at a time, over the terms that any of them needs.
///
/// # Safety
/// As for [`Rows`](super::Rows), for the instruction set of `V`.
#[inline(always)]
pub(in super::super) unsafe fn rows<V: Vector, const R: usize, const NV: usize>(job: &Job<'_>) {
    // SAFETY: what the caller guarantees is what the tiles need.
    unsafe {
        match (job.a, job.last == V::LANES) {
            (Factors::Numbers(a), true) => {
                all::<V, Numbers<V>, R, NV, false>(job, Numbers::new(a, job))
            }
            (Factors::Numbers(a), false) => {
                all::<V, Numbers<V>, R, NV, true>(job, Numbers::new(a, job))
            }
            (Factors::Bytes(a, values), true) => {
                all::<V, Bytes, R, NV, false>(job, Bytes(a, values))
            }
            (Factors::Bytes(a, values), false) => {
                all::<V, Bytes, R, NV, true>(job, Bytes(a, values))
            }
            (Factors::Pairs(..), _) => unreachable!("pairs have kernels of their own"),
        }
    }
}

/// The body of every [`Rows`](super::Rows) for pairs of terms, whose `V` multiplies words.
///
/// # Safety
/// As for [`Rows`](super::Rows), for the instruction set of `V`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(in super::super) unsafe fn rows_of_pairs<V: Vector, const NV: usize>(job: &Job<'_>) {
    let Factors::Pairs(a, values) = job.a else {
        unreachable!("these kernels take pairs");
    };
    let a = Pairs(a, values, job.a_step);
    // SAFETY: what the caller guarantees is what the tiles need.
    unsafe {
        if job.last == V::LANES {
            all::<V, Pairs, 2, NV, false>(job, a);
        } else {
            all::<V, Pairs, 2, NV, true>(job, a);
        }
    }
}

/// Where factors come from.
///
/// # Safety
/// As for [`Vector`].
unsafe trait Source<V: Vector>: Copy {
    /// Terms that are multiplied at a time, as a power of two.
    const TOGETHER: u32;
    /// Factor `at`, less the background, in all lanes; with those multiplied at the same time.
    unsafe fn factor(self, at: usize) -> V;
}

/// Numbers, and what is added to each.
#[derive(Clone, Copy)]
struct Numbers<V>(*const f32, V);

impl<V: Vector> Numbers<V> {
    /// # Safety
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn new(a: *const f32, job: &Job<'_>) -> Self {
        // SAFETY: the caller vouches for the instruction set.
        Numbers(a, unsafe { V::splat(-job.background) })
    }
}

// SAFETY: as for `Vector`.
unsafe impl<V: Vector> Source<V> for Numbers<V> {
    const TOGETHER: u32 = 0;
    #[inline(always)]
    unsafe fn factor(self, at: usize) -> V {
        // SAFETY: the caller vouches for the instruction set and the address.
        unsafe { V::splat(*self.0.add(at)).add(self.1) }
    }
}

/// Bytes, and what each stands for.
#[derive(Clone, Copy)]
struct Bytes(*const u8, *const f32);

// SAFETY: as for `Vector`.
unsafe impl<V: Vector> Source<V> for Bytes {
    const TOGETHER: u32 = 0;
    #[inline(always)]
    unsafe fn factor(self, at: usize) -> V {
        // SAFETY: the caller vouches for the instruction set and the address, and there is a number for
        // each byte.
        unsafe { V::splat(*self.1.add(usize::from(*self.0.add(at)))) }
    }
}

/// Bytes, what each stands for as a bfloat16 number, and the distance to the next term.
#[derive(Clone, Copy)]
struct Pairs(*const u8, *const f32, usize);

// SAFETY: as for `Vector`.
unsafe impl<V: Vector> Source<V> for Pairs {
    const TOGETHER: u32 = 1;
    #[inline(always)]
    unsafe fn factor(self, at: usize) -> V {
        // SAFETY: the caller vouches for the instruction set and for both addresses, and there is a number
        // for each byte.
        unsafe {
            let half = |at: usize| (*self.1.add(usize::from(*self.0.add(at)))).to_bits();
            V::splat(f32::from_bits(half(at) | half(at + self.2) << 16))
        }
    }
}

/// The even bits.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// [`rows`] of one source, with the last vector cut or not.
#[inline(always)]
unsafe fn all<V: Vector, S: Source<V>, const R: usize, const NV: usize, const CUT: bool>(
    job: &Job<'_>,
    a: S,
) {
    let together = job.rows - job.rows % R;
    // SAFETY: rows below `job.rows`, for which the caller vouches.
    unsafe {
        for i in (0..together).step_by(R) {
            tile::<V, S, R, NV, CUT>(job, a, i);
        }
        for i in together..job.rows {
            tile::<V, S, 1, NV, CUT>(job, a, i);
        }
    }
}

/// `R` rows from `i` on. A factor of one row that is the background beside one of the other that is not
/// adds a zero.
#[inline(always)]
unsafe fn tile<V: Vector, S: Source<V>, const R: usize, const NV: usize, const CUT: bool>(
    job: &Job<'_>,
    a: S,
    i: usize,
) {
    // SAFETY: the caller guarantees the instruction set and every address.
    unsafe {
        // A vector that would reach past the last column ends with it, and computes some columns once more: a
        // masked store would hold up the loads of the next row.
        let column = |v: usize| match CUT && v + 1 == NV {
            true => v * V::LANES + job.last - V::LANES,
            false => v * V::LANES,
        };
        let load = |from: *const f32, v: usize| V::load(from.add(column(v)));
        let named = |q: usize| {
            let mut word = 0;
            for r in 0..R {
                word |= *job.words.add((i + r) * job.word_row + q * job.word_step);
            }
            if q + 1 == job.count {
                word &= job.last_bits;
            }
            word
        };
        if job.lr.is_some() {
            // What is finite times nothing.
            if job.base.is_none() && (0..job.count).all(|q| named(q) == 0) {
                return;
            }
            for r in 0..R {
                for v in 0..NV {
                    V::prefetch(job.c.wrapping_add((i + r) * job.c_row + v * V::LANES));
                }
            }
        }
        let mut sums = [[V::zero(); NV]; R];
        for (r, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                if job.add {
                    *sum = load(job.c.add((i + r) * job.c_row), v);
                }
                if let Some(base) = job.base {
                    *sum = sum.add(load(base.as_ptr(), v));
                }
            }
        }
        for q in 0..job.count {
            let mut word = named(q);
            if S::TOGETHER == 1 {
                word = (word | word >> 1) & EVEN;
            }
            let first = i * job.a_row + q * WORD * job.a_step;
            let b = job.b.wrapping_add(((q * WORD) >> S::TOGETHER) * job.b_row);
            while word != 0 {
                let term = word.trailing_zeros() as usize;
                word &= word - 1;
                let b = b.add((term >> S::TOGETHER) * job.b_row);
                let x: [V; R] =
                    std::array::from_fn(|r| a.factor(first + r * job.a_row + term * job.a_step));
                for v in 0..NV {
                    let b = load(b, v);
                    for (sums, &x) in sums.iter_mut().zip(&x) {
                        sums[v] = sums[v].add_product(x, b);
                    }
                }
            }
        }
        if let Some(lr) = job.lr {
            let lr = V::splat(lr);
            for (r, sums) in sums.iter_mut().enumerate() {
                for (v, sum) in sums.iter_mut().enumerate() {
                    *sum = load(job.c.add((i + r) * job.c_row), v).sub(lr.mul(*sum));
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                sum.store(job.c.add((i + r) * job.c_row + column(v)));
            }
        }
    }
}
