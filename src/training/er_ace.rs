//! Experience Replay with Asymmetric Cross-Entropy (Caccia et al., ICLR 2022).

use super::{Method, StrategyBuilder};
use crate::benchmarks::Experience;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::{Buffer, ClassBalancedBuffer};
use crate::snapshot::Snapshot;
use crate::tape::{Tape, Var};
use crate::template::{Endless, LossTerms, State};

/// Avalanche's `ER_ACE`: current rows compete only among the classes that occur in the current
/// mini-batch, replayed rows among all: `L = (CE(current, masked) + CE(replay)) / 2`, so that new
/// classes do not push old ones away. Before the first replay the loss is the criterion.
///
/// As in Avalanche the class-balanced buffer takes each experience before it is trained on, and
/// replay starts with the second experience. Differences: one forward pass over replay and current
/// rows together, so that a batch normalisation sees both at once; a buffer smaller than
/// `batch_size_mem` is replayed whole.
pub struct ErAce {
    batch_size_mem: usize,
    replay: Option<Endless>,
}

impl ErAce {
    /// A builder for ER-ACE. (Avalanche's `batch_size_mem` is 10, here as elsewhere `train_mb_size`.)
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            b.buffer = Some(Buffer::ClassBalanced(ClassBalancedBuffer::new(b.mem_size)));
            Ok(Box::new(ErAce {
                batch_size_mem: b.resolved_batch_size_mem()?,
                replay: None,
            }))
        })
    }
}

/// Adds `weight·CE` of one row over `classes` to the gradient, and returns it.
fn cross_entropy(
    row: &[f64],
    label: u32,
    classes: &[u32],
    weight: f64,
    gradient: &mut [f64],
) -> f64 {
    let logits = || classes.iter().map(|&c| row[c as usize]);
    let largest = logits().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits().map(|x| (x - largest).exp()).sum();
    for &class in classes {
        let p = (row[class as usize] - largest).exp() / sum;
        let target = f64::from(u8::from(class == label));
        gradient[class as usize] = weight * (p - target);
    }
    weight * (sum.ln() + largest - row[label as usize])
}

impl Method for ErAce {
    fn name(&self) -> &'static str {
        "er-ace"
    }

    fn before_experience(&mut self, state: &mut State) {
        if let (Some(experience), Some(buffer)) = (&state.experience, &mut state.storage_policy) {
            buffer.update(experience.dataset(), state.tape.generator());
        }
        let stored = state.storage_policy.as_ref().map_or(0, Buffer::len);
        let replays = state.clock.train_exp_counter > 0 && stored > 0;
        self.replay = replays.then(Endless::default);
    }

    fn add_replay(&mut self, state: &mut State) {
        if let Some(loader) = &mut self.replay {
            state.prepend_replay(loader, self.batch_size_mem);
        }
    }

    fn loss(&mut self, state: &mut State, logits: Var) -> Var {
        let replay = state.replay_rows;
        if replay == 0 {
            return state.criterion_loss(logits);
        }
        let width = state.tape.shape(logits).dim(1);
        let labels = &state.mb_y;
        let mut present = labels[replay..].to_vec();
        present.sort_unstable();
        present.dedup();
        let all: Vec<u32> = (0..width as u32).collect();
        let (old, new) = (0.5 / replay as f64, 0.5 / (labels.len() - replay) as f64);
        let (mut current, mut replayed) = (0.0, 0.0);
        let loss = state.tape.host_loss(logits, |logits, gradient| {
            let rows = logits
                .chunks_exact(width)
                .zip(gradient.chunks_exact_mut(width));
            for (i, ((row, gradient), &label)) in rows.zip(labels).enumerate() {
                if i < replay {
                    replayed += cross_entropy(row, label, &all, old, gradient);
                } else {
                    current += cross_entropy(row, label, &present, new, gradient);
                }
            }
            current + replayed
        });
        state.set_loss(LossTerms {
            total: (current + replayed) as f32,
            current: current as f32,
            replay: replayed as f32,
            ..LossTerms::default()
        });
        loss
    }

    fn after_experience(&mut self, _: &mut State) -> Result<()> {
        self.replay = None;
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
