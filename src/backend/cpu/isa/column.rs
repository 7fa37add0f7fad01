//! The numbers of A that a term of a register tile takes, one of each row.
#![allow(unsafe_code)]

/// Rows that one pointer reaches: itself and the distances of one to four rows from it.
const REACH: usize = 5;

/// Most pointers of a tile.
const HEADS: usize = 4;

/// A pointer to every fifth row. Left to itself the compiler moves one along each row: fourteen and more do not fit
/// its registers, and to fetch, move and put back each of them in every term takes an AVX-512 tile of Intel's
/// longer than its multiplications. Tiles of fewer rows are left to it: theirs fit, and in sums of few terms the
/// pointers take long to make.
pub(super) struct Column {
    heads: [*const f32; HEADS],
    row: usize,
    many: bool,
}

impl Column {
    /// The first term of rows so far apart, with as many registers as the compiler likes or, where tiles have `many`
    /// rows, few.
    #[inline(always)]
    pub fn new(first: *const f32, row: usize, many: bool) -> Self {
        let head = |i: usize| first.wrapping_add(i * REACH * row);
        Column {
            heads: [head(0), head(1), head(2), head(3)],
            row,
            many,
        }
    }

    /// The number of row `i`, of at most twenty. With no term left it may be outside of A.
    #[inline(always)]
    pub fn at(&self, i: usize) -> *const f32 {
        // Not an array: the compiler would not take the loop over the rows apart.
        let [first, second, third, fourth] = self.heads;
        let (head, row) = match i {
            _ if !self.many => (first, i),
            0..REACH => (first, i),
            REACH..10 => (second, i - REACH),
            10..15 => (third, i - 2 * REACH),
            _ => (fourth, i - 3 * REACH),
        };
        head.wrapping_add(row * self.row)
    }

    /// Moves on to the next term.
    #[inline(always)]
    pub fn advance(&mut self, step: usize) {
        for head in &mut self.heads {
            *head = head.wrapping_add(step);
            if self.many {
                *head = unknown(*head);
            }
        }
    }
}

/// The same pointer, of which the compiler does not see that it goes up by equal steps.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
#[expect(clippy::pointers_in_nomem_asm_block, reason = "no memory is touched")]
fn unknown(mut pointer: *const f32) -> *const f32 {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) pointer,
            options(pure, nomem, nostack, preserves_flags));
    }
    pointer
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use std::convert::identity as unknown;
