//! Learning without Forgetting (Li and Hoiem, ECCV 2016).

use std::collections::{BTreeMap, BTreeSet};

use super::{at_least_zero, named, preset};
use crate::benchmarks::Experience;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::optim::Sgd;
use crate::snapshot::Snapshot;
use crate::tape::{Tape, Var, Weights};
use crate::template::{Plugin, State};
use crate::training::StrategyBuilder;

/// Avalanche's `LwFPlugin`, and with [`builder`](Self::builder) its strategy `LwF`: from the second
/// experience on, adds `alpha·KL(teacher ‖ model)` to the loss. Teacher is the model as it was after
/// the experience before; both distributions are softmax over `logits / temperature`, restricted to
/// the units of classes seen before; mean over the mini-batch. (As in Avalanche, and other than in
/// Hinton's distillation, there is no factor `temperature²`.)
///
/// Where there are several task labels, each earlier task is distilled on its own, with the whole
/// mini-batch as if it were of that task: with several heads, all earlier heads.
///
/// Beside DER the mini-batch includes the replayed samples. The teacher runs as in evaluation:
/// Avalanche's copy stays in training mode, so that its dropout and its batch statistics disturb the
/// targets.
#[derive(Clone, Debug)]
pub struct Lwf {
    alpha: Vec<f32>,
    temperature: f32,
    teacher: Option<Weights>,
    /// The classes seen before, by task label.
    previous: BTreeMap<u32, BTreeSet<u32>>,
    experiences: usize,
}

impl Default for Lwf {
    /// Avalanche's defaults: `alpha` 1, `temperature` 2.
    fn default() -> Self {
        Lwf::new(1.0, 2.0)
    }
}

impl Lwf {
    /// LwF with this weight of the distillation and this temperature.
    pub fn new(alpha: f32, temperature: f32) -> Self {
        Lwf {
            alpha: vec![alpha],
            temperature,
            teacher: None,
            previous: BTreeMap::new(),
            experiences: 0,
        }
    }

    /// A weight for each experience; the last one also holds for all that follow.
    pub fn alphas(self, alpha: impl IntoIterator<Item = f32>) -> Self {
        let alpha = alpha.into_iter().collect();
        Lwf { alpha, ..self }
    }

    /// A builder for fine-tuning with this plugin.
    pub fn builder(self, tape: Tape, model: impl Module + 'static, sgd: Sgd) -> StrategyBuilder {
        preset(self, |_| named("lwf"), tape, model, sgd)
    }
}

/// `softmax(logits / temperature)` over `units` of one row, into `out`.
fn soften(row: &[f64], units: &[usize], temperature: f64, out: &mut Vec<f64>) {
    out.clear();
    out.extend(units.iter().map(|&u| row[u] / temperature));
    let largest = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    out.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f64 = out.iter().sum();
    out.iter_mut().for_each(|x| *x /= sum);
}

/// `mean_i Σ_j q_ij·(ln q_ij - ln p_ij)` with the teacher's `q` and the model's `p`, and its
/// derivative by the model's logits, `(p - q) / (temperature·n)`.
fn distillation(
    logits: &[f64],
    teacher: &[f64],
    width: usize,
    units: &[usize],
    temperature: f64,
    gradient: &mut [f64],
) -> f64 {
    let n = (logits.len() / width).max(1) as f64;
    let (mut p, mut q, mut sum) = (Vec::new(), Vec::new(), 0.0);
    let rows = logits.chunks_exact(width).zip(teacher.chunks_exact(width));
    for ((row, target), gradient) in rows.zip(gradient.chunks_exact_mut(width)) {
        soften(row, units, temperature, &mut p);
        soften(target, units, temperature, &mut q);
        for ((&unit, p), q) in units.iter().zip(&p).zip(&q) {
            // 0·ln 0 is 0, as in PyTorch.
            if *q > 0.0 {
                sum += q * (q.ln() - p.max(f64::MIN_POSITIVE).ln());
            }
            gradient[unit] = (p - q) / (temperature * n);
        }
    }
    sum / n
}

/// The distillation of the output `then` into `now`, restricted to the units of `classes`.
fn distil(tape: &mut Tape, now: Var, then: Var, classes: &BTreeSet<u32>, temperature: f64) -> Var {
    let width = tape.shape(now).dim(1);
    let targets: Vec<f64> = (tape.value(then).iter().map(|&x| f64::from(x))).collect();
    let units: Vec<usize> = (classes.iter().map(|&c| c as usize))
        .filter(|&unit| unit < width)
        .collect();
    tape.host_loss(now, |logits, gradient| {
        distillation(logits, &targets, width, &units, temperature, gradient)
    })
}

impl Plugin for Lwf {
    fn before_training(&mut self, _: &mut State) -> Result<()> {
        if self.alpha.is_empty() {
            return Err(Error::config("alpha", "at least one number", "none"));
        }
        (self.alpha.iter()).try_for_each(|&alpha| at_least_zero("alpha", alpha))?;
        if self.temperature > 0.0 && self.temperature.is_finite() {
            return Ok(());
        }
        Err(Error::config(
            "temperature",
            "a finite number above 0",
            self.temperature,
        ))
    }

    fn before_backward(&mut self, s: &mut State) -> Result<()> {
        let (Some(teacher), Some(loss), Some(logits)) =
            (&mut self.teacher, s.loss_var, s.mb_output)
        else {
            return Ok(());
        };
        if teacher.parameter_count() != s.tape.parameter_count() {
            teacher.fit(&s.tape);
        }
        let last = self.alpha.last();
        let alpha = self
            .alpha
            .get(self.experiences)
            .or(last)
            .copied()
            .unwrap_or(0.0);
        let tasks = self.previous.keys().chain(&s.mb_task_id);
        let one_task = tasks.collect::<BTreeSet<_>>().len() == 1;
        let mut loss = loss;
        for (&task, classes) in &self.previous {
            let (now, then) = match one_task {
                true => (logits, s.forward_with(teacher)),
                false => s.forward_task(task, teacher),
            };
            let term = distil(&mut s.tape, now, then, classes, f64::from(self.temperature));
            let term = s.tape.scale(term, alpha);
            loss = s.tape.add(loss, term);
        }
        s.loss_var = Some(loss);
        Ok(())
    }

    fn after_training_exp(&mut self, s: &mut State) -> Result<()> {
        let Some(experience) = &s.experience else {
            return Ok(());
        };
        self.experiences += 1;
        let dataset = experience.dataset();
        for i in 0..dataset.len() {
            let classes = self.previous.entry(dataset.task_label(i)).or_default();
            classes.insert(dataset.target(i));
        }
        self.teacher = Some(s.tape.weights());
        Ok(())
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("classes", &self.previous);
        out.put("experiences", &self.experiences);
        if let Some(teacher) = &self.teacher {
            teacher.save(out, "teacher");
        }
    }

    fn load(&mut self, from: &Snapshot, _: &[Experience]) -> Result<()> {
        self.previous = from.get("classes")?;
        self.experiences = from.get("experiences")?;
        self.teacher = None;
        if self.experiences > 0 {
            self.teacher = Some(Weights::load(from, "teacher")?);
        }
        Ok(())
    }
}
