//! Experience Replay: a mini-batch of current data and one of stored data, one cross-entropy.

use super::{Method, StrategyBuilder};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::{Buffer, ExperienceBalancedBuffer};
use crate::snapshot::Snapshot;
use crate::tape::Tape;
use crate::template::{Endless, State};

/// Avalanche's `Replay` (ER): a buffer divided evenly over the experiences, each a uniform sample of
/// its own; from the second experience on, each mini-batch holds `train_mb_size` current and up to
/// `batch_size_mem` stored samples, and the loss is the mean cross-entropy over all of them.
///
/// Where Avalanche restarts its memory loader each epoch, replay here runs on through the
/// experience, as in [`Der`](super::Der); a buffer smaller than `batch_size_mem` is replayed whole.
pub struct Replay {
    batch_size_mem: usize,
    replay: Option<Endless>,
}

impl Replay {
    /// A builder for Experience Replay.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            b.buffer = Some(Buffer::ExperienceBalanced(ExperienceBalancedBuffer::new(
                b.mem_size,
            )));
            Ok(Box::new(Replay {
                batch_size_mem: b.resolved_batch_size_mem()?,
                replay: None,
            }))
        })
    }
}

impl Method for Replay {
    fn name(&self) -> &'static str {
        "replay"
    }

    fn before_experience(&mut self, state: &mut State) {
        let stored = state.storage_policy.as_ref().map_or(0, Buffer::len);
        self.replay = (stored > 0).then(Endless::default);
    }

    fn add_replay(&mut self, state: &mut State) {
        if let Some(loader) = &mut self.replay {
            state.prepend_replay(loader, self.batch_size_mem);
        }
    }

    fn after_experience(&mut self, state: &mut State) -> Result<()> {
        self.replay = None;
        let Some(experience) = &state.experience else {
            return Ok(());
        };
        if let Some(Buffer::ExperienceBalanced(buffer)) = &mut state.storage_policy {
            buffer.update(experience.dataset(), None, state.tape.generator());
        }
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("replay", &self.replay);
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.replay = from.get("replay")?;
        Ok(())
    }
}
