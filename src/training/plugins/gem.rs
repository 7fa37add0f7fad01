//! Gradient Episodic Memory (Lopez-Paz and Ranzato, NeurIPS 2017).

mod quadratic;

use quadratic::minimise;

use super::memory::Memory;
use super::{at_least_zero, named, preset};
use crate::benchmarks::Experience;
use crate::data::Group;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::{Mode, Tape};
use crate::template::{Plugin, State};
use crate::training::StrategyBuilder;

/// Avalanche's `GEMPlugin`, and with [`builder`](Self::builder) its strategy `GEM`: keeps
/// `patterns_per_exp` random samples of each experience, and before each iteration takes the
/// gradient of the criterion over those of each experience, the rows of `G`. If the gradient `g` of
/// the iteration points against one of them, it becomes `g + Gᵀv` with the `v ≥ memory_strength`
/// that minimises `½·vᵀ(GGᵀ + 0.001·I)v + (G·g)ᵀv`: the nearest gradient that harms no experience.
///
/// The programme has one unknown for each earlier experience; see `gem/quadratic.rs` for how it is
/// solved. Which samples are kept is decided by the generator of the run.
#[derive(Clone, Debug)]
pub struct Gem {
    patterns_per_exp: usize,
    memory_strength: f32,
    memory: Memory,
    references: Vec<Vec<f32>>,
    gradient: Vec<f32>,
}

/// Added to the diagonal, so that the minimum is unique even if two gradients are the same.
const RIDGE: f64 = 1e-3;

impl Gem {
    /// GEM with a memory of so many samples of each experience; a `memory_strength` above 0 favours
    /// progress on earlier experiences.
    pub fn new(patterns_per_exp: usize, memory_strength: f32) -> Self {
        Gem {
            patterns_per_exp,
            memory_strength,
            memory: Memory::default(),
            references: Vec::new(),
            gradient: Vec::new(),
        }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("gem"), tape, model, sgd)
    }
}

/// `a·b` in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

impl Plugin for Gem {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        if self.patterns_per_exp == 0 {
            return Err(Error::config("patterns-per-exp", "at least 1", 0));
        }
        at_least_zero("memory-strength", self.memory_strength)
    }

    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.references
            .resize_with(self.memory.parts().len(), Vec::new);
        s.aside(|s| {
            for (dataset, reference) in self.memory.parts().zip(&mut self.references) {
                s.clear_batch();
                s.append(dataset, Group::Train, 0..dataset.len());
                let logits = s.forward(Mode::Train);
                let loss = s.criterion_loss(logits);
                s.tape.backward(loss);
                s.tape.gradients(reference);
            }
        });
        Ok(())
    }

    fn after_backward(&mut self, s: &mut State) -> Result<()> {
        s.tape.gradients(&mut self.gradient);
        let rows = &self.references;
        let along: Vec<f64> = rows.iter().map(|r| dot(r, &self.gradient)).collect();
        if !along.iter().any(|&a| a < 0.0) {
            return Ok(());
        }
        let n = rows.len();
        let mut products = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let product = dot(&rows[i], &rows[j]) + if i == j { RIDGE } else { 0.0 };
                (products[i * n + j], products[j * n + i]) = (product, product);
            }
        }
        let v = minimise(&products, &along, f64::from(self.memory_strength));
        for (row, v) in rows.iter().zip(v) {
            let v = v as f32;
            self.gradient
                .iter_mut()
                .zip(row)
                .for_each(|(g, r)| *g += v * r);
        }
        s.tape.set_gradients(&self.gradient);
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        if let Some(experience) = s.experience.as_ref().filter(|e| !e.dataset().is_empty()) {
            let generator = s.tape.generator();
            self.memory
                .store(experience, self.patterns_per_exp, generator);
        }
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        self.memory.save(out);
    }

    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.memory = Memory::load(from, trained)?;
        Ok(())
    }
}
