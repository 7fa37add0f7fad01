//! Weights, running statistics and masks by PyTorch's names.

use super::{Tape, array, narrow, wide};
use crate::error::{Error, Result};
use ndarray::ArrayD;
use std::collections::BTreeMap;

impl Tape {
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
            let (name, values) = match self {
                Tape::Cpu(g) => (g.params.buffer(id).0, g.params.read_running(&g.backend, id)),
                Tape::Reference(g) => (
                    g.params.buffer(id).0,
                    narrow(&g.params.read_running(&g.backend, id)),
                ),
            };
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
            match self {
                Tape::Cpu(g) => g.params.write_running(&g.backend, id, &values, batches),
                Tape::Reference(g) => {
                    g.params
                        .write_running(&g.backend, id, &wide(&values), batches);
                }
            }
        }
        on!(self, g => for id in g.masks.ids() {
            let units = state[g.masks.name(id)].iter().map(|&unit| unit != 0.0).collect();
            g.masks.set(id, units);
        });
        Ok(())
    }
}
