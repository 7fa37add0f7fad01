//! Incremental Classifier and Representation Learning (Rebuffi et al., CVPR 2017).

mod exemplars;

use exemplars::Exemplars;

use super::{Method, StrategyBuilder};
use crate::benchmarks::Experience;
use crate::data::ClassificationDataset;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::{Snapshot, Tensor};
use crate::tape::{Tape, Var, Weights};
use crate::template::{LossTerms, State};

/// Avalanche's `ICaRL` with a fixed memory. Three parts:
/// - each experience is trained on together with the exemplars of earlier classes, with a binary
///   cross-entropy for each output, whose targets for earlier classes are what the model said after
///   the experience before (the criterion is not used);
/// - after it the exemplars of its classes are chosen by herding: one after the other, so that the
///   mean of their normalised features comes nearest to that of the class; every class seen so far
///   keeps `ceil(mem_size / classes)` of them;
/// - evaluation takes the class whose exemplars' mean feature is nearest. The logits of an evaluation
///   are the negative distances; a class without exemplars is never nearest.
///
/// The model must have features and a head (see [`Backbone`](crate::nn::Backbone)). Exemplars go
/// through the transforms of training, where Avalanche keeps images that have gone through those of
/// evaluation. The teacher runs as in evaluation.
pub struct Icarl {
    mem_size: usize,
    exemplars: Exemplars,
    teacher: Option<Weights>,
    /// The mean feature of each class, by label; empty for a class without exemplars.
    means: Vec<Vec<f32>>,
}

/// The logit of a class without exemplars; distances between unit vectors are at most 2.
const FAR: f32 = -10.0;

impl Icarl {
    /// A builder for iCaRL; `mem_size` is the number of exemplars.
    pub fn builder(tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        StrategyBuilder::new(tape, Box::new(model), sgd, |b| {
            if b.model.backbone().is_none() {
                let wanted = "one with features and a head (a Backbone) for icarl";
                return Err(Error::config("model", wanted, "a model without"));
            }
            Ok(Box::new(Icarl {
                mem_size: b.mem_size,
                exemplars: Exemplars::default(),
                teacher: None,
                means: Vec::new(),
            }))
        })
    }

    fn find_means(&mut self, state: &mut State) {
        self.means.clear();
        for (class, dataset) in self.exemplars.datasets() {
            let class = class as usize;
            if self.means.len() <= class {
                self.means.resize(class + 1, Vec::new());
            }
            if !dataset.is_empty() {
                self.means[class] = exemplars::mean_feature(state, &dataset);
            }
        }
    }
}

/// `-ln σ(x)` for the target 1 and `-ln σ(-x)` for 0, in between in proportion.
fn binary_cross_entropy(x: f64, target: f64) -> f64 {
    x.max(0.0) - x * target + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Method for Icarl {
    fn name(&self) -> &'static str {
        "icarl"
    }

    fn train_dataset(&self, experience: &Experience) -> ClassificationDataset {
        let mut parts = vec![experience.dataset().clone()];
        parts.extend(self.exemplars.datasets().map(|(_, dataset)| dataset));
        ClassificationDataset::concat(&parts)
    }

    fn loss(&mut self, state: &mut State, logits: Var) -> Var {
        let shape = state.tape.shape(logits);
        let (n, width) = (shape.dim(0), shape.dim(1));
        let teacher = self.teacher.as_mut().map(|teacher| {
            if teacher.parameter_count() != state.tape.parameter_count() {
                teacher.fit(&state.tape);
            }
            let output = state.forward_with(teacher);
            let values = state.tape.value(output);
            values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>()
        });
        let known: Vec<usize> = (self.exemplars.classes().map(|c| c as usize))
            .filter(|&class| class < width)
            .collect();
        let labels = &state.mb_y;
        let loss = state.tape.host_loss(logits, |logits, gradient| {
            let mut targets = vec![0.0; n * width];
            for (i, &label) in labels.iter().enumerate() {
                targets[i * width + label as usize] = 1.0;
                if let Some(teacher) = &teacher {
                    for &class in &known {
                        targets[i * width + class] = sigmoid(teacher[i * width + class]);
                    }
                }
            }
            let count = logits.len().max(1) as f64;
            let pairs = logits.iter().zip(&targets);
            for (g, (x, t)) in gradient.iter_mut().zip(pairs.clone()) {
                *g = (sigmoid(*x) - t) / count;
            }
            pairs
                .map(|(x, t)| binary_cross_entropy(*x, *t))
                .sum::<f64>()
                / count
        });
        let total = state.tape.item(loss);
        state.set_loss(LossTerms {
            total,
            current: total,
            ..LossTerms::default()
        });
        loss
    }

    fn after_experience(&mut self, state: &mut State) -> Result<()> {
        let Some(experience) = state.experience.clone() else {
            return Ok(());
        };
        (self.exemplars).add(state, &experience, self.mem_size);
        self.find_means(state);
        self.teacher = Some(state.tape.weights());
        Ok(())
    }

    fn eval_output(&mut self, state: &mut State, logits: Var) -> Var {
        if self.means.is_empty() {
            return logits;
        }
        let width = state.tape.shape(logits).dim(1);
        let (features, size) = state.mini_batch_features();
        let mut scores = Vec::with_capacity(features.len() / size * width);
        for row in features.chunks_exact(size) {
            let row = exemplars::normalised(row);
            scores.extend((0..width).map(|class| {
                let mean = self.means.get(class).filter(|mean| mean.len() == size);
                mean.map_or(FAR, |mean| {
                    let squares = row.iter().zip(mean).map(|(a, b)| f64::from(a - b).powi(2));
                    -squares.sum::<f64>().sqrt() as f32
                })
            }));
        }
        state.replace_output(&scores, width)
    }

    fn save(&self, out: &mut Snapshot) {
        self.exemplars.save(out);
        if let Some(teacher) = &self.teacher {
            teacher.save(out, "teacher");
        }
        let sizes: Vec<usize> = self.means.iter().map(Vec::len).collect();
        out.put("sizes", &sizes);
        let all = self.means.concat();
        out.put_tensor("means", Tensor::F32(vec![all.len()], all));
    }

    fn load(&mut self, from: &Snapshot, trained: &[Experience]) -> Result<()> {
        self.exemplars = Exemplars::load(from, trained)?;
        self.teacher = (self.exemplars.classes().next().is_some())
            .then(|| Weights::load(from, "teacher"))
            .transpose()?;
        let (sizes, mut all): (Vec<usize>, _) = (from.get("sizes")?, from.f32s("means")?);
        self.means.clear();
        for size in sizes {
            let Some((own, rest)) = all.split_at_checked(size) else {
                return Err(Error::Checkpoint(
                    "the checkpoint's class means are cut".into(),
                ));
            };
            self.means.push(own.to_vec());
            all = rest;
        }
        Ok(())
    }
}
