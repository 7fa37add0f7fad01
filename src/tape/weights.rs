//! Parameters and gradients as flat vectors, and copies of a model's weights: what plugins compute
//! penalties, projections and targets with.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{ParamLayout, Tape};
use crate::backend::Elem;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::snapshot::{Snapshot, Tensor};

impl Tape {
    /// How many numbers the parameters hold together: the length of every flat vector.
    pub fn parameter_count(&self) -> usize {
        on!(self, g => g.params.flat_len())
    }

    /// Copies the values of all parameters into `out`, which is cleared first: one parameter after
    /// the other in the order of creation, each in an order of its own that is the same for values
    /// and gradients ([`parameter_ranges`](Self::parameter_ranges) says where each lies).
    ///
    /// ```
    /// use unforget::nn::Linear;
    /// use unforget::tape::{Device, Tape};
    ///
    /// let mut tape = Tape::new(Device::Cpu)?;
    /// Linear::new(&mut tape, "fc", 3, 2);
    /// let mut values = Vec::new();
    /// tape.parameters_flat(&mut values);
    /// assert_eq!(tape.parameter_ranges(), [("fc.weight".into(), 0..6), ("fc.bias".into(), 6..8)]);
    /// assert_eq!(values.len(), tape.parameter_count());
    /// # Ok::<(), unforget::Error>(())
    /// ```
    pub fn parameters_flat(&self, out: &mut Vec<f32>) {
        on!(self, g => {
            let mut values = Vec::new();
            g.params.read_flat(&g.backend, &mut values);
            out.clear();
            out.extend_from_slice(&Elem::to_f32s(&values));
        });
    }

    /// The name of each parameter and its place in the flat vectors.
    pub fn parameter_ranges(&self) -> Vec<(String, Range<usize>)> {
        let mut end = 0;
        on!(self, g => (g.params.layouts())
            .map(|(name, layout)| {
                let start = end;
                end += layout.shape().len();
                (name.to_string(), start..end)
            })
            .collect())
    }

    /// Overwrites all parameters with a flat vector.
    ///
    /// # Panics
    /// If it has another length than the parameters.
    #[track_caller]
    pub fn set_parameters_flat(&mut self, values: &[f32]) {
        on!(self, g => g.params.write_flat(&g.backend, &Elem::from_f32s(values)));
    }

    /// Copies the gradients of this step into `out`, which is cleared first, as a flat vector;
    /// zeros for parameters without a gradient.
    pub fn gradients(&self, out: &mut Vec<f32>) {
        on!(self, g => {
            let mut values = Vec::new();
            g.params.read_flat_grads(&g.backend, &g.arena, &mut values);
            out.clear();
            out.extend_from_slice(&Elem::to_f32s(&values));
        });
    }

    /// Overwrites the gradients of this step. A parameter that has none keeps none, so that the
    /// optimizer still leaves it alone.
    ///
    /// # Panics
    /// If `gradients` has another length than the parameters.
    #[track_caller]
    pub fn set_gradients(&mut self, gradients: &[f32]) {
        on!(self, g => g.params.write_flat_grads(&g.backend, &Elem::from_f32s(gradients)));
    }

    /// Adds a flat vector to the gradients of this step: the gradient of a penalty. Frozen
    /// parameters get nothing.
    ///
    /// # Panics
    /// If `gradients` has another length than the parameters.
    #[track_caller]
    pub fn add_gradients(&mut self, gradients: &[f32]) {
        on!(self, g => {
            let gradients = Elem::from_f32s(gradients);
            g.params.add_flat_grads(&g.backend, &mut g.arena, &gradients);
        });
    }

    /// Forgets the parameter gradients of this step (PyTorch's `zero_grad`); its values stay.
    pub fn zero_grad(&mut self) {
        on!(self, g => g.params.zero_grad());
    }

    /// Forgets the momentum of all parameters, as a new optimizer would have none.
    pub fn reset_momentum(&mut self) {
        on!(self, g => g.params.forget_momentum());
    }

    /// A copy of the model's weights and running statistics.
    pub fn weights(&self) -> Weights {
        let mut running = Vec::new();
        on!(self, g => for id in g.params.buffer_ids() {
            let (name, _, batches) = g.params.buffer(id);
            let values = g.params.read_running(&g.backend, id);
            running.push(Running {
                name: name.to_string(),
                values: values.into_iter().map(Elem::to_f32).collect(),
                batches,
            });
        });
        Weights {
            parameters: Flat::parameters(self),
            running,
        }
    }

    /// Overwrites the model's weights and running statistics. Units that the model has got since
    /// keep the weights they have.
    pub fn set_weights(&mut self, weights: &Weights) {
        let mut now = self.weights();
        now.take_over(weights);
        self.set_parameters_flat(&now.parameters.values);
        on!(self, g => for (id, own) in g.params.buffer_ids().zip(&now.running) {
            let values: Vec<_> = own.values.iter().map(|&x| Elem::from_f32(x)).collect();
            g.params.write_running(&g.backend, id, &values, own.batches);
        });
    }

    /// Runs `work` with other weights and running statistics, and puts the own ones back, to the
    /// last bit. Meant for forward passes with [`no_grad`](Self::no_grad), which may be part of a
    /// running step.
    ///
    /// # Panics
    /// If the weights are of another model; see [`Weights::fit`].
    #[track_caller]
    pub fn with_weights<T>(&mut self, other: &Weights, work: impl FnOnce(&mut Tape) -> T) -> T {
        let running: Vec<f32> = (other.running.iter())
            .flat_map(|r| r.values.iter().copied())
            .collect();
        let values = &other.parameters.values;
        on!(self, g => {
            let (values, running) = (Elem::from_f32s(values), Elem::from_f32s(&running));
            g.params.other_weights(&g.backend, &values, &running);
        });
        // Running out of memory unwinds: the own weights come back then, too.
        let work = std::panic::AssertUnwindSafe(|| work(self));
        let result = std::panic::catch_unwind(work);
        on!(self, g => g.params.own_weights());
        result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }

    /// Runs `work` without recording anything for the backward pass of the running step, and as in
    /// evaluation: no dropout, running statistics. (PyTorch's `no_grad` together with `eval`.)
    pub fn no_grad<T>(&mut self, work: impl FnOnce(&mut Tape) -> T) -> T {
        let mode = std::mem::replace(on!(self, g => &mut g.mode), super::Mode::Eval);
        let result = work(self);
        *on!(self, g => &mut g.mode) = mode;
        result
    }
}

/// A number for each number of the parameters, such as an importance or an earlier value. Knows
/// which parameter is which, so that it follows a model whose layers grow, and can be kept in a
/// snapshot.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Flat {
    layouts: Vec<(String, ParamLayout)>,
    /// The numbers, in the order of [`Tape::parameters_flat`].
    pub values: Vec<f32>,
}

impl Flat {
    /// Zeros for the parameters of `tape`.
    pub fn zeros(tape: &Tape) -> Self {
        Flat {
            layouts: on!(tape, g => g.params.layouts().map(|(n, l)| (n.to_string(), l)).collect()),
            values: vec![0.0; tape.parameter_count()],
        }
    }

    /// The values of the parameters of `tape`.
    pub fn parameters(tape: &Tape) -> Self {
        let mut out = Flat::zeros(tape);
        tape.parameters_flat(&mut out.values);
        out
    }

    /// Makes room for the parameters that `tape` has now. Numbers stay with their parameter and
    /// their unit; what is new is zero (Avalanche's `ParamData.expand`).
    pub fn fit(&mut self, tape: &Tape) {
        let mut fitted = Flat::zeros(tape);
        if fitted.layouts != self.layouts {
            fitted.take_over(self);
            *self = fitted;
        }
    }

    /// Overwrites the numbers that `other` has, too.
    fn take_over(&mut self, other: &Flat) {
        if self.layouts == other.layouts {
            self.values.copy_from_slice(&other.values);
            return;
        }
        let mut start = 0;
        let places: BTreeMap<&str, (usize, ParamLayout)> = (self.layouts.iter())
            .map(|(name, layout)| {
                let at = start;
                start += layout.shape().len();
                (name.as_str(), (at, *layout))
            })
            .collect();
        let mut from = 0;
        for (name, layout) in &other.layouts {
            let shape = layout.shape();
            if let Some(&(to, new)) = places.get(name.as_str()) {
                for i in 0..shape.len() {
                    if let Some(moved) = moved(i, shape, new.shape()) {
                        self.values[to + new.stored_at(moved)] =
                            other.values[from + layout.stored_at(i)];
                    }
                }
            }
            from += shape.len();
        }
    }

    /// Keeps the numbers in the part `name` of a snapshot.
    pub fn save(&self, out: &mut Snapshot, name: &str) {
        let out = out.child(name);
        let layouts: Vec<_> = (self.layouts.iter())
            .map(|(name, layout)| {
                let kind = match layout {
                    ParamLayout::Plain(_) => "plain",
                    ParamLayout::Linear { .. } => "linear",
                    ParamLayout::Conv { .. } => "conv",
                };
                let shape = layout.shape();
                (name, kind, shape.dims()[..shape.rank()].to_vec())
            })
            .collect();
        out.put("layouts", &layouts);
        let values = Tensor::F32(vec![self.values.len()], self.values.clone());
        out.put_tensor("values", values);
    }

    /// Reads what [`save`](Self::save) kept.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is missing or does not fit its own list of parameters.
    pub fn load(from: &Snapshot, name: &str) -> Result<Self> {
        let from = from.at(name);
        let kept: Vec<(String, String, Vec<usize>)> = from.get("layouts")?;
        let bad = || Error::Checkpoint(format!("the checkpoint's \"{name}\" does not fit itself"));
        let mut left = from.f32s("values")?.len();
        let mut layouts = Vec::new();
        for (name, kind, dims) in kept {
            // Checked before a shape is made of them: a shape panics on what it cannot hold.
            let len = (dims.iter()).try_fold(1_usize, |len, &d| len.checked_mul(d));
            let fits = dims.len() <= 4 && dims.iter().all(|&d| u32::try_from(d).is_ok());
            left = (left.checked_sub(len.ok_or_else(bad)?).filter(|_| fits)).ok_or_else(bad)?;
            let layout = match (kind.as_str(), dims.as_slice()) {
                ("plain", dims) => ParamLayout::Plain(Shape::new(dims)),
                ("linear", &[outputs, inputs]) => ParamLayout::Linear { inputs, outputs },
                ("conv", &[outputs, inputs, kh, kw]) => ParamLayout::Conv {
                    outputs,
                    inputs,
                    kernel: [kh, kw],
                },
                _ => return Err(bad()),
            };
            layouts.push((name, layout));
        }
        let values = from.f32s("values")?.to_vec();
        if left == 0 {
            Ok(Flat { layouts, values })
        } else {
            Err(bad())
        }
    }
}

/// Where number `i` of a tensor of shape `from` lies in one of shape `to`, both in PyTorch's order;
/// `None` if there is no such place.
fn moved(i: usize, from: Shape, to: Shape) -> Option<usize> {
    let (mut rest, mut stride, mut out) = (i, 1, 0);
    for axis in (0..4).rev() {
        let at = rest % from.dim(axis);
        if at >= to.dim(axis) {
            return None;
        }
        out += at * stride;
        rest /= from.dim(axis);
        stride *= to.dim(axis);
    }
    (from.rank() == to.rank()).then_some(out)
}

/// Running statistics of one batch normalisation.
#[derive(Clone, PartialEq, Debug)]
struct Running {
    name: String,
    values: Vec<f32>,
    batches: u64,
}

/// A copy of a model's weights with the running statistics of its batch normalisations: a teacher,
/// the best model so far, the weights at the start. See [`Tape::weights`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Weights {
    parameters: Flat,
    running: Vec<Running>,
}

impl Weights {
    /// How many numbers the parameters hold together.
    pub fn parameter_count(&self) -> usize {
        self.parameters.values.len()
    }

    /// Makes room for what the model on `tape` has got since the copy was made; new units get zeros,
    /// new running statistics those of the model.
    pub fn fit(&mut self, tape: &Tape) {
        let mut fitted = tape.weights();
        fitted.parameters.values.fill(0.0);
        fitted.take_over(self);
        *self = fitted;
    }

    /// Adds `factor` times a flat vector to the parameters.
    ///
    /// # Panics
    /// If it has another length than the parameters.
    #[track_caller]
    pub fn add_scaled(&mut self, factor: f32, direction: &[f32]) {
        let own = &mut self.parameters.values;
        assert_eq!(own.len(), direction.len(), "add_scaled: a flat vector");
        own.iter_mut()
            .zip(direction)
            .for_each(|(w, d)| *w += factor * d);
    }

    fn take_over(&mut self, other: &Weights) {
        self.parameters.take_over(&other.parameters);
        for own in &mut self.running {
            if let Some(theirs) = other.running.iter().find(|r| r.name == own.name) {
                own.clone_from(theirs);
            }
        }
    }

    /// Keeps the weights in the part `name` of a snapshot.
    pub fn save(&self, out: &mut Snapshot, name: &str) {
        let out = out.child(name);
        self.parameters.save(out, "parameters");
        let counts: Vec<_> = (self.running.iter())
            .map(|r| (r.name.as_str(), r.batches))
            .collect();
        out.put("running", &counts);
        for r in &self.running {
            let values = Tensor::F32(vec![r.values.len()], r.values.clone());
            out.put_tensor(&r.name, values);
        }
    }

    /// Reads what [`save`](Self::save) kept.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is missing or does not fit its own list of parameters.
    pub fn load(from: &Snapshot, name: &str) -> Result<Self> {
        let from = from.at(name);
        let counts: Vec<(String, u64)> = from.get("running")?;
        let running = (counts.into_iter())
            .map(|(name, batches)| {
                let values = from.f32s(&name)?.to_vec();
                Ok(Running {
                    name,
                    values,
                    batches,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Weights {
            parameters: Flat::load(from, "parameters")?,
            running,
        })
    }
}

#[cfg(test)]
mod tests;
