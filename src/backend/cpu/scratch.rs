//! Working memory of the kernels: one stack of buffers per thread, which only grows.

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
/// A buffer in use is off the stack: a thread that waits for others may be handed work that asks for
/// a buffer too, and gets a different one.
pub(super) fn numbers<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = NUMBERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let wanted = len.div_ceil(16);
    if lines.len() < wanted {
        lines.resize(wanted, Line::zeroed());
    }
    let out = f(&mut bytemuck::cast_slice_mut(&mut lines)[..len]);
    NUMBERS.with_borrow_mut(|stack| stack.push(lines));
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
