//! The kernels of one instruction set, behind checks: lengths are asserted here, so that everything above is
//! safe.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::marker::PhantomData;

use super::dispatch::Isa;
use super::isa::sparse::SparseKernels;
use super::isa::winograd::Run;
use super::isa::{Blocking, Call, Matrices, Move, Shared, Tile, Whole};
use super::terms::{Finish, Terms};
use super::tiles::TileMut;
use super::widths::{MAX_VECTORS, Widths};
use crate::backend::Write;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Plans that a thread keeps: a step asks for the same few again and again.
const PLANS_KEPT: usize = 16;

/// A plan with the instruction set, rows and vectors it is for.
type Plan = ((Isa, usize, usize), Widths);

thread_local! {
    static PLANS: RefCell<[Option<Plan>; PLANS_KEPT]> = const { RefCell::new([None; PLANS_KEPT]) };
}

/// The kernels of one instruction set. Whoever holds a `&'static Table` from [`tables`](super::dispatch::tables)(super::dispatch::tables) runs on a
/// CPU that has the instructions, so its methods are safe.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    isa: Isa,
    lanes: usize,
    /// `tiles[v - 1][r - 1]` computes `r` rows of `v` vectors.
    tiles: [&'static [Tile]; MAX_VECTORS],
    /// Tiles for the last columns, where those do not fill their vectors; the widest first of those that fit a width.
    shared: &'static [Shared],
    copy: Move,
    transpose: Move,
    winograd: Run,
    burn: unsafe fn(usize) -> f32,
    burn_vectors: usize,
    blocking: Option<Blocking>,
    /// Computes products instead of the tiles.
    whole: Option<Whole>,
    sparse: Option<SparseKernels>,
}

impl Table {
    /// A table, for the static of its instruction set.
    ///
    /// # Safety
    /// The functions keep the contracts of their types on a CPU that has `isa`; entry `i` of
    /// `tiles[v]` computes `i + 1` rows of `v + 1` vectors of `lanes` numbers, and `tiles[0]` is not
    /// empty. `moves` are the copy and the transposition, and `burn` comes with the vectors it works
    /// on in a round. Nothing but [`tables`](super::dispatch::tables) hands the table out, after it has found `isa`.
    pub(super) const unsafe fn new(
        isa: Isa,
        lanes: usize,
        tiles: [&'static [Tile]; MAX_VECTORS],
        moves: [Move; 2],
        winograd: Run,
        burn: (unsafe fn(usize) -> f32, usize),
        blocking: Option<Blocking>,
    ) -> Self {
        Table {
            isa,
            lanes,
            tiles,
            shared: &[],
            copy: moves[0],
            transpose: moves[1],
            winograd,
            burn: burn.0,
            burn_vectors: burn.1,
            blocking,
            whole: None,
            sparse: None,
        }
    }

    /// The same table with kernels for products whose left factor is mostly one value.
    pub(super) const fn with_sparse(self, sparse: SparseKernels) -> Self {
        Table {
            sparse: Some(sparse),
            ..self
        }
    }

    /// The same table with tiles for widths that do not fill whole vectors.
    ///
    /// # Safety
    /// As for [`new`](Self::new): entry `i` of each list computes `i + 1` rows of `cols` numbers, and wants no more of
    /// the terms than the list is for.
    #[cfg(target_arch = "x86_64")]
    pub(super) const unsafe fn with_shared(self, shared: &'static [Shared]) -> Self {
        Table { shared, ..self }
    }

    /// The same table with another way to compute products, and none for sparse ones.
    ///
    /// # Safety
    /// As for [`new`](Self::new): `whole` keeps its contract wherever this table is handed out.
    #[cfg(any(target_arch = "x86_64", test))]
    pub(super) const unsafe fn with_whole(self, whole: Whole) -> Self {
        Table {
            whole: Some(whole),
            sparse: None,
            ..self
        }
    }

    /// The same table with another ceiling, as for [`new`](Self::new).
    ///
    /// # Safety
    /// `burn` runs wherever this table is handed out.
    #[cfg(target_arch = "x86_64")]
    pub(super) const unsafe fn with_burn(
        self,
        burn: unsafe fn(usize) -> f32,
        vectors: usize,
    ) -> Self {
        Table {
            burn,
            burn_vectors: vectors,
            ..self
        }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Numbers in a vector.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// How to block a packed product; `None` when this table has no kernels worth packing for.
    pub fn blocking(&self) -> Option<Blocking> {
        self.blocking
    }

    /// The kernels for products whose left factor is mostly one value, if there are any.
    pub const fn sparse(&self) -> Option<SparseKernels> {
        self.sparse
    }

    /// Computes the sum that `terms` describes into `c`, tile by tile. Each number of `c` is one
    /// chain of fused multiply-adds in the order of taps and terms, however the tiles fall. Where terms share a vector,
    /// each of the last four or eight columns has four or two such chains, which are added at the end; whether they do hangs
    /// on the columns past whole vectors and on the terms, never on the rows.
    ///
    /// # Panics
    /// If an operand is too short.
    #[track_caller]
    pub fn product(&self, c: TileMut<'_>, terms: &Terms<'_>, finish: impl Into<Finish>) {
        let widths = self.widths(c.rows(), c.cols());
        self.run(Each::one(c), terms, finish.into(), &widths, &[]);
    }

    /// How [`product`](Self::product) cuts a destination of `m` rows and `n` columns, for
    /// [`product_cut`](Self::product_cut).
    pub fn widths(&self, m: usize, n: usize) -> Widths {
        let sizes = (self.isa, m, n.div_ceil(self.lanes));
        PLANS.with_borrow_mut(|plans| {
            let kept = &mut plans[(sizes.1 + 7 * sizes.2) % PLANS_KEPT];
            if let Some((of, widths)) = kept
                && *of == sizes
            {
                return *widths;
            }
            let most = self.tiles.map(<[Tile]>::len);
            let widths = Widths::new(most, sizes.1, sizes.2);
            *kept = Some((sizes, widths));
            widths
        })
    }

    /// [`product`](Self::product) of many destinations of one size, whose cut is known. It asks for the memory of
    /// `ahead` meanwhile, which may be empty: line by line, since a core has few loads under way at a time.
    ///
    /// # Panics
    /// If an operand is too short.
    #[track_caller]
    pub fn product_cut(
        &self,
        c: TileMut<'_>,
        terms: &Terms<'_>,
        write: Write,
        widths: &Widths,
        ahead: &[f32],
    ) {
        self.run(Each::one(c), terms, write.into(), widths, ahead);
    }

    /// [`product_cut`](Self::product_cut) of many products in one go: at few terms a call for each takes long beside its
    /// sums. Each row of `c` is a destination, rows of `n` numbers one after the other. `terms` are those of the first;
    /// the operands of the next begin so many numbers further on, A and B.
    ///
    /// # Panics
    /// If an operand is too short, or a row of `c` is not rows of `n` numbers.
    #[track_caller]
    #[expect(
        clippy::too_many_arguments,
        reason = "those of a product, and how to go on"
    )]
    pub fn products(
        &self,
        mut c: TileMut<'_>,
        n: usize,
        terms: &Terms<'_>,
        next: [usize; 2],
        write: Write,
        widths: &Widths,
        ahead: &[f32],
    ) {
        assert!(
            c.cols().is_multiple_of(n.max(1)),
            "a destination of {} numbers in rows of {n}",
            c.cols()
        );
        let each = Each {
            count: c.rows(),
            m: c.cols() / n.max(1),
            n,
            c_row: n,
            next: [next[0], next[1], c.stride()],
            c: c.as_mut_ptr(),
            tile: PhantomData,
        };
        self.run(each, terms, write.into(), widths, ahead);
    }

    /// [`product`](Self::product) of many products whose destinations are rows of one tile: `m` of them each, the first
    /// `every` rows below that of the one before. `terms` are those of the first; the operands of the next begin so many
    /// numbers further on, A and B. For `ahead` see [`product_cut`](Self::product_cut).
    ///
    /// # Panics
    /// If an operand is too short, or the tile has not so many rows.
    #[track_caller]
    pub fn products_every(
        &self,
        mut c: TileMut<'_>,
        [count, m, every]: [usize; 3],
        terms: &Terms<'_>,
        next: [usize; 2],
        write: Write,
        ahead: &[f32],
    ) {
        if count == 0 {
            return;
        }
        assert!(
            (count - 1) * every + m <= c.rows() && (count == 1 || m <= every),
            "{count} destinations of {m} rows, every {every}, in {} rows",
            c.rows()
        );
        let widths = self.widths(m, c.cols());
        let each = Each {
            count,
            m,
            n: c.cols(),
            c_row: c.stride(),
            next: [next[0], next[1], every * c.stride()],
            c: c.as_mut_ptr(),
            tile: PhantomData,
        };
        self.run(each, terms, write.into(), &widths, ahead);
    }

    #[track_caller]
    fn run(
        &self,
        each: Each<'_>,
        terms: &Terms<'_>,
        finish: Finish,
        widths: &Widths,
        mut ahead: &[f32],
    ) {
        let Each { m, n, c, c_row, .. } = each;
        if m == 0 || n == 0 || each.count == 0 {
            return;
        }
        terms.check(
            m,
            n,
            [each.next[0], each.next[1]].map(|next| (each.count - 1) * next),
        );
        let (add, scale) = match finish {
            Finish::Set => (false, None),
            Finish::Add => (true, None),
            Finish::Descend(lr) => (true, Some(-lr)),
        };
        if let Some(whole) = self.whole {
            assert!(
                scale.is_none() && terms.a_step == 1 && terms.k.is_multiple_of(16),
                "{} terms {} apart for tile registers",
                terms.k,
                terms.a_step
            );
            let call = Call {
                tiles: 1,
                c,
                c_row,
                a: terms.a.as_ptr(),
                b: terms.b.as_ptr(),
                taps: terms.taps,
                k: terms.k,
                a_row: terms.a_row,
                a_step: terms.a_step,
                b_row: terms.b_row,
                ahead: ahead.as_ptr(),
                ahead_step: 0,
                last: n,
                add,
                scale: None,
            };
            // SAFETY: this CPU has the instructions of its table. All rows and columns lie inside `c`,
            // which is exclusively ours, and inside what `check` found readable in `a` and `b`.
            return (0..each.count).for_each(|i| unsafe { whole(&each.call(&call, i), m, n) });
        }
        // The columns from `j` on that one row of tiles computes.
        let mut columns = |tiles: &[Tile], j: usize, last: usize| {
            // Twenty rows are two tiles of ten, not one of fourteen and one of six.
            let count = m.div_ceil(tiles.len());
            let (low, taller) = (m / count, m % count);
            // The first row of tiles asks for everything, as far as its terms reach.
            let (asked, of_tile) = (std::mem::take(&mut ahead), terms.taps.len() * terms.k);
            let of_product = count * of_tile;
            let of_term = size_of_val(asked).div_ceil((each.count * of_product).max(1));
            let ahead_step = of_term.min(LINE_BYTES);
            let call = Call {
                tiles: 0,
                c: c.wrapping_add(j),
                c_row,
                a: terms.a.as_ptr(),
                b: terms.b.as_ptr().wrapping_add(j),
                taps: terms.taps,
                k: terms.k,
                a_row: terms.a_row,
                a_step: terms.a_step,
                b_row: terms.b_row,
                ahead: asked.as_ptr(),
                ahead_step,
                last,
                add,
                scale,
            };
            for product in 0..each.count {
                let mut call = each.call(&call, product);
                call.ahead = (call.ahead).wrapping_byte_add(product * of_product * ahead_step);
                for (count, rows) in [(taller, low + 1), (count - taller, low)] {
                    if count == 0 {
                        continue;
                    }
                    call.tiles = count;
                    // SAFETY: this CPU has the instructions of its table. These rows, below those before, and the
                    // columns of the tiles from `j` on lie inside each destination, which is exclusively ours, and
                    // inside what `check` found readable in `a` and `b`. Tiles that want more of the terms are only
                    // given those they are for, see `shared`.
                    unsafe { tiles[rows - 1](&call) };
                    call.c = call.c.wrapping_add(count * rows * c_row);
                    call.a = call.a.wrapping_add(count * rows * terms.a_row);
                    call.ahead = (call.ahead).wrapping_byte_add(count * of_tile * ahead_step);
                }
            }
        };
        let shared = self.shared(m, n, terms);
        let own = n - shared.map_or(0, |(cols, _)| cols);
        let mut vectors = own.div_ceil(self.lanes);
        let mut j = 0;
        while vectors > 0 {
            let nv = widths.next(vectors);
            let cols = (nv * self.lanes).min(own - j);
            columns(self.tiles[nv - 1], j, cols - (nv - 1) * self.lanes);
            j += cols;
            vectors -= nv;
        }
        if let Some((cols, tiles)) = shared {
            columns(tiles, own, cols);
        }
    }

    /// The tiles for the last columns of `m` rows of `n` and how many those are, if rows or terms should share a vector
    /// there.
    fn shared(&self, m: usize, n: usize, terms: &Terms<'_>) -> Option<(usize, &'static [Tile])> {
        let of = |s: &Shared| {
            let past = |&cols: &usize| n >= cols && (n - cols).is_multiple_of(self.lanes);
            (s.fewest..=s.cols).find(past)
        };
        let (cols, shared) = (self.shared.iter()).find_map(|s| Some((of(s)?, s)))?;
        let neighbours = terms.a_step == 1 && terms.k.is_multiple_of(shared.share);
        let tiles = match () {
            () if neighbours && !shared.by_terms.is_empty() => shared.by_terms,
            () if m < shared.share => &[],
            () if terms.a_row == 1 => shared.near,
            () => shared.tiles,
        };
        (!tiles.is_empty()).then_some((cols, tiles))
    }

    /// `dst[i][j] = src[i][j]` for `rows x cols` numbers; rows of the two are `dst_row` and `src_row`
    /// apart.
    ///
    /// # Panics
    /// If one of them is too short.
    #[track_caller]
    pub fn copy(
        &self,
        (dst, dst_row): (&mut [f32], usize),
        (src, src_row): (&[f32], usize),
        (rows, cols): (usize, usize),
    ) {
        if rows == 0 || cols == 0 {
            return;
        }
        assert!(
            holds(dst, dst_row, rows, cols) && holds(src, src_row, rows, cols),
            "a copy of {rows} x {cols} from {} to {} numbers",
            src.len(),
            dst.len()
        );
        let matrices = Matrices {
            dst: dst.as_mut_ptr(),
            dst_row,
            src: src.as_ptr(),
            src_row,
        };
        // SAFETY: this CPU has the instructions of its table, and both matrices lie inside their
        // slices (asserted), of which one is exclusive.
        unsafe { (self.copy)(&matrices, rows, cols) }
    }

    /// `dst[j][i] = src[i][j]` for `rows x cols` numbers of `src`; rows of the two are `dst_row` and
    /// `src_row` apart.
    ///
    /// # Panics
    /// If one of them is too short.
    #[track_caller]
    pub fn transpose(
        &self,
        (dst, dst_row): (&mut [f32], usize),
        (src, src_row): (&[f32], usize),
        (rows, cols): (usize, usize),
    ) {
        if rows == 0 || cols == 0 {
            return;
        }
        assert!(
            holds(dst, dst_row, cols, rows) && holds(src, src_row, rows, cols),
            "a transposition of {rows} x {cols} from {} to {} numbers",
            src.len(),
            dst.len()
        );
        let matrices = Matrices {
            dst: dst.as_mut_ptr(),
            dst_row,
            src: src.as_ptr(),
            src_row,
        };
        // SAFETY: this CPU has the instructions of its table, and both matrices lie inside their
        // slices (asserted), of which one is exclusive.
        unsafe { (self.transpose)(&matrices, rows, cols) }
    }

    /// Keeps the multipliers busy without touching memory, `rounds` times; returns the floating
    /// point operations that took.
    pub fn burn(&self, rounds: usize) -> f64 {
        // SAFETY: this CPU has the instructions of its table.
        std::hint::black_box(unsafe { (self.burn)(std::hint::black_box(rounds)) });
        2.0 * (rounds * self.burn_vectors * self.lanes) as f64
    }
}

/// The destinations of some products of one size.
struct Each<'a> {
    count: usize,
    /// Rows and columns of each.
    m: usize,
    n: usize,
    /// The first number of the first.
    c: *mut f32,
    c_row: usize,
    /// From each to the next: of A, of B, and of the destination.
    next: [usize; 3],
    tile: PhantomData<TileMut<'a>>,
}

impl<'a> Each<'a> {
    /// A single one.
    fn one(mut c: TileMut<'a>) -> Self {
        Each {
            count: 1,
            m: c.rows(),
            n: c.cols(),
            c: c.as_mut_ptr(),
            c_row: c.stride(),
            next: [0; 3],
            tile: PhantomData,
        }
    }

    /// What is done for the first, done for product `i`.
    fn call<'c>(&self, first: &Call<'c>, i: usize) -> Call<'c> {
        let [a, b, c] = self.next;
        Call {
            a: first.a.wrapping_add(i * a),
            b: first.b.wrapping_add(i * b),
            c: first.c.wrapping_add(i * c),
            ..*first
        }
    }
}

/// Whether `data` holds `rows >= 1` rows of `cols` numbers that are `row` apart.
fn holds(data: &[f32], row: usize, rows: usize, cols: usize) -> bool {
    let end = (rows - 1)
        .checked_mul(row)
        .and_then(|n| n.checked_add(cols));
    end.is_some_and(|end| end <= data.len())
}

mod transforms;

#[cfg(test)]
mod tests;
