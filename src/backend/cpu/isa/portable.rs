//! Kernels in plain Rust, for every CPU. Products are rounded before they are added, since a fused
//! multiply-add is a library call where the CPU has none.
#![allow(unsafe_code)]

use super::super::dispatch::Isa;
use super::super::table::Table;
use super::kernel::{self, Vector};
use super::sparse::{self, Compare, SparseKernels};
use super::winograd::{self, Job, Transform};
use super::{Call, Matrices, Tile};

// SAFETY: uses no special instructions.
unsafe impl Vector for [f32; 4] {
    const LANES: usize = 4;
    type Mask = usize;
    #[inline(always)]
    unsafe fn mask(lanes: usize) -> usize {
        lanes
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for 4 numbers; arrays of f32 need no more alignment than f32.
        unsafe { *from.cast::<[f32; 4]>() }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: usize) -> Self {
        let mut out = [0.0; 4];
        for (i, x) in out.iter_mut().enumerate().take(mask) {
            // SAFETY: lane `i` is under the mask.
            *x = unsafe { *from.add(i) };
        }
        out
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for 4 numbers.
        unsafe { *to.cast::<[f32; 4]>() = self };
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: usize) {
        for (i, &x) in self.iter().enumerate().take(mask) {
            // SAFETY: lane `i` is under the mask.
            unsafe { *to.add(i) = x };
        }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] + a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }
}

// SAFETY: as for `Vector`.
unsafe impl Compare for [f32; 4] {
    #[inline(always)]
    unsafe fn differs(self, other: Self) -> u64 {
        (0..4).map(|i| u64::from(self[i] != other[i]) << i).sum()
    }
}

/// A tile of `MR` rows and one vector.
unsafe fn tile<const MR: usize, const NV: usize>(call: &Call<'_>) {
    // SAFETY: no special instructions; the addresses are the caller's.
    unsafe { kernel::tile::<[f32; 4], MR, NV>(call) }
}

unsafe fn copy(m: &Matrices, rows: usize, cols: usize) {
    // SAFETY: the addresses are the caller's.
    unsafe { kernel::copy::<[f32; 4]>(m, rows, cols) }
}

unsafe fn transpose(m: &Matrices, rows: usize, cols: usize) {
    // SAFETY: the addresses are the caller's.
    unsafe { kernel::transpose(m, rows, cols) }
}

unsafe fn winograd(transform: Transform, job: &Job<'_>) {
    // SAFETY: no special instructions; the addresses are the caller's.
    unsafe { winograd::run::<[f32; 4], 6>(transform, job) }
}

unsafe fn differ(from: *const f32, len: usize, background: f32, words: *mut u64) {
    // SAFETY: no special instructions; the addresses are the caller's.
    unsafe { sparse::differ::<[f32; 4]>(from, len, background, words) }
}

unsafe fn differ_bytes(from: *const u8, len: usize, background: u8, words: *mut u64) {
    let mask = |at: *const u8| {
        // SAFETY: the caller vouches for 64 bytes.
        let bytes = unsafe { std::slice::from_raw_parts(at, 64) };
        (bytes.iter().rev()).fold(0, |word, &byte| word << 1 | u64::from(byte != background))
    };
    // SAFETY: no special instructions; the addresses are the caller's.
    unsafe { sparse::differ_bytes(from, len, background, words, mask) }
}

/// The rows of a product whose left factor is mostly one value.
unsafe fn sparse_rows<const NV: usize>(job: &sparse::Job<'_>) {
    // SAFETY: no special instructions; the addresses are the caller's.
    unsafe { sparse::rows::<[f32; 4], 2, NV>(job) }
}

unsafe fn burn(rounds: usize) -> f32 {
    // SAFETY: no special instructions, no addresses.
    unsafe { kernel::burn::<[f32; 4], 8>(rounds) }
}

// Sixteen registers of SSE (NEON has more): 4 x 2 vectors of sums, two of B, the broadcast, the
// products on their way to the sums.
const ONE: [Tile; 6] = tiles!(1: 1 2 3 4 5 6);
const TWO: [Tile; 4] = tiles!(2: 1 2 3 4);

const SPARSE: [sparse::Rows; 5] = sparse_rows!(1 2 3 4 5);

/// The table of every CPU. It has no packed product: see [`fallback`](super::fallback).
pub(crate) static TABLE: Table = {
    // SAFETY: these kernels use no special instructions, and keep the contracts of their types:
    // entry `i` of the list for `v` vectors is the tile of `i + 1` rows and `v` vectors of 4 lanes.
    unsafe {
        Table::new(
            Isa::Portable,
            4,
            [&ONE, &TWO, &[], &[]],
            [copy, transpose],
            winograd,
            (burn, 8),
            None,
        )
        .with_sparse(SparseKernels::new(4, (differ, differ_bytes), &SPARSE))
    }
};
