//! Primitives that compute each number from the numbers at its own place.

use super::dispatch::each_isa;
use super::parallel::{CHUNK, chunk_rows};
use super::tiles::for_each_piece;
use crate::backend::Write;

/// `dst = f(src)` or `dst += f(src)`
pub(super) fn map(
    dst: &mut [f32],
    src: &[f32],
    write: Write,
    f: impl Fn(f32) -> f32 + Copy + Send + Sync,
) {
    let work = dst.len();
    for_each_piece(dst, CHUNK, work, |first, dst| {
        map_body(dst, &src[first..][..dst.len()], write, f);
    });
}

/// `dst = f(a, b)` or `dst += f(a, b)`
pub(super) fn map2(
    dst: &mut [f32],
    a: &[f32],
    b: &[f32],
    write: Write,
    f: impl Fn(f32, f32) -> f32 + Copy + Send + Sync,
) {
    let work = dst.len();
    for_each_piece(dst, CHUNK, work, |first, dst| {
        map2_body(
            dst,
            &a[first..][..dst.len()],
            &b[first..][..dst.len()],
            write,
            f,
        );
    });
}

/// Adds `bias` to every row of `y`.
pub(super) fn add_bias(y: &mut [f32], bias: &[f32], cols: usize) {
    let work = y.len();
    for_each_piece(y, chunk_rows(cols) * cols, work, |_, y| {
        add_bias_body(y, bias)
    });
}

/// Writes one number. In a loop the compiler decides once, before it, which way.
#[inline(always)]
pub(super) fn put(at: &mut f32, value: f32, write: Write) {
    *at = match write {
        Write::Set => value,
        Write::Add => *at + value,
    };
}

each_isa! {
fn map_body[F: Fn(f32) -> f32](dst: &mut [f32], src: &[f32], write: Write, f: F) {
    for (d, &s) in dst.iter_mut().zip(src) {
        put(d, f(s), write);
    }
}
}

each_isa! {
fn map2_body[F: Fn(f32, f32) -> f32](dst: &mut [f32], a: &[f32], b: &[f32], write: Write, f: F) {
    for ((d, &a), &b) in dst.iter_mut().zip(a).zip(b) {
        put(d, f(a, b), write);
    }
}
}

each_isa! {
fn add_bias_body(y: &mut [f32], bias: &[f32]) {
    for row in y.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    }
}
}

/// `max(x, 0)`, written so that NaN, which is not below 0, passes through.
#[inline(always)]
pub(super) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// `dy` where the output of [`relu`] is above 0.
#[inline(always)]
pub(super) fn relu_backward(y: f32, dy: f32) -> f32 {
    if y > 0.0 { dy } else { 0.0 }
}
