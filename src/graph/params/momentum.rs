//! Momentum in and out, for checkpoints.

use super::{ParamId, Params};
use crate::backend::{Backend, ViewMut};
use crate::error::Result;

impl<B: Backend> Params<B> {
    /// The momentum in PyTorch's order, or `None` if there is none yet.
    pub fn read_momentum(&self, backend: &B, id: ParamId) -> Option<Vec<B::Elem>> {
        self.param(id)
            .has_momentum
            .then(|| self.read_from(backend, &self.momentum, id))
    }

    /// Overwrites the momentum, or forgets it.
    ///
    /// # Errors
    /// [`crate::Error::StateDict`] if the number of values differs.
    pub fn write_momentum(
        &mut self,
        backend: &B,
        id: ParamId,
        torch: Option<&[B::Elem]>,
    ) -> Result<()> {
        if let Some(torch) = torch {
            let stored = self.fitting(id, torch)?;
            self.make_room_for_momentum(backend);
            let (offset, len) = (self.param(id).offset, self.param(id).len);
            let place = ViewMut {
                buf: &mut self.momentum,
                offset,
                len,
            };
            backend.upload(place, &stored);
        }
        self.params[id.0 as usize].has_momentum = torch.is_some();
        Ok(())
    }
}
