//! Maximally Interfered Retrieval (Aljundi et al., NeurIPS 2019).

use super::{Method, StrategyBuilder};
use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::Result;
use crate::nn::Module;
use crate::optim::Sgd;
use crate::replay::{Buffer, ClassBalancedBuffer};
use crate::snapshot::Snapshot;
use crate::tape::{Tape, Var, Weights};
use crate::template::{Endless, State};

/// How many samples of the buffer are looked at in each iteration (Avalanche's default).
const SUBSAMPLE: usize = 200;

/// Avalanche's `MIR`: of 200 random samples of the buffer, those are replayed whose loss a step with
/// the current mini-batch alone would raise most: `L = CE(current) + CE(replay)`. The buffer is
/// class-balanced.
///
/// Differences: candidates are samples of other classes than the current experience's. Avalanche
/// leaves out the classes of the last mini-batch of the experience *before*, so that the first of two
/// experiences is never replayed in the second. The candidates' losses are compared as in evaluation,
/// without dropout and with running statistics, where Avalanche stays in training mode. With fewer
/// candidates than `batch_size_mem`, all are replayed.
pub struct Mir {
    batch_size_mem: usize,
    loader: Endless,
    /// What may be replayed in the running experience; made when first needed.
    candidates: Option<ClassificationDataset>,
    gradient: Vec<f32>,
}

impl Mir {
    /// A builder for MIR.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            b.buffer = Some(Buffer::ClassBalanced(ClassBalancedBuffer::new(b.mem_size)));
            Ok(Box::new(Mir {
                batch_size_mem: b.resolved_batch_size_mem()?,
                loader: Endless::default(),
                candidates: None,
                gradient: Vec::new(),
            }))
        })
    }

    fn find_candidates(&mut self, state: &State) {
        let (Some(experience), Some(buffer)) = (&state.experience, &state.storage_policy) else {
            return;
        };
        let current = experience.classes_in_this_experience();
        let shape = experience.dataset().shape();
        self.candidates = buffer.dataset(shape, |item| !current.contains(&item.target));
    }
}

/// The cross-entropy of each row.
fn losses(logits: &[f32], width: usize, labels: &[u32]) -> Vec<f64> {
    let rows = logits.chunks_exact(width).zip(labels);
    rows.map(|(row, &label)| {
        let row = || row.iter().map(|&x| f64::from(x));
        let largest = row().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row().map(|x| (x - largest).exp()).sum();
        sum.ln() + largest - row().nth(label as usize).unwrap_or(f64::NEG_INFINITY)
    })
    .collect()
}

impl Method for Mir {
    fn name(&self) -> &'static str {
        "mir"
    }

    fn before_experience(&mut self, _: &mut State) {
        self.loader = Endless::default();
        self.candidates = None;
    }

    fn loss(&mut self, state: &mut State, logits: Var) -> Var {
        let current = state.criterion_loss(logits);
        if self.candidates.is_none() {
            self.find_candidates(state);
        }
        let Some(candidates) = &self.candidates else {
            return current;
        };
        let n = candidates.len();
        let batch = (self.loader).batch(n, SUBSAMPLE.min(n), state.tape.generator());
        let mut picked: Vec<usize> = batch.iter().map(|&i| i as usize).collect();
        if picked.len() > self.batch_size_mem {
            // Where a step with the current mini-batch alone would lead.
            state.tape.backward(current);
            state.tape.gradients(&mut self.gradient);
            state.tape.zero_grad();
            let mut updated = state.tape.weights();
            updated.add_scaled(-state.optimizer.lr, &self.gradient);
            let rise = rise(state, candidates, &picked, &updated);
            let mut order: Vec<usize> = (0..picked.len()).collect();
            order.sort_by(|&a, &b| rise[a].total_cmp(&rise[b]));
            let most = &order[order.len() - self.batch_size_mem..];
            picked = most.iter().map(|&i| picked[i]).collect();
        }
        let replay = state.criterion_beside(candidates, &picked);
        let mut terms = state.loss();
        terms.replay = state.tape.item(replay);
        let loss = state.tape.add(current, replay);
        terms.total = state.tape.item(loss);
        state.set_loss(terms);
        loss
    }

    fn after_experience(&mut self, state: &mut State) -> Result<()> {
        if let (Some(experience), Some(buffer)) = (&state.experience, &mut state.storage_policy) {
            buffer.update(experience.dataset(), state.tape.generator());
        }
        self.candidates = None;
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("loader", &self.loader);
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.loader = from.get("loader")?;
        self.candidates = None;
        Ok(())
    }
}

/// How much the loss of each sample grows from the present weights to the updated ones.
fn rise(
    state: &mut State,
    dataset: &ClassificationDataset,
    samples: &[usize],
    updated: &Weights,
) -> Vec<f64> {
    let labels: Vec<u32> = samples.iter().map(|&i| dataset.target(i)).collect();
    let mut losses = |weights| {
        let (logits, width) = state.logits_beside(dataset, samples, weights);
        losses(&logits, width, &labels)
    };
    let (before, after) = (losses(None), losses(Some(updated)));
    after.iter().zip(&before).map(|(a, b)| a - b).collect()
}
