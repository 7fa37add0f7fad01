//! The state of the engine between two steps, for checkpoints.

use serde::{Deserialize, Serialize};

use super::{Device, ParamId, Tape, array, narrow};
use crate::backend::Elem;
use crate::error::{Error, Result};
use crate::snapshot::{Snapshot, Tensor};

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
struct Scalars {
    device: String,
    generator: Vec<u8>,
    train_steps: u64,
    frozen: Vec<String>,
    batches: Vec<(String, u64)>,
}

/// Names of parameters have dots, names in a snapshot have no slashes: they never collide.
const MODEL: &str = "model";
const MOMENTUM: &str = "momentum";

impl Tape {
    /// Where it computes.
    pub fn device(&self) -> Device {
        match self {
            Tape::Cpu(_) => Device::Cpu,
            Tape::Reference(_) => Device::Reference,
            #[cfg(feature = "cuda")]
            Tape::Cuda(g) => Device::Cuda(g.backend.ordinal()),
        }
    }

    /// Writes parameters, running statistics, momentum, generator and step count: everything that
    /// later steps depend on. Call it between steps.
    pub fn save(&self, out: &mut Snapshot) {
        for (name, value) in self.state_dict() {
            let dims = value.shape().to_vec();
            let values = value.into_iter().collect();
            out.child(MODEL)
                .put_tensor(&name, Tensor::F32(dims, values));
        }
        for id in self.parameters() {
            if let Some(momentum) = self.momentum(id) {
                let dims = self.parameter_dims(id);
                let name = self.parameter_name(id).to_string();
                out.child(MOMENTUM)
                    .put_tensor(&name, Tensor::F32(dims, momentum));
            }
        }
        let frozen = (self.parameters().into_iter())
            .filter(|&id| !on!(self, g => g.params.trainable(id)))
            .map(|id| self.parameter_name(id).to_string())
            .collect();
        out.put(
            "engine",
            &Scalars {
                device: format!("{:?}", self.device()),
                generator: on!(self, g => g.generator.state()),
                train_steps: on!(self, g => g.train_steps),
                frozen,
                batches: self.batches(),
            },
        );
    }

    /// Goes on from where [`save`](Self::save) was called. The parameters must be there already,
    /// made by building the same model.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] and [`Error::StateDict`] if the snapshot is not of this model;
    /// [`Error::Checkpoint`] on the oracle, whose 64-bit numbers are not kept.
    pub fn load(&mut self, from: &Snapshot) -> Result<()> {
        let scalars: Scalars = from.get("engine")?;
        let device = format!("{:?}", self.device());
        if scalars.device != device || self.device() == Device::Reference {
            return Err(Error::Checkpoint(format!(
                "the checkpoint was made on the device {}, this run computes on {device}; \
                 checkpoints are exact on one device only, and not kept for the oracle",
                scalars.device
            )));
        }
        let model = from.at(MODEL);
        let mut state = std::collections::BTreeMap::new();
        for (name, tensor) in &model.tensors {
            if let Tensor::F32(dims, values) = tensor {
                state.insert(name.clone(), array(dims.clone(), values.clone()));
            }
        }
        for (name, count) in &scalars.batches {
            // Exact in f32 up to 2^24, and nothing is computed from it.
            state.insert(
                format!("{name}.num_batches_tracked"),
                array(vec![], vec![*count as f32]),
            );
        }
        self.load_state_dict(&state)?;
        for id in self.parameters() {
            let name = self.parameter_name(id).to_string();
            self.set_momentum(id, from.at(MOMENTUM).f32s(&name).ok())?;
            self.set_trainable(id, !scalars.frozen.contains(&name));
        }
        on!(self, g => {
            g.generator.set_state(&scalars.generator)?;
            g.train_steps = scalars.train_steps;
        });
        Ok(())
    }

    /// The momentum of a parameter in PyTorch's order, if it has one yet.
    pub fn momentum(&self, id: ParamId) -> Option<Vec<f32>> {
        on!(self, g => g.params.read_momentum(&g.backend, id).map(|m| narrow(&m)))
    }

    fn set_momentum(&mut self, id: ParamId, values: Option<&[f32]>) -> Result<()> {
        on!(self, g => {
            let values = values.map(Elem::from_f32s);
            g.params.write_momentum(&g.backend, id, values.as_deref())
        })
    }
}
