//! When a primitive is cut into tasks, and into how large ones.
//!
//! Cuts depend on the geometry only, never on the number of threads, and no task adds up what
//! another task computed: that is why the same seed gives the same bits on any machine.

use super::awake;
use rayon::prelude::*;

/// Numbers that a primitive must touch before it is spread over threads that may be asleep. Handing work to
/// another core then costs about 20 microseconds; this many numbers take one core 100 to 300 (they stream from
/// memory at 4 bytes each way), so a smaller step is faster, and steadier, on the thread it is on.
pub(super) const PARALLEL_MIN: usize = 1 << 18;

/// A thread that is [awake](awake::Awake) takes its part within one or two microseconds, so work is worth
/// sharing that is smaller by this factor.
const AWAKE: usize = 16;

/// Numbers of a tensor that batch normalisation spreads over threads, and fewest in a task: it goes over them
/// five to eight times, forward and backward, between convolutions that keep the threads awake.
pub(super) const NORM_MIN: usize = 1 << 15;

/// Numbers in one task of an elementwise primitive: 32 KiB of each operand.
pub(super) const CHUNK: usize = 1 << 13;

/// Whether to share work of which so much must be worth waking threads for.
pub(super) fn pays(work: usize, asleep: usize) -> bool {
    work >= asleep || (work >= asleep / AWAKE && awake::now())
}

/// Numbers from which a primitive is shared.
pub(super) fn shared_from() -> usize {
    if awake::now() {
        PARALLEL_MIN / AWAKE
    } else {
        PARALLEL_MIN
    }
}

/// The least number of tasks to keep together on a thread, for rayon's `with_min_len`, when a
/// primitive touches `work` numbers: one, or all of them.
pub(super) fn min_tasks(work: usize) -> usize {
    if pays(work, PARALLEL_MIN) {
        1
    } else {
        usize::MAX
    }
}

/// [`min_tasks`] for the leaves of batch normalisation over so many numbers.
pub(super) fn min_leaves(numbers: usize) -> usize {
    if numbers < NORM_MIN { usize::MAX } else { 1 }
}

/// Rows of `cols` numbers in one task.
pub(super) fn chunk_rows(cols: usize) -> usize {
    (CHUNK / cols.max(1)).max(1)
}

/// Calls `f(i)` once for each `i < count`, if `shared` on whatever threads are free: those that are awake, or
/// the pool's.
pub(super) fn each(count: usize, shared: bool, f: impl Fn(usize) + Sync) {
    if !shared || count < 2 {
        (0..count).for_each(f);
    } else if !awake::share(count, &f) {
        (0..count).into_par_iter().for_each(&f);
    }
}
