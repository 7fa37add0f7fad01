//! The threads that a tape computes on.

use super::Tape;
use crate::backend::cpu::awake;
use crate::error::Result;

pub use awake::Awake;

impl Tape {
    /// Runs `work` in a pool of its own with `threads` threads (0: one for each core): the place for a whole run,
    /// since handing over each operation to a pool from outside costs more than most of them take. The numbers
    /// that come out are the same for any number of threads.
    ///
    /// ```
    /// use unforget::tape::{Device, Tape};
    ///
    /// let sum = Tape::on_threads(2, || {
    ///     let tape = Tape::new(Device::Cpu)?;
    ///     let _awake = tape.stay_awake(); // Strategy::train and eval do this themselves.
    ///     Ok::<_, unforget::Error>((0..100).sum::<u32>()) // the loop of training
    /// })??;
    /// assert_eq!(sum, 4950);
    /// # Ok::<(), unforget::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when there are no threads to be had.
    pub fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
        awake::on_threads(threads, work)
    }

    /// The other threads of the pool do not go to sleep between operations as long as what this returns lives:
    /// for a loop of training or evaluation, one step of which pauses far more often than a thread can be woken.
    /// They take their cores all the time, unless there has been nothing to do for some milliseconds. It
    /// does nothing for a tape on a GPU, outside of [`on_threads`](Self::on_threads), in a pool of one or of more
    /// threads than there are cores, or if the pool is kept awake already.
    pub fn stay_awake(&self) -> Awake {
        if self.has_own_memory() {
            Awake::nobody()
        } else {
            Awake::begin()
        }
    }
}
