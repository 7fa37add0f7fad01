//! Experience replay as the authors of Dark Experience Replay ran it (Buzzega et al., NeurIPS 2020;
//! what their published code does where the text leaves it open).
//!
//! What differs from Avalanche's strategies: one reservoir for the whole stream, blind to
//! experiences, is offered every mini-batch right after its step, so replay begins with the second
//! iteration of the first experience; a sample is stored as it came, before augmentation, with the
//! logits that the network just gave its augmented view in training mode; every draw is independent
//! and takes what there is when the buffer holds less than `batch_size_mem`.
//!
//! Random numbers come from the run's generator: in each iteration the draws of the replayed samples,
//! then those of the reservoir.

use super::{Method, StrategyBuilder};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::{Buffer, GlobalReservoir};
use crate::tape::{Tape, Var};
use crate::template::{DarkRows, State, TwoDraws};

/// DER (`beta` 0) and DER++ as in the paper.
///
/// `L = CE(current) + alpha·MSE(B1, stored logits) + beta·CE(B2)`, each a mean over its rows, the
/// MSE also over classes; `B1` and `B2` are two independent draws. The authors run the network on
/// the three batches one after the other. Here they are one batch of three groups: each is normalised by
/// its own statistics, and the running statistics take them up in this order, so the numbers are
/// those of three passes. Without replayed rows it is the cross-entropy alone. On the CPU a sample that
/// both draws have is one row for both, if its transform is not random and the model
/// [treats rows apart](Module::treats_rows_apart).
pub struct PaperDer {
    alpha: f32,
    beta: f32,
    batch_size_mem: usize,
    rows: DarkRows,
    picked: Vec<u32>,
    draws: TwoDraws,
}

impl PaperDer {
    /// A builder for DER and DER++ as in the paper.
    ///
    /// ```
    /// use unforget::prelude::*;
    /// use unforget::training::PaperDer;
    ///
    /// let mut tape = Tape::new(Device::Cpu)?;
    /// let model = Mlp::new(&mut tape, &[784, 100, 100, 10]).xavier(&mut tape);
    /// let strategy = PaperDer::builder(tape, model, Sgd::new(0.2))
    ///     .train_mb_size(128)
    ///     .mem_size(500)
    ///     .alpha(1.0)
    ///     .beta(0.5)
    ///     .build()?;
    /// # Ok::<(), unforget::Error>(())
    /// ```
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            b.check_dark_weights()?;
            b.buffer = Some(reservoir(b));
            Ok(Box::new(PaperDer {
                alpha: b.alpha,
                beta: b.beta,
                batch_size_mem: b.resolved_batch_size_mem()?,
                rows: DarkRows::default(),
                picked: Vec::new(),
                draws: TwoDraws::default(),
            }))
        })
    }
}

fn reservoir(builder: &StrategyBuilder) -> Buffer {
    let reservoir = GlobalReservoir::new(builder.mem_size);
    Buffer::Global(reservoir.balanced(builder.balanced_reservoir))
}

impl Method for PaperDer {
    fn name(&self) -> &'static str {
        "paper-der"
    }

    fn add_replay(&mut self, state: &mut State) {
        let current = 0..state.mb_y.len();
        let [logits, labels] = if self.beta > 0.0 {
            state.append_two_draws(self.batch_size_mem, &mut self.draws)
        } else {
            // DER has no second draw, and its running statistics no third update.
            let logits = state.append_draw(self.batch_size_mem, true, &mut self.picked);
            [logits.clone(), logits.end..logits.end]
        };
        // Where a row is in two of them, nothing asks for groups.
        if labels.start >= logits.end {
            (state.mb_groups).extend([current.len(), logits.len(), labels.len()]);
        }
        self.rows = DarkRows {
            current,
            logits,
            labels,
        };
    }

    fn loss(&mut self, state: &mut State, logits: Var) -> Var {
        state.dark_loss(logits, &self.rows, self.alpha, self.beta)
    }

    fn after_iteration(&mut self, state: &mut State) {
        state.offer_current(true);
    }
}

/// Experience replay (ER) as in the paper: one forward pass over the current and the replayed samples
/// together, one mean cross-entropy over all of them.
pub struct PaperReplay {
    batch_size_mem: usize,
    picked: Vec<u32>,
}

impl PaperReplay {
    /// A builder for experience replay as in the paper.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            b.buffer = Some(reservoir(b));
            Ok(Box::new(PaperReplay {
                batch_size_mem: b.resolved_batch_size_mem()?,
                picked: Vec::new(),
            }))
        })
    }
}

impl Method for PaperReplay {
    fn name(&self) -> &'static str {
        "paper-replay"
    }

    fn add_replay(&mut self, state: &mut State) {
        state.append_draw(self.batch_size_mem, false, &mut self.picked);
    }

    fn after_iteration(&mut self, state: &mut State) {
        state.offer_current(false);
    }
}
