//! A team of threads that shares the small operations of a training step.
//!
//! Handing a piece of work to another thread through a queue costs it and its taker about a microsecond, an
//! operation on a mini-batch of small images a few. Here the thread that leads writes into the *seat* of each
//! other thread which tasks are its own, and the thread that keeps the seat, awake and looking, begins with them: one
//! cache line goes there and back. Tasks are numbered, and a thread has the same part of them in each
//! operation, so it finds in its cache what it wrote in the one before. Whoever is done takes tasks from the
//! ends of other seats; those of a thread that does not come, because it rests or lost its core, are done by the
//! others, and nobody waits for it.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Does the task of a number.
type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// Looks at a seat whose thread is at its last task, until the leader offers its core to others.
const PATIENCE: u32 = 1 << 10;

/// Set in a word while the thread that keeps the seat does tasks.
const SEATED: u64 = 1 << 63;

/// Where the first task lies in a word; behind the last, in the lowest bits.
const FIRST: u32 = 32;

/// The most tasks.
const MOST: usize = (1 << 31) - 1;

/// What one thread has to do. Two cache lines, since CPUs fetch them in pairs.
#[repr(align(128))]
struct Seat {
    /// The tasks that nobody has taken yet, and [`SEATED`].
    word: AtomicU64,
    /// What does them. Written by the leader alone, while the seat has no tasks and is not taken; read by the
    /// thread that keeps the seat, while it is [`SEATED`].
    work: UnsafeCell<Work<'static>>,
}

// SAFETY: the rule of `work` orders all accesses to it: `SEATED` is set together with taking a task, which the
// leader offers (release) after writing it, and cleared (release) after the last use, for which the leader waits.
unsafe impl Sync for Seat {}

impl Seat {
    fn new() -> Self {
        Seat {
            word: AtomicU64::new(0),
            work: UnsafeCell::new(&|_| {}),
        }
    }

    /// Takes the first task, or the last, if there is any left; sets `mark` with it.
    fn take(&self, last: bool, mark: u64) -> Option<usize> {
        let taken = |word: u64| match last {
            _ if tasks(word).is_empty() => None,
            true => Some(word - 1),
            false => Some((word + (1 << FIRST)) | mark),
        };
        let word = &self.word;
        let word = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken);
        let tasks = tasks(word.ok()?);
        Some(if last { tasks.end - 1 } else { tasks.start } as usize)
    }
}

/// The tasks that a word names.
fn tasks(word: u64) -> Range<u64> {
    (word & !SEATED) >> FIRST..word & u64::from(u32::MAX)
}

/// Threads that share numbered tasks.
pub(super) struct Team {
    /// The first is the leader's.
    seats: Box<[Seat]>,
    /// Threads that have a seat.
    members: AtomicUsize,
    /// What a task of another thread panicked with.
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    /// A seat for the thread that calls this, if there is one left.
    pub fn join(&self) -> Option<Member<'_>> {
        let room = |members| (members < self.seats.len()).then_some(members + 1);
        let members = &self.members;
        let seat = members.fetch_update(Ordering::AcqRel, Ordering::Acquire, room);
        seat.ok().map(|seat| Member { team: self, seat })
    }

    /// Threads that have a seat, the leader among them.
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Acquire)
    }

    /// Does the tasks of a seat, then those left at others.
    fn finish(&self, seat: usize, work: Work<'_>) {
        while let Some(task) = self.seats[seat].take(false, 0) {
            work(task);
        }
        let others = self.seats[seat + 1..].iter().chain(&self.seats[..seat]);
        for other in others {
            while let Some(task) = other.take(true, 0) {
                work(task);
            }
        }
    }
}

/// Who hands out the tasks of a team: one thread at a time, since this cannot be shared.
pub(super) struct Leader {
    team: Arc<Team>,
    /// Tasks are being done.
    leading: Cell<bool>,
}

impl Leader {
    /// The leader of a team for so many threads.
    pub fn new(threads: usize) -> Self {
        Leader {
            team: Arc::new(Team {
                seats: (0..threads.max(1)).map(|_| Seat::new()).collect(),
                members: AtomicUsize::new(1),
                panicked: Mutex::new(None),
            }),
            leading: Cell::new(false),
        }
    }

    /// The team.
    pub fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// Calls `work(i)` once for each `i < count`, here and on the members that come; false, and nothing done, if
    /// nobody could or this is called by a task. A panic of a task is passed on when all have ended.
    pub fn share(&self, count: usize, work: Work<'_>) -> bool {
        let seats = self.team.members().min(count);
        if seats < 2 || count > MOST || self.leading.replace(true) {
            return false;
        }
        // SAFETY: only the lifetime changes. `end` waits until no other thread is at a seat, and none sits down
        // afterwards, so nobody calls `work` after this function; nothing before that unwinds.
        let shared = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        for (i, seat) in self.team.seats[..seats].iter().enumerate().rev() {
            // SAFETY: no thread is at the seat and it has no tasks: `end` left it so, and there is one leader.
            unsafe { *seat.work.get() = shared };
            let [first, end] = [i, i + 1].map(|i| (i * count / seats) as u64);
            seat.word.store(first << FIRST | end, Ordering::Release);
        }
        let here = catch_unwind(AssertUnwindSafe(|| self.team.finish(0, work)));
        self.end();
        let panicked = &self.team.panicked;
        let there = panicked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(payload) = here.err().or(there) {
            resume_unwind(payload);
        }
        true
    }

    /// Waits until nobody does tasks; those that are left after a panic are dropped.
    fn end(&self) {
        for seat in &self.team.seats {
            let mut word = seat.word.load(Ordering::Acquire);
            if !tasks(word).is_empty() {
                word = seat.word.fetch_and(SEATED, Ordering::AcqRel);
            }
            let mut turns = 0u32;
            while word & SEATED != 0 {
                turns += 1;
                if turns.is_multiple_of(PATIENCE) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
                word = seat.word.load(Ordering::Acquire);
            }
        }
        self.leading.set(false);
    }
}

/// A thread's seat in a team.
pub(super) struct Member<'a> {
    team: &'a Team,
    seat: usize,
}

impl Member<'_> {
    /// Does tasks if there are any at the seat, and says whether there were.
    pub fn serve(&self) -> bool {
        let seat = &self.team.seats[self.seat];
        let Some(task) = seat.take(false, SEATED) else {
            return false;
        };
        // SAFETY: `SEATED` is set since a task was taken, and until this is last used.
        let work = unsafe { *seat.work.get() };
        let done = catch_unwind(AssertUnwindSafe(|| {
            work(task);
            self.team.finish(self.seat, work);
        }));
        if let Err(payload) = done {
            let panicked = &self.team.panicked;
            *panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
        }
        seat.word.fetch_and(!SEATED, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread::scope;

    /// Runs `lead` with a team of which `others` threads serve, on their own, until it returns.
    fn with_members<R>(others: usize, lead: impl FnOnce(&Leader) -> R) -> R {
        let leader = Leader::new(1 + others);
        let over = &AtomicBool::new(false);
        /// Ends the members, by unwinding too.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        scope(|threads| {
            let _end = End(over);
            for _ in 0..others {
                let team = leader.team().clone();
                threads.spawn(move || {
                    let member = team.join().expect("a seat");
                    while !over.load(Ordering::SeqCst) {
                        if !member.serve() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while leader.team().members() <= others {
                std::thread::yield_now();
            }
            lead(&leader)
        })
    }

    fn counters(count: usize) -> Vec<AtomicUsize> {
        (0..count).map(|_| AtomicUsize::new(0)).collect()
    }

    #[track_caller]
    fn assert_each_is(counters: &[AtomicUsize], times: usize) {
        for (i, counter) in counters.iter().enumerate() {
            assert_eq!(counter.load(Ordering::SeqCst), times, "task {i}");
        }
    }

    #[test]
    fn every_task_is_done_once_and_before_the_end() {
        for others in 1..4 {
            with_members(others, |leader| {
                for count in [2, 3, 4, 5, 17, 100] {
                    let done = counters(count);
                    for round in 1..=200 {
                        // Each round has a closure and numbers of its own, gone when it ends.
                        let add = vec![1; count];
                        assert!(leader.share(count, &|i| {
                            done[i].fetch_add(add[i], Ordering::Relaxed);
                        }));
                        assert_each_is(&done, round);
                    }
                }
            });
        }
    }

    #[test]
    fn members_have_their_part() {
        with_members(1, |leader| {
            let me = std::thread::current().id();
            let mut theirs = false;
            // The other thread may be without a core for a while.
            while !theirs {
                let who = Mutex::new(vec![None; 4]);
                let both = AtomicUsize::new(0);
                assert!(leader.share(4, &|i| {
                    who.lock().unwrap()[i] = Some(std::thread::current().id());
                    // Nobody takes from the other's part before that has begun.
                    both.fetch_add(1, Ordering::SeqCst);
                    let start = std::time::Instant::now();
                    while both.load(Ordering::SeqCst) < 2 && start.elapsed().as_millis() < 100 {
                        std::thread::yield_now();
                    }
                }));
                let who = who.into_inner().unwrap();
                assert_eq!(who[0], Some(me));
                theirs = who[2].is_some_and(|who| who != me);
            }
        });
    }

    #[test]
    fn nobody_waits_for_who_does_not_come() {
        let leader = Leader::new(3);
        let count = |n| {
            let done = counters(n);
            let shared = leader.share(n, &|i| {
                done[i].fetch_add(1, Ordering::SeqCst);
            });
            assert_each_is(&done, usize::from(shared));
            shared
        };
        assert!(!count(10), "there is nobody");
        let [first, second] = [0; 2].map(|_| leader.team().join().expect("a seat"));
        assert!(leader.team().join().is_none(), "no seat is left");
        assert!(count(10) && count(2) && !count(1) && !count(0));
        assert!(!first.serve() && !second.serve(), "nothing is left");
    }

    #[test]
    fn a_panic_is_passed_on_when_all_have_ended() {
        with_members(2, |leader| {
            for bad in 0..6 {
                for _ in 0..50 {
                    let running = AtomicUsize::new(0);
                    let caught = catch_unwind(AssertUnwindSafe(|| {
                        leader.share(6, &|i| {
                            running.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                            running.fetch_sub(1, Ordering::SeqCst);
                            if i == bad {
                                resume_unwind(Box::new(bad));
                            }
                        });
                    }));
                    assert_eq!(running.load(Ordering::SeqCst), 0, "a task goes on");
                    let payload = caught.expect_err("a panic");
                    assert_eq!(payload.downcast_ref(), Some(&bad));
                    let done = counters(6);
                    assert!(leader.share(6, &|i| {
                        done[i].fetch_add(1, Ordering::SeqCst);
                    }));
                    assert_each_is(&done, 1);
                }
            }
        });
    }
}
