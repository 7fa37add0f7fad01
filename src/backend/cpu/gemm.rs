//! The product of dense row-major matrices.
//!
//! Small products go straight to the register tiles: B is read where it lies (transposed into
//! scratch first if it is stored that way), A through any strides. Large ones are packed: B is copied
//! into panels as wide as a tile, blocks of A into rows of their own, so that they stay in cache
//! whatever their strides (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008). Work is cut over the destination only, never over the terms of a sum, so
//! the result does not depend on the number of threads.

use super::awake;
use super::dispatch::select;
use super::isa::fallback::{self, Strided};
use super::isa::sparse::Left;
use super::isa::{Blocking, Tap};
use super::table::Table;
use super::terms::{Finish, Terms};
use super::tiles::{TileMut, for_each_pieces};
use super::{scratch, sparse};
use crate::backend::{Gemm, Write};

/// Operations below which a product stays on the calling thread if the others are asleep: about 0.3 ms,
/// against some 0.03 ms to hand half of it over when the machine is busy.
pub(super) const PARALLEL_FLOPS: usize = 1 << 26;

/// Operations below which it does if the others are awake: some 10 microseconds.
const AWAKE_FLOPS: usize = 1 << 19;

/// Whether threads share a product.
pub(super) fn is_shared(m: usize, n: usize, k: usize) -> bool {
    let flops = flops(m, n, k);
    flops >= PARALLEL_FLOPS || (flops >= AWAKE_FLOPS && awake::now())
}

/// Operations from which packing is worth thinking about.
const PACKED_FLOPS: usize = 1 << 26;

/// Numbers in a cache line.
const LINE: usize = 16;

/// Rows at this distance (in numbers), a page, fall on the same few places of the caches and push
/// each other out, unless they are packed.
const PAGE: usize = 1 << 10;

/// Most rows of a cell of the destination that one thread fills in a product without packing, about the
/// number of such cells in a product that is shared, and what their rows are a multiple of: most heights of tiles
/// divide it or nearly so, and 384 rows come to eight cells, not to seven.
const CELL_ROWS: usize = 112;
const CELLS: usize = 8;
const TILE_ROWS: usize = 6;

/// Terms and columns from which a panel of B fills the first-level cache, where that is as small as vectors of so
/// many numbers tell. Then an A that is stored transposed is turned over: a tile's few numbers of each term lie on a
/// cache line of their own, and push out the panel.
const LONG: (usize, usize) = (256, 64);
const NARROW: usize = 8;

/// Rows from which rows of such a B are copied [`apart`]: those of a panel then lie on half as many lines, or
/// on lines that do not push each other out.
const ALIGNED_ROWS: usize = 128;

/// Rows of it that one thread copies at a time.
const ALIGNED_TOGETHER: usize = 64;

/// Rows of it that one thread turns over at a time: they share cache lines of A.
const TURNED_TOGETHER: usize = 16;

/// Columns of a cell of the destination that one thread fills in a packed product which threads share: a multiple of the
/// width of every panel. A thread by itself copies each block of A once, for all columns.
const CELL_COLS: usize = 512;

/// Panels of B that one thread packs at a time, and terms that it takes from each in turn where those are its rows.
const PACKED_TOGETHER: usize = 8;
const PACKED_TERMS: usize = 16;

/// Rows and columns of a cell that one call of the fallback fills.
const FALLBACK_CELL: usize = 256;

/// `C = A·B` or `C += A·B`.
///
/// # Panics
/// If a slice is not as long as `dims` says.
#[track_caller]
pub(crate) fn gemm(c: &mut [f32], a: &[f32], b: &[f32], dims: Gemm, write: Write) {
    gemm_with(select(), c, a, b, dims, write);
}

/// `W -= lr·A·B` in one pass, see [`Backend::descend`](crate::backend::Backend::descend).
///
/// # Panics
/// If a slice is not as long as `dims` says.
#[track_caller]
pub(super) fn descend(w: &mut [f32], a: Left<'_>, b: &[f32], dims: Gemm, lr: f32) -> bool {
    descend_with(select(), w, a, b, dims, lr)
}

/// [`descend`] on a given table.
#[track_caller]
fn descend_with(table: &Table, w: &mut [f32], a: Left<'_>, b: &[f32], dims: Gemm, lr: f32) -> bool {
    demand_lengths(w, a.len(), b, dims);
    let Gemm { m, n, k, .. } = dims;
    // Any other factor makes something of a gradient of zero.
    let ordinary = lr > 0.0 && lr.is_finite();
    let few_terms = k > 0 && table.sparse().is_none_or(|kernels| k <= kernels.near(n));
    if !(ordinary && few_terms) || flops(m, n, k) >= PACKED_FLOPS {
        return false;
    }
    let finish = Finish::Descend(lr);
    if sparse::product(table, None, w, a, b, dims, finish) {
        return true;
    }
    let Left::Numbers(a) = a else {
        return false;
    };
    let (a, b) = strided(a, b, dims);
    small(table, TileMut::new(w, m, n, n), a, b, k, finish);
    true
}

/// The factors as they are stored.
fn strided<'a>(a: &'a [f32], b: &'a [f32], dims: Gemm) -> (Strided<'a>, Strided<'a>) {
    let Gemm { m, n, k, .. } = dims;
    let (a_row, a_col) = strides(dims.a_transposed, k, m);
    let (b_row, b_col) = strides(dims.b_transposed, n, k);
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
    (a, b)
}

#[track_caller]
fn demand_lengths(c: &[f32], a: usize, b: &[f32], dims: Gemm) {
    let Gemm { m, n, k, .. } = dims;
    assert!(
        c.len() == m * n && a == m * k && b.len() == k * n,
        "gemm {dims:?} on {}, {} and {} numbers",
        c.len(),
        a,
        b.len()
    );
}

/// [`gemm`] on a given table.
#[track_caller]
pub(super) fn gemm_with(
    table: &Table,
    c: &mut [f32],
    a: &[f32],
    b: &[f32],
    dims: Gemm,
    write: Write,
) {
    demand_lengths(c, a.len(), b, dims);
    let Gemm { m, n, k, .. } = dims;
    if k == 0 {
        if write == Write::Set {
            c.fill(0.0);
        }
        return;
    }
    if sparse::product(table, None, c, Left::Numbers(a), b, dims, write) {
        return;
    }
    let (a, b) = strided(a, b, dims);
    let c = TileMut::new(c, m, n, n);
    let large = flops(m, n, k) >= PACKED_FLOPS;
    let paged = a.row.is_multiple_of(PAGE) || b.row.is_multiple_of(PAGE);
    match table.blocking() {
        Some(blocking) if large && (paged || k * n > blocking.cached) => {
            packed(table, blocking, c, a, b, k, write)
        }
        None if large => c.for_each_cell(FALLBACK_CELL, FALLBACK_CELL, true, &|i, j, c| {
            fallback::sgemm(c, a.from(i, 0), b.from(0, j), k, write);
        }),
        _ => small(table, c, a, b, k, write.into()),
    }
}

/// Multiplications and additions of a product.
fn flops(m: usize, n: usize, k: usize) -> usize {
    2usize.saturating_mul(m).saturating_mul(n).saturating_mul(k)
}

/// The distances between rows and columns of a matrix with rows of `width` numbers, or of one
/// stored transposed with rows of `height`.
fn strides(transposed: bool, width: usize, height: usize) -> (usize, usize) {
    if transposed { (1, height) } else { (width, 1) }
}

impl<'a> Strided<'a> {
    /// The matrix without its first rows and columns.
    fn from(self, row: usize, col: usize) -> Strided<'a> {
        Strided {
            data: &self.data[row * self.row + col * self.col..],
            ..self
        }
    }
}

/// A product without packing.
fn small(table: &Table, c: TileMut<'_>, a: Strided, b: Strided, k: usize, finish: Finish) {
    let (m, n) = (c.rows(), c.cols());
    let long = k >= LONG.0 && n >= LONG.1 && table.lanes() <= NARROW;
    if long && a.col != 1 && a.row == 1 {
        let row = apart(k);
        return scratch::numbers(m * row, |turned| {
            let shared = is_shared(m, n, k);
            for_each_pieces(
                [&mut *turned],
                TURNED_TOGETHER * row,
                shared,
                |at, [rows]| {
                    let (from, count) = (&a.data[at / row..], rows.len() / row);
                    table.transpose((rows, row), (from, a.col), (k, count));
                },
            );
            let a = Strided {
                data: turned,
                row,
                col: 1,
            };
            small(table, c, a, b, k, finish);
        });
    }
    let row = apart(n);
    if b.col == 1 {
        if !long || m < ALIGNED_ROWS || is_apart(b.row) {
            return straight(table, c, a, (b.data, b.row), k, finish);
        }
        return scratch::numbers(k * row, |aligned| {
            let shared = is_shared(m, n, k);
            for_each_pieces(
                [&mut *aligned],
                ALIGNED_TOGETHER * row,
                shared,
                |at, [rows]| {
                    let (from, count) = (&b.data[at / row * b.row..], rows.len() / row);
                    table.copy((rows, row), (from, b.row), (count, n));
                },
            );
            straight(table, c, a, (aligned, row), k, finish);
        });
    }
    scratch::numbers(k * row, |straightened| {
        table.transpose((straightened, row), (b.data, b.col), (n, k));
        straight(table, c, a, (straightened, row), k, finish);
    });
}

/// The distance of rows of so many numbers that start on a cache line: an odd number of lines, so that they share all
/// places of a cache.
fn apart(numbers: usize) -> usize {
    let lines = numbers.div_ceil(LINE);
    (lines + usize::from(lines.is_multiple_of(2))) * LINE
}

/// Whether rows at this distance lie so.
fn is_apart(row: usize) -> bool {
    row.is_multiple_of(LINE) && !(row / LINE).is_multiple_of(2)
}

/// A product with B read where it lies.
fn straight(
    table: &Table,
    c: TileMut<'_>,
    a: Strided,
    (b, b_row): (&[f32], usize),
    k: usize,
    finish: Finish,
) {
    let (m, n) = (c.rows(), c.cols());
    let parallel = is_shared(m, n, k);
    // A thread by itself leaves all rows to the register tiles: twenty are ten and ten, not three sixes and two.
    let rows = match parallel {
        true => m.div_ceil(CELLS).next_multiple_of(TILE_ROWS).min(CELL_ROWS),
        false => m,
    };
    c.for_each_cell(rows, n, parallel, &|i, _, c| {
        let terms = Terms {
            a: a.from(i, 0).data,
            b,
            taps: &[Tap { a: 0, b: 0 }],
            k,
            a_row: a.row,
            a_step: a.col,
            b_row,
        };
        table.product(c, &terms, finish);
    });
}

/// A packed product. Around the register tile run four loops: over `nc` columns, `kc` terms, `mc`
/// rows, and over the tiles of a block of A in cache against a panel of B.
fn packed(
    table: &Table,
    blocking: Blocking,
    mut c: TileMut<'_>,
    a: Strided,
    b: Strided,
    k: usize,
    write: Write,
) {
    let (m, n) = (c.rows(), c.cols());
    let parallel = is_shared(m, n, k);
    let nr = blocking.nv * table.lanes();
    let kc = k.div_ceil(k.div_ceil(blocking.kc));
    for j in (0..n).step_by(blocking.nc) {
        let (mut cols, rest) = c.split_cols(blocking.nc.min(n - j));
        c = rest;
        let width = cols.cols();
        let panels = width.div_ceil(nr);
        for p in (0..k).step_by(kc) {
            let kc = kc.min(k - p);
            let write = if p == 0 { write } else { Write::Add };
            scratch::numbers(panels * nr * kc, |packed_b| {
                let out = TileMut::new(packed_b, panels, nr * kc, nr * kc);
                out.for_each_cell(PACKED_TOGETHER, nr * kc, parallel, &|first, _, mut out| {
                    // A few terms of several panels at a time, to go along the rows of B; those of a B that is
                    // stored transposed go along the terms.
                    let together = if b.col == 1 { PACKED_TERMS } else { kc };
                    for q in (0..kc).step_by(together) {
                        for i in 0..out.rows() {
                            let at = (first + i) * nr;
                            let b = b.from(p + q, j + at);
                            let size = (nr.min(width - at), together.min(kc - q));
                            let out = &mut out.row(i)[q * nr..];
                            pack(table, out, nr, (b.data, b.col, b.row), size);
                        }
                    }
                });
                let packed_b = &*packed_b;
                let cells = cols.reborrow();
                let alone = rayon::current_num_threads() == 1;
                let together = if alone { width } else { CELL_COLS };
                cells.for_each_cell(blocking.mc, together, parallel, &|i, j, cell| {
                    let b = &packed_b[j * kc..];
                    block(table, blocking, cell, a.from(i, p), b, kc, write);
                });
            });
        }
    }
}

/// One block of at most `mc` rows: copies A into lines [`apart`] and runs the register tiles over the panels of B. An A
/// that is stored transposed is turned over only for narrow vectors: wide tiles take most of a cache line of each term.
/// The tiles of a panel ask for the next one.
fn block(
    table: &Table,
    blocking: Blocking,
    mut c: TileMut<'_>,
    a: Strided,
    b: &[f32],
    kc: usize,
    write: Write,
) {
    let (m, n) = (c.rows(), c.cols());
    let nr = blocking.nv * table.lanes();
    let as_stored = a.col == 1 || table.lanes() > NARROW;
    let by_columns = as_stored && a.col != 1;
    let (lines, len) = if by_columns { (kc, m) } else { (m, kc) };
    let line = apart(len);
    scratch::numbers(lines * line, |packed_a| {
        let packed = (&mut *packed_a, line);
        match as_stored {
            true => table.copy(packed, (a.data, a.row.max(a.col)), (lines, len)),
            false => table.transpose(packed, (a.data, a.col), (kc, m)),
        }
        let packed_a = &*packed_a;
        let widths = table.widths(m, nr);
        let mut panels = b.chunks_exact(nr * kc).peekable();
        for j in (0..n).step_by(nr) {
            let b = panels.next().unwrap_or_default();
            let next = panels.peek().copied().unwrap_or_default();
            let (cols, rest) = c.split_cols(nr.min(n - j));
            c = rest;
            let terms = Terms {
                a: packed_a,
                b,
                taps: &[Tap { a: 0, b: 0 }],
                k: kc,
                a_row: if by_columns { 1 } else { line },
                a_step: if by_columns { line } else { 1 },
                b_row: nr,
            };
            table.product_cut(cols, &terms, write, &widths, next);
        }
    });
}

/// Copies a sliver of `width` lines with `kc` terms so that the lines of one term are neighbours:
/// `out[p·pitch + i] = from[i·line + p·term]`. One of `line` and `term` is 1.
fn pack(
    table: &Table,
    out: &mut [f32],
    pitch: usize,
    (from, line, term): (&[f32], usize, usize),
    (width, kc): (usize, usize),
) {
    if term == 1 {
        return table.transpose((out, pitch), (from, line), (width, kc));
    }
    table.copy((out, pitch), (from, term), (kc, width));
}

#[cfg(test)]
mod tests;
