//! The parameters and other state of the models on a tape.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::{MaskId, Norm, ParamId, ParamLayout, Tape, array, narrow};
use crate::backend::Elem;
use crate::error::{Error, Result};

impl Tape {
    /// Adds a parameter; `init` is in PyTorch's order.
    ///
    /// # Panics
    /// If the name is taken or the number of values does not fit.
    #[track_caller]
    pub fn parameter(&mut self, name: &str, layout: ParamLayout, init: &[f32]) -> ParamId {
        on!(self, g => g.parameter(name, layout, &Elem::from_f32s(init)))
    }

    /// Adds the parameters and running statistics of a batch normalisation. See [`Graph::norm`](crate::graph::Graph::norm).
    #[track_caller]
    pub fn norm(&mut self, name: &str, channels: usize, eps: f32, momentum: f32) -> Norm {
        on!(self, g => g.norm(name, channels, eps, momentum))
    }

    /// The parameters, in the order of creation.
    pub fn parameters(&self) -> Vec<ParamId> {
        on!(self, g => g.params.ids().collect())
    }

    /// The name of a parameter, as in PyTorch's state dict.
    pub fn parameter_name(&self, id: ParamId) -> &str {
        on!(self, g => g.params.name(id))
    }

    /// The values of a parameter, in PyTorch's shape and order.
    pub fn parameter_value(&self, id: ParamId) -> ArrayD<f32> {
        let values = on!(self, g => narrow(&g.params.read(&g.backend, id)));
        array(self.parameter_dims(id), values)
    }

    /// The gradient of a parameter in this step, if it has one.
    pub fn parameter_grad(&self, id: ParamId) -> Option<ArrayD<f32>> {
        let values =
            on!(self, g => g.params.read_grad(&g.backend, &g.arena, id).map(|x| narrow(&x)));
        values.map(|values| array(self.parameter_dims(id), values))
    }

    /// Overwrites a parameter.
    ///
    /// # Errors
    /// [`Error::StateDict`] if the shape differs.
    pub fn set_parameter(&mut self, id: ParamId, value: &ArrayD<f32>) -> Result<()> {
        let dims = self.parameter_dims(id);
        if value.shape() != dims {
            return Err(Error::StateDict(format!(
                "parameter {}: expected the shape {dims:?}, found {:?}; was it saved from another \
                 model?",
                self.parameter_name(id),
                value.shape()
            )));
        }
        let values: Vec<f32> = value.iter().copied().collect();
        on!(self, g => g.params.write_values(&g.backend, id, &Elem::from_f32s(&values)))
    }

    /// Gives a parameter another name, layout and values, as when a layer is replaced by another.
    /// See [`Graph::replace_parameter`](crate::graph::Graph::replace_parameter).
    #[track_caller]
    pub fn replace_parameter(
        &mut self,
        id: ParamId,
        name: &str,
        layout: ParamLayout,
        values: &[f32],
    ) {
        on!(self, g => g.replace_parameter(id, name, layout, &Elem::from_f32s(values)));
    }

    /// Grows a parameter: keeps its numbers in their places, and takes those of the new places from
    /// `fresh`, the values of a newly initialised one. See [`Graph::grow_parameter`](crate::graph::Graph::grow_parameter).
    #[track_caller]
    pub fn grow_parameter(&mut self, id: ParamId, layout: ParamLayout, fresh: &[f32]) {
        on!(self, g => g.grow_parameter(id, layout, &Elem::from_f32s(fresh)));
    }

    /// Gives a parameter another name.
    ///
    /// # Panics
    /// If another parameter has it.
    #[track_caller]
    pub fn rename_parameter(&mut self, id: ParamId, name: &str) {
        on!(self, g => g.params.rename(id, name));
    }

    /// Freezes or thaws a parameter (PyTorch's `requires_grad`).
    pub fn set_trainable(&mut self, id: ParamId, trainable: bool) {
        on!(self, g => g.params.set_trainable(id, trainable));
    }

    /// Whether a parameter is trained.
    pub fn is_trainable(&self, id: ParamId) -> bool {
        on!(self, g => g.params.trainable(id))
    }

    /// Puts `prefix` in front of the names of everything there is: parameters, running statistics
    /// and masks. For a model that becomes part of another.
    pub fn prefix_names(&mut self, prefix: &str) {
        on!(self, g => {
            g.params.prefix(prefix);
            g.masks.prefix(prefix);
        });
    }

    /// Adds a mask of `len` units, none of them in use: part of the state dict, as a boolean buffer
    /// is in PyTorch.
    ///
    /// # Panics
    /// If the name is taken.
    #[track_caller]
    pub fn mask(&mut self, name: &str, len: usize) -> MaskId {
        on!(self, g => g.masks.add(name, len))
    }

    /// Which units are in use.
    pub fn mask_units(&self, id: MaskId) -> &[bool] {
        on!(self, g => g.masks.units(id))
    }

    /// Overwrites a mask; it may get another length.
    pub fn set_mask_units(&mut self, id: MaskId, units: Vec<bool>) {
        on!(self, g => g.masks.set(id, units));
    }

    pub(super) fn parameter_dims(&self, id: ParamId) -> Vec<usize> {
        let shape = on!(self, g => g.params.layout(id).shape());
        shape.dims()[..shape.rank()].to_vec()
    }

    /// All parameters, running statistics and masks (1 for a unit in use, else 0) by PyTorch's names,
    /// each in the order of creation.
    pub fn state_dict(&self) -> Vec<(String, ArrayD<f32>)> {
        let mut out: Vec<_> = (self.parameters().into_iter())
            .map(|id| {
                (
                    self.parameter_name(id).to_string(),
                    self.parameter_value(id),
                )
            })
            .collect();
        for id in on!(self, g => g.params.buffer_ids().collect::<Vec<_>>()) {
            let (name, values) = on!(self, g => (
                g.params.buffer(id).0,
                narrow(&g.params.read_running(&g.backend, id)),
            ));
            let (mean, var) = values.split_at(values.len() / 2);
            out.push((
                format!("{name}.running_mean"),
                array(vec![mean.len()], mean.to_vec()),
            ));
            out.push((
                format!("{name}.running_var"),
                array(vec![var.len()], var.to_vec()),
            ));
        }
        on!(self, g => for id in g.masks.ids() {
            let units: Vec<f32> = g.masks.units(id).iter().map(|&u| f32::from(u8::from(u))).collect();
            out.push((g.masks.name(id).to_string(), array(vec![units.len()], units)));
        });
        out
    }

    /// For each batch normalisation, its name and how many batches its running statistics have
    /// seen (PyTorch's `num_batches_tracked`).
    pub fn batches(&self) -> Vec<(String, u64)> {
        on!(self, g => g.params.buffer_ids().map(|id| {
            let (name, _, batches) = g.params.buffer(id);
            (name.to_string(), batches)
        }).collect())
    }

    /// Loads what [`state_dict`](Self::state_dict) or PyTorch saved. Strict: each name must be
    /// there in its shape, and nothing else (`num_batches_tracked` may be there or not). Nothing
    /// is changed when it fails.
    ///
    /// # Errors
    /// [`Error::StateDict`] naming what is missing, unexpected or of another shape.
    pub fn load_state_dict(&mut self, state: &BTreeMap<String, ArrayD<f32>>) -> Result<()> {
        let mut unexpected: Vec<&str> = state.keys().map(String::as_str).collect();
        unexpected.retain(|name| !name.ends_with(".num_batches_tracked"));
        for (name, have) in self.state_dict() {
            let Some(value) = state.get(&name) else {
                return Err(Error::StateDict(format!(
                    "{name} is missing from the saved weights; were they saved from another model?"
                )));
            };
            if value.shape() != have.shape() {
                return Err(Error::StateDict(format!(
                    "{name}: expected the shape {:?}, found {:?}; were the weights saved from \
                     another model?",
                    have.shape(),
                    value.shape()
                )));
            }
            unexpected.retain(|other| *other != name);
        }
        if let Some(name) = unexpected.first() {
            return Err(Error::StateDict(format!(
                "the saved weights hold {name}, which this model does not have"
            )));
        }
        for id in self.parameters() {
            let name = self.parameter_name(id).to_string();
            self.set_parameter(id, &state[&name])?;
        }
        for id in on!(self, g => g.params.buffer_ids().collect::<Vec<_>>()) {
            let name = on!(&mut *self, g => g.params.buffer(id).0.to_string());
            let part = |what: &str| state[&format!("{name}.{what}")].iter().copied();
            let values: Vec<f32> = part("running_mean").chain(part("running_var")).collect();
            let batches = state
                .get(&format!("{name}.num_batches_tracked"))
                .and_then(|a| a.first())
                .map_or(0, |&b| b as u64);
            on!(self, g => {
                let values = Elem::from_f32s(&values);
                g.params.write_running(&g.backend, id, &values, batches);
            });
        }
        on!(self, g => for id in g.masks.ids() {
            let units = state[g.masks.name(id)].iter().map(|&unit| unit != 0.0).collect();
            g.masks.set(id, units);
        });
        Ok(())
    }
}
