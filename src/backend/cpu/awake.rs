//! Threads that stay awake between the operations of a training step.
//!
//! A thread of rayon that finds nothing to do for some ten microseconds goes to sleep, and waking it takes
//! longer than most operations of a step on small images: half of them would find the other threads asleep. A
//! *keeper* is a task on each of the other threads of a pool that looks for work
//! ([`rayon::yield_now`]) until it is told that the whole work is over. To rayon its thread is busy, so nobody
//! puts it to sleep, and a piece of an operation finds it within a fraction of a microsecond. Keepers are also
//! the members of a [team](super::team), whose leader is the thread that began them.
//!
//! Two things keep this from waiting for itself. A keeper that began above a piece of the very work whose end
//! it waits for would hold it up for ever (a thread that waits inside a piece takes whatever
//! task it finds), so keepers begin before the work or not at all. And there is one set of keepers in a pool at
//! a time, in pools of [`on_threads`] only: two strategies side by side in a pool of somebody else's would
//! hold up each other.

use super::team::{Leader, Team};
use crate::error::{Error, Result};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// Turns of a loop without work after which a keeper lets other threads of the system have its core, and looks
/// at the clock.
const PATIENCE: u32 = 64;

/// Looks at its seat in the team before a keeper looks for other work, which takes longer.
const LOOKS: u32 = 8;

/// After so long without work a keeper only looks now and then: steps are too small to be shared, or the run
/// is doing something else.
const IDLE: Duration = Duration::from_millis(5);

/// How long it then rests.
const REST: Duration = Duration::from_micros(200);

/// How long the work waits for its keepers to begin.
const BEGIN: Duration = Duration::from_millis(100);

thread_local! {
    /// On a thread of a pool of [`on_threads`]: whether the pool has keepers.
    static KEPT: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };

    /// On the thread that keepers were begun by: what shares tasks with them.
    static LEADER: RefCell<Option<Rc<Leader>>> = const { RefCell::new(None) };
}

/// Runs `work` in a pool of its own with `threads` threads (0: one for each core), on one of them.
///
/// # Errors
/// [`Error::Config`] when there are no threads to be had.
pub(crate) fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    let kept = Arc::new(AtomicBool::new(false));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .start_handler(move |_| KEPT.set(Some(kept.clone())))
        .build()
        .map_err(|e| {
            let expected = format!("threads that can start ({e})");
            Error::config("--threads", expected, threads)
        })?;
    Ok(pool.install(work))
}

/// Whether the other threads of this pool are kept awake.
pub(super) fn now() -> bool {
    KEPT.with_borrow(|kept| {
        kept.as_ref()
            .is_some_and(|kept| kept.load(Ordering::Relaxed))
    })
}

/// Calls `work(i)` once for each `i < count`, here and on the keepers that this thread began; false, and nothing
/// done, if there are none or they are at it already.
pub(super) fn share(count: usize, work: &(dyn Fn(usize) + Sync)) -> bool {
    let leader = LEADER.with_borrow(Clone::clone);
    leader.is_some_and(|leader| leader.share(count, work))
}

/// The other threads of a pool stay awake until this is dropped, by unwinding too; see
/// [`Tape::stay_awake`](crate::tape::Tape::stay_awake).
#[must_use = "the threads may sleep as soon as this is dropped"]
pub struct Awake {
    keepers: Option<Keepers>,
    /// It belongs to the thread whose work the others wait for.
    thread: PhantomData<*const ()>,
}

impl Awake {
    /// Keepers for the pool that this runs in, if it is one of [`on_threads`], has none yet, and there is a core
    /// for each of its threads: more would take the cores from those that have work.
    pub(crate) fn begin() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        if rayon::current_num_threads() > cores {
            return Awake::nobody();
        }
        Awake::keep(BEGIN)
    }

    /// The same for any number of cores; waits as long as `patience` for the keepers to begin.
    fn keep(patience: Duration) -> Self {
        let kept = KEPT.with_borrow(Clone::clone);
        Awake {
            keepers: kept.and_then(|kept| Keepers::begin(kept, patience)),
            thread: PhantomData,
        }
    }

    /// Nobody is kept awake.
    pub(crate) fn nobody() -> Self {
        Awake {
            keepers: None,
            thread: PhantomData,
        }
    }
}

impl std::fmt::Debug for Awake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.keepers.as_ref().map_or(0, Keepers::begun);
        f.debug_struct("Awake").field("threads", &threads).finish()
    }
}

/// How far the work is, as its keepers see it.
struct Progress {
    /// [`TO_COME`], [`UNDER_WAY`] or [`OVER`].
    stage: AtomicU8,
    /// Has a seat for each.
    team: Arc<Team>,
}

const TO_COME: u8 = 0;
const UNDER_WAY: u8 = 1;
const OVER: u8 = 2;

/// The keepers of a pool; they end when this is dropped, by unwinding too.
struct Keepers {
    progress: Arc<Progress>,
    /// Whether the pool has keepers.
    kept: Arc<AtomicBool>,
    leader: Rc<Leader>,
}

impl Keepers {
    /// Keepers for the pool that this runs in, unless it has some or there are no other threads.
    fn begin(kept: Arc<AtomicBool>, patience: Duration) -> Option<Self> {
        let me = rayon::current_thread_index();
        let others = rayon::current_num_threads() - 1;
        if others == 0 || kept.swap(true, Ordering::AcqRel) {
            return None;
        }
        let leader = Rc::new(Leader::new(1 + others));
        let progress = Arc::new(Progress::new(leader.team().clone()));
        let keepers = Keepers {
            progress: progress.clone(),
            kept,
            leader,
        };
        rayon::spawn_broadcast(move |thread| {
            if Some(thread.index()) != me {
                progress.keep();
            }
        });
        let start = Instant::now();
        while keepers.begun() < others && start.elapsed() < patience {
            std::thread::yield_now();
        }
        keepers.progress.stage.store(UNDER_WAY, Ordering::Release);
        LEADER.set(Some(keepers.leader.clone()));
        Some(keepers)
    }

    /// How many began.
    fn begun(&self) -> usize {
        self.leader.team().members() - 1
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        LEADER.set(None);
        self.progress.stage.store(OVER, Ordering::Release);
        self.kept.store(false, Ordering::Release);
    }
}

impl Progress {
    fn new(team: Arc<Team>) -> Self {
        Progress {
            stage: AtomicU8::new(TO_COME),
            team,
        }
    }

    /// Does what work there is in the team and in the pool until all is over.
    fn keep(&self) {
        if self.stage.load(Ordering::Acquire) != TO_COME {
            return;
        }
        let Some(member) = self.team.join() else {
            return;
        };
        let looks = || {
            (0..LOOKS).any(|_| {
                std::hint::spin_loop();
                member.serve()
            })
        };
        let (mut turns, mut idle_since) = (0u32, None);
        while self.stage.load(Ordering::Acquire) != OVER {
            if looks() || rayon::yield_now() == Some(rayon::Yield::Executed) {
                (turns, idle_since) = (0, None);
                continue;
            }
            turns += 1;
            if turns.is_multiple_of(PATIENCE) {
                let now = Instant::now();
                if now - *idle_since.get_or_insert(now) < IDLE {
                    std::thread::yield_now();
                } else {
                    std::thread::sleep(REST);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// However busy the machine is.
    const LONG: Duration = Duration::from_secs(60);

    fn begun(awake: &Awake) -> Option<usize> {
        awake.keepers.as_ref().map(Keepers::begun)
    }

    /// Waits until nobody but `progress` itself knows of it.
    #[track_caller]
    fn assert_all_end(progress: &Arc<Progress>) {
        let start = Instant::now();
        while Arc::strong_count(progress) > 1 {
            assert!(start.elapsed() < LONG, "a keeper stays");
            // This thread, too, has its copy of the task, which returns at once.
            rayon::yield_now();
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// The number of leaves of a tree of tasks, each of which waits for those below it.
    fn leaves(depth: u32) -> usize {
        if depth == 0 {
            return 1;
        }
        let (a, b) = rayon::join(|| leaves(depth - 1), || leaves(depth - 1));
        a + b
    }

    #[test]
    fn keepers_are_there_for_the_work_and_end_with_it() {
        on_threads(3, || {
            for _ in 0..100 {
                let awake = Awake::keep(LONG);
                assert_eq!(begun(&awake), Some(2));
                // Threads that wait inside a piece must not wait for the whole.
                assert_eq!(leaves(10), 1 << 10);
                let progress = awake.keepers.as_ref().expect("keepers").progress.clone();
                drop(awake);
                assert_all_end(&progress);
            }
        })
        .unwrap();
    }

    #[test]
    fn keepers_share_the_tasks_of_who_began_them() {
        let tasks = || {
            let done = [(); 5].map(|()| AtomicBool::new(false));
            let shared = share(done.len(), &|i| {
                assert!(!done[i].swap(true, Ordering::SeqCst), "task {i} twice");
                assert!(!share(5, &|_| unreachable!("tasks that a task shares")));
            });
            assert!(
                done.iter()
                    .all(|done| done.load(Ordering::SeqCst) == shared)
            );
            shared
        };
        on_threads(3, || {
            assert!(!tasks());
            let awake = Awake::keep(LONG);
            assert!((0..1000).all(|_| tasks()));
            drop(awake);
            assert!(!tasks());
        })
        .unwrap();
    }

    #[test]
    fn keepers_end_when_the_work_unwinds() {
        on_threads(2, || {
            let mut progress = None;
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let awake = Awake::keep(LONG);
                progress = awake.keepers.as_ref().map(|k| k.progress.clone());
                panic!("out of memory, say");
            }));
            assert!(unwound.is_err());
            assert_all_end(&progress.expect("keepers"));
            assert_eq!(begun(&Awake::keep(LONG)), Some(1), "others may begin");
        })
        .unwrap();
    }

    #[test]
    fn a_pool_has_one_set_of_keepers_at_a_time() {
        on_threads(2, || {
            let awake = Awake::keep(LONG);
            assert!(begun(&awake).is_some());
            assert_eq!(begun(&Awake::keep(LONG)), None);
            drop(awake);
            assert!(begun(&Awake::keep(LONG)).is_some());
        })
        .unwrap();
    }

    #[test]
    fn other_pools_and_single_threads_have_none() {
        assert_eq!(begun(&Awake::keep(LONG)), None);
        let theirs = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        theirs
            .expect("a thread pool")
            .install(|| assert_eq!(begun(&Awake::keep(LONG)), None));
        on_threads(1, || assert_eq!(begun(&Awake::keep(LONG)), None)).unwrap();
    }

    #[test]
    fn threads_beyond_the_cores_are_not_kept() {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        on_threads(cores + 1, || assert_eq!(begun(&Awake::begin()), None)).unwrap();
        let kept = || begun(&Awake::begin()).is_some();
        assert_eq!(on_threads(cores, kept).unwrap(), cores > 1);
    }

    #[test]
    fn a_keeper_that_comes_late_keeps_nothing() {
        let progress = Progress::new(Leader::new(2).team().clone());
        progress.stage.store(UNDER_WAY, Ordering::SeqCst);
        std::thread::scope(|scope| {
            let keeper = scope.spawn(|| progress.keep());
            std::thread::sleep(Duration::from_millis(20));
            let members = progress.team.members();
            progress.stage.store(OVER, Ordering::SeqCst);
            assert!(keeper.join().is_ok() && members == 1);
        });
    }
}
