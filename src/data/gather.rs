//! Rows of a mini-batch, on one thread or on several.

use rayon::prelude::*;

use super::Group;
use crate::rng::CounterKey;

/// Rows that one thread takes at a time; fixed, and no row depends on another, so the result is the
/// same for any number of threads.
const PIECE: usize = 8;

/// The key of row r is `key` with its sample moved on by r; in evaluation there is none, so that random
/// steps rest.
pub(crate) fn row_key(group: Group, key: CounterKey, row: usize) -> Option<CounterKey> {
    (group == Group::Train).then(|| CounterKey {
        sample: key.sample.wrapping_add(row as u32),
        ..key
    })
}

/// Fills `out`, `rows` rows of equal length, by `write(row, key, out)`; on the threads of the pool if
/// the rows are `costly`.
///
/// The key of row r is `key` with its sample moved on by r; in evaluation there is none, so that
/// random steps rest.
///
/// # Panics
/// If the rows do not divide `out`.
#[track_caller]
pub fn gather_rows(
    rows: usize,
    costly: bool,
    group: Group,
    key: CounterKey,
    out: &mut [f32],
    write: impl Fn(usize, Option<CounterKey>, &mut [f32]) + Sync,
) {
    if rows == 0 && out.is_empty() {
        return;
    }
    assert!(
        rows > 0 && !out.is_empty() && out.len().is_multiple_of(rows),
        "gather: {rows} rows for {} values",
        out.len()
    );
    let size = out.len() / rows;
    let row = |(row, out): (usize, &mut [f32])| write(row, row_key(group, key, row), out);
    if costly && rows > PIECE {
        let pieces = out.par_chunks_mut(PIECE * size).enumerate();
        pieces.for_each(|(piece, out)| {
            (piece * PIECE..)
                .zip(out.chunks_exact_mut(size))
                .for_each(row);
        });
    } else {
        out.chunks_exact_mut(size).enumerate().for_each(row);
    }
}
