//! Working memory of the kernels: some buffers per thread, which only grow.

use std::cell::RefCell;

use super::isa::Tap;
use bytemuck::{Pod, Zeroable};

/// Sixteen numbers on a cache line of their own.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    static NUMBERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
    static TAPS: RefCell<Vec<Vec<Tap>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` numbers that start on a cache line. Their values are left over from earlier
/// calls.
///
/// A buffer in use is off the list: a thread that waits for others may be handed work that asks for
/// a buffer too, and gets a different one.
pub(super) fn numbers<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let wanted = len.div_ceil(16);
    let mut lines = NUMBERS.with_borrow_mut(|kept| {
        // The smallest that is large enough, or else the largest: what a little is wanted of must not take the memory
        // of what much is wanted of inside it.
        let fit = |i: &usize| match kept[*i].len() {
            have if have < wanted => (true, usize::MAX - have),
            have => (false, have),
        };
        let best = (0..kept.len()).rev().min_by_key(fit);
        best.map_or_else(Vec::new, |i| kept.swap_remove(i))
    });
    if lines.len() < wanted {
        lines.resize(wanted, Line::zeroed());
    }
    let out = f(&mut bytemuck::cast_slice_mut(&mut lines)[..len]);
    NUMBERS.with_borrow_mut(|kept| kept.push(lines));
    out
}

/// Calls `f` with an empty list of taps.
pub(super) fn taps<R>(f: impl FnOnce(&mut Vec<Tap>) -> R) -> R {
    let mut list = TAPS.with_borrow_mut(Vec::pop).unwrap_or_default();
    list.clear();
    let out = f(&mut list);
    TAPS.with_borrow_mut(|stack| stack.push(list));
    out
}
