//! Dark Experience Replay (Buzzega et al., NeurIPS 2020) as Avalanche's `DER` runs it.
//!
//! After each experience a class-balanced buffer takes samples with the logits of the model at that
//! moment. In later experiences each mini-batch begins with `batch_size_mem` samples of the buffer,
//! and one forward pass over `B` replay rows and `n` current rows gives
//! `L = CE(current) + alpha·MSE(logits, stored logits) + beta·CE(replay)`; with `beta` above 0 this
//! is DER++. (`avalanche/training/supervised/der.py`; how it differs from the paper's own code is
//! told there and in the documentation of [`Der`].)

use super::{Method, StrategyBuilder};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::{Buffer, ClassBalancedBuffer};
use crate::snapshot::Snapshot;
use crate::tape::{Tape, Var};
use crate::template::{DarkRows, Endless, State};

/// Avalanche's `DER`: DER++ with its defaults (`mem_size` 200, `alpha` 0.1, `beta` 0.5), DER with
/// `beta` 0.
///
/// Replay starts with the second experience. A sample is stored as it came (uint8 where
/// the data is uint8) and goes through the train transforms each time it is replayed.
///
/// Deliberate differences: a buffer with fewer than `batch_size_mem` samples is replayed whole in
/// each mini-batch, with a warning, where Avalanche silently replays nothing; the criterion also
/// holds for replayed rows; a term whose weight is exactly 0 is not evaluated, so an infinite
/// cross-entropy cannot make the loss NaN through `beta` 0; everything is validated by `build`.
pub struct Der {
    alpha: f32,
    beta: f32,
    batch_size_mem: usize,
    replay: Option<Endless>,
}

impl Der {
    /// A builder for DER and DER++.
    ///
    /// ```
    /// use unforget::prelude::*;
    ///
    /// let mut tape = Tape::new(Device::Cpu)?;
    /// let model = Mlp::new(&mut tape, &[784, 100, 100, 10]);
    /// let strategy = Der::builder(tape, model, Sgd::new(0.03)).alpha(0.2).beta(0.5).build()?;
    /// # Ok::<(), unforget::Error>(())
    /// ```
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            b.check_dark_weights()?;
            b.buffer = Some(Buffer::ClassBalanced(ClassBalancedBuffer::new(b.mem_size)));
            Ok(Box::new(Der {
                alpha: b.alpha,
                beta: b.beta,
                batch_size_mem: b.resolved_batch_size_mem()?,
                replay: None,
            }))
        })
    }
}

impl Method for Der {
    fn name(&self) -> &'static str {
        "der"
    }

    fn before_experience(&mut self, state: &mut State) {
        let stored = state.storage_policy.as_ref().map_or(0, Buffer::len);
        if state.clock.train_exp_counter > 0 && stored < self.batch_size_mem {
            log::warn!(
                "the replay buffer holds {stored} samples, fewer than the {} of a replay batch: {}",
                self.batch_size_mem,
                if stored == 0 {
                    "nothing is replayed"
                } else {
                    "each batch replays all of them"
                }
            );
        }
        self.replay = (stored > 0).then(Endless::default);
    }

    fn add_replay(&mut self, state: &mut State) {
        if let Some(loader) = &mut self.replay {
            state.prepend_replay(loader, self.batch_size_mem);
        }
    }

    fn loss(&mut self, state: &mut State, logits: Var) -> Var {
        let replay = 0..state.replay_rows;
        let rows = DarkRows {
            current: replay.end..state.mb_y.len(),
            logits: replay.clone(),
            labels: replay,
        };
        state.dark_loss(logits, &rows, self.alpha, self.beta)
    }

    fn after_experience(&mut self, state: &mut State) -> Result<()> {
        self.replay = None;
        let Some(experience) = &state.experience else {
            return Ok(());
        };
        let dataset = experience.dataset().clone();
        let (logits, width) = state.compute_dataset_logits(&dataset)?;
        if let Some(Buffer::ClassBalanced(buffer)) = &mut state.storage_policy {
            buffer.update(&dataset, Some((&logits, width)), state.tape.generator());
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
