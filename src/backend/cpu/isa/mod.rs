//! The innermost kernels, one file per instruction set, one generic body for all.
//!
//! Everything here works on raw pointers; the safe way in is
//! [`Table`](super::table::Table), which checks lengths first.

/// The tiles of `$nv` vectors, for each number of rows in the list; with `$share` those in which so many
/// rows or terms share a further vector.
macro_rules! tiles {
    ($nv:literal: $($mr:literal)*) => { [$(tile::<$mr, $nv>),*] };
    ($nv:literal, $share:literal: $($mr:literal)*) => { [$(tile::<$mr, $nv, $share>),*] };
}

/// The rows of sparse products for so many vectors.
macro_rules! sparse_rows {
    ($($nv:literal)*) => { [$(sparse_rows::<$nv>),*] };
}

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_shared;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_by_terms;
#[cfg(target_arch = "x86_64")]
mod avx512_shared;
#[cfg(target_arch = "x86_64")]
mod avx512_sums;
pub(super) mod bf16;
#[cfg(any(target_arch = "x86_64", test))]
mod blocks;
mod column;
pub(super) mod fallback;
mod kernel;
pub(super) mod portable;
#[cfg(target_arch = "x86_64")]
pub(super) mod rearrange;
pub(super) mod sparse;
pub(super) mod winograd;

/// The kernels that compute in tile registers which plain Rust imitates.
#[cfg(test)]
pub(super) use blocks::model::KERNELS as AMX_MODEL;

/// Where one group of terms starts: offsets into the two operands. Assembly reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Tap {
    /// Offset of the first number of A.
    pub a: usize,
    /// Offset of the first number of B.
    pub b: usize,
}

/// The arguments of a column of register tiles, see [`kernel::tile`].
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// Tiles below one another. At few terms a call for each takes long beside its sums.
    pub tiles: usize,
    /// First number of the destination.
    pub c: *mut f32,
    /// Distance between rows of the destination.
    pub c_row: usize,
    /// Base of A.
    pub a: *const f32,
    /// Base of B.
    pub b: *const f32,
    /// The groups of terms.
    pub taps: &'a [Tap],
    /// Terms in each group.
    pub k: usize,
    /// Distance between rows of A.
    pub a_row: usize,
    /// Distance between terms of A.
    pub a_step: usize,
    /// Distance between terms of B.
    pub b_row: usize,
    /// Memory that will be wanted soon after, any address, and how many bytes of it each term asks for.
    pub ahead: *const f32,
    pub ahead_step: usize,
    /// Columns in the last vector of the tile, at least 1.
    pub last: usize,
    /// Add to the destination instead of overwriting it.
    pub add: bool,
    /// What the sums are multiplied by before that.
    pub scale: Option<f32>,
}

/// Register tiles of a fixed number of rows and vectors, [`Call::tiles`] of them.
///
/// # Safety
/// The CPU has the instruction set of the table the tile is from, and for the rows `i` of all tiles, the columns
/// `j` (as cut by `last`), every tap and every term `p` the numbers `a[tap.a + i·a_row + p·a_step]`
/// and `b[tap.b + p·b_row + j]` may be read and `c[i·c_row + j]` may be read and written.
pub(super) type Tile = unsafe fn(&Call<'_>);

/// Tiles in whose last vector some rows or terms lie side by side, for widths that do not fill whole vectors. Entry `i`
/// of each list computes `i + 1` rows; an empty one has none for its case.
pub(super) struct Shared {
    /// Columns of each tile: whole vectors and the part of one that is left to a row.
    pub cols: usize,
    /// The fewest that may be wanted of those; [`Call::last`] says how many are.
    pub fewest: usize,
    /// Rows, or terms, that share a vector.
    pub share: usize,
    /// Rows share a vector.
    pub tiles: &'static [Tile],
    /// The same where the rows of A are neighbours ([`Call::a_row`] is 1).
    pub near: &'static [Tile],
    /// Terms share a vector, where they are neighbours in A ([`Call::a_step`] is 1) and [`Call::k`] a multiple of `share`.
    /// The last columns are rounded otherwise than in all other tiles, so it must not hang on the rows whether these are
    /// chosen.
    pub by_terms: &'static [Tile],
}

/// A whole product of so many rows and columns (the last two arguments), cut as the hardware wants it.
/// `tiles` and `last` mean nothing to it.
///
/// # Safety
/// As for [`Tile`], for all rows and columns; `k` is a multiple of 16 and `a_step` is 1.
pub(super) type Whole = unsafe fn(&Call<'_>, usize, usize);

/// Moves a matrix of `rows x cols`, the last two arguments: a copy does
/// `dst[i·dst_row + j] = src[i·src_row + j]`, a transposition `dst[j·dst_row + i] = src[i·src_row + j]`.
///
/// # Safety
/// The CPU has the instruction set of the table, all these numbers may be read or written, and the
/// two matrices do not overlap.
pub(super) type Move = unsafe fn(&Matrices, usize, usize);

/// The two matrices of a [`Move`].
pub(super) struct Matrices {
    /// First number of the destination.
    pub dst: *mut f32,
    /// Distance between rows of the destination.
    pub dst_row: usize,
    /// First number of the source.
    pub src: *const f32,
    /// Distance between rows of the source.
    pub src_row: usize,
}

/// The cache blocking of a packed product.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocking {
    /// Vectors of a panel of B.
    pub nv: usize,
    /// Rows of A packed at a time.
    pub mc: usize,
    /// Columns of B packed at a time.
    pub nc: usize,
    /// Terms summed in registers before they go to the destination.
    pub kc: usize,
    /// Numbers of B up to which it need not be packed, since a second-level cache holds it.
    pub cached: usize,
}
