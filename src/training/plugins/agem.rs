//! Averaged Gradient Episodic Memory (Chaudhry et al., ICLR 2019).

use super::memory::Memory;
use super::{named, preset};
use crate::benchmarks::Experience;
use crate::data::Group;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::{Mode, Tape};
use crate::template::{Endless, Plugin, State};
use crate::training::StrategyBuilder;

/// Avalanche's `AGEMPlugin`, and with [`builder`](Self::builder) its strategy `AGEM`: keeps
/// `patterns_per_exp` random samples of each experience. Before each iteration it takes the gradient
/// `r` of the criterion over `sample_size` of them, the same number of each experience; if the
/// gradient `g` of the iteration points against it (`g·r < 0`), it becomes `g - (g·r / r·r)·r`.
///
/// Which samples are kept and drawn is decided by the generator of the run (Avalanche asks Python's
/// for the former). A sample of at least as many as there are experiences is always taken.
#[derive(Clone, Debug)]
pub struct Agem {
    patterns_per_exp: usize,
    sample_size: usize,
    memory: Memory,
    loaders: Vec<Endless>,
    reference: Vec<f32>,
    gradient: Vec<f32>,
}

impl Agem {
    /// A-GEM with a memory of so many samples of each experience, and so many for each reference
    /// gradient.
    pub fn new(patterns_per_exp: usize, sample_size: usize) -> Self {
        Agem {
            patterns_per_exp,
            sample_size,
            memory: Memory::default(),
            loaders: Vec::new(),
            reference: Vec::new(),
            gradient: Vec::new(),
        }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("agem"), tape, model, sgd)
    }
}

/// `a·b` in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

impl Plugin for Agem {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        let sizes = [
            ("patterns-per-exp", self.patterns_per_exp),
            ("sample-size", self.sample_size),
        ];
        match sizes.iter().find(|(_, size)| *size == 0) {
            Some((name, _)) => Err(Error::config(name, "at least 1", 0)),
            None => Ok(()),
        }
    }

    fn before_training_iteration(&mut self, s: &mut State) -> Result<()> {
        self.reference.clear();
        if self.loaders.is_empty() {
            return Ok(());
        }
        let each = (self.sample_size / self.loaders.len()).max(1);
        s.aside(|s| {
            for (dataset, loader) in self.memory.parts().zip(&mut self.loaders) {
                let n = dataset.len();
                let batch = loader.batch(n, each.min(n), s.tape.generator());
                s.append(dataset, Group::Train, batch.iter().map(|&i| i as usize));
            }
            let logits = s.forward(Mode::Train);
            let loss = s.criterion_loss(logits);
            s.tape.backward(loss);
            s.tape.gradients(&mut self.reference);
        });
        Ok(())
    }

    fn after_backward(&mut self, s: &mut State) -> Result<()> {
        s.tape.gradients(&mut self.gradient);
        let along = dot(&self.gradient, &self.reference);
        if along < 0.0 {
            let factor = (along / dot(&self.reference, &self.reference)) as f32;
            for (g, r) in self.gradient.iter_mut().zip(&self.reference) {
                *g -= factor * r;
            }
            s.tape.set_gradients(&self.gradient);
        }
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        if let Some(experience) = s.experience.as_ref().filter(|e| !e.dataset().is_empty()) {
            let generator = s.tape.generator();
            self.memory
                .store(experience, self.patterns_per_exp, generator);
            // Every loader begins anew, as in Avalanche.
            self.loaders = vec![Endless::default(); self.memory.parts().len()];
        }
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        self.memory.save(out);
        out.put("loaders", &self.loaders);
    }

    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.memory = Memory::load(from, trained)?;
        self.loaders = from.get("loaders")?;
        Ok(())
    }
}
