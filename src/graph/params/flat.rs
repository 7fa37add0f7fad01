//! All parameters, or all gradients, as one vector on the host: what regularisation and gradient
//! projection compute with.
//!
//! The vector holds the parameters one after the other in the order of creation, without the gaps of
//! the buffers, each in the order in which it is stored: a copy, never a permutation.

use super::{ParamId, ParamLayout, Params, grow};
use crate::backend::{Backend, Elem, View, ViewMut, Write};
use crate::graph::Arena;

impl<B: Backend> Params<B> {
    /// How many numbers the parameters hold together.
    pub fn flat_len(&self) -> usize {
        self.params.iter().map(|p| p.len).sum()
    }

    /// Name and layout of each parameter, in the order of creation.
    pub fn layouts(&self) -> impl Iterator<Item = (&str, ParamLayout)> {
        self.params.iter().map(|p| (p.name.as_str(), p.layout))
    }

    /// The values.
    pub fn read_flat(&self, backend: &B, out: &mut Vec<B::Elem>) {
        self.gather(out, |id, out| backend.download(self.value(id), out));
    }

    /// The gradients of the step; zeros for a parameter that has none.
    pub fn read_flat_grads(&self, backend: &B, arena: &Arena<B>, out: &mut Vec<B::Elem>) {
        self.gather(out, |id, out| {
            if self.param(id).written {
                self.copy_grad(backend, arena, id, out);
            }
        });
    }

    /// Calls `fill` with each parameter and the place of its numbers, which are zeros before.
    fn gather(&self, out: &mut Vec<B::Elem>, fill: impl Fn(ParamId, &mut [B::Elem])) {
        out.clear();
        for id in self.ids() {
            let start = out.len();
            out.resize(start + self.param(id).len, B::Elem::default());
            fill(id, &mut out[start..]);
        }
    }

    /// Overwrites the values.
    #[track_caller]
    pub fn write_flat(&mut self, backend: &B, values: &[B::Elem]) {
        self.demand_flat_len(values.len());
        scatter(&mut self.values, backend, self.params.iter(), values);
    }

    /// Overwrites the gradients of the parameters that have one in this step.
    #[track_caller]
    pub fn write_flat_grads(&mut self, backend: &B, values: &[B::Elem]) {
        self.demand_flat_len(values.len());
        self.pending = None;
        let mut rest = values;
        for p in &self.params {
            let (own, after) = rest.split_at(p.len);
            rest = after;
            if p.written {
                scatter(&mut self.grads, backend, [p], own);
            }
        }
    }

    /// Adds to the gradients of all parameters that are trained; one without a gradient gets these
    /// numbers as its gradient.
    #[track_caller]
    pub fn add_flat_grads(&mut self, backend: &B, arena: &mut Arena<B>, values: &[B::Elem]) {
        self.demand_flat_len(values.len());
        self.settle(backend, arena);
        self.make_room(backend);
        grow(backend, &mut self.spare[0], 0, self.len);
        scatter(&mut self.spare[0], backend, self.params.iter(), values);
        for p in self.params.iter_mut().filter(|p| p.trainable) {
            let (offset, len) = (p.offset, p.len);
            let dst = ViewMut {
                buf: &mut self.grads,
                offset,
                len,
            };
            let src = View {
                buf: &self.spare[0],
                offset,
                len,
            };
            let write = if p.written { Write::Add } else { Write::Set };
            backend.scale_add(dst, src, B::Elem::from_f64(1.0), write);
            p.written = true;
        }
    }

    /// Forgets the momentum of every parameter.
    pub fn forget_momentum(&mut self) {
        self.params.iter_mut().for_each(|p| p.has_momentum = false);
    }

    /// Puts these values and running statistics in the place of the own ones, which are kept until
    /// [`own_weights`](Self::own_weights) brings them back, to the last bit.
    #[track_caller]
    pub fn other_weights(&mut self, backend: &B, values: &[B::Elem], running: &[B::Elem]) {
        self.demand_flat_len(values.len());
        assert_eq!(
            running.len(),
            self.running_len,
            "running statistics of other weights"
        );
        grow(backend, &mut self.spare[0], 0, self.len);
        grow(backend, &mut self.spare[1], 0, self.running_len);
        scatter(&mut self.spare[0], backend, self.params.iter(), values);
        let dst = ViewMut {
            buf: &mut self.spare[1],
            offset: 0,
            len: running.len(),
        };
        backend.upload(dst, running);
        self.own_weights();
    }

    /// Undoes [`other_weights`](Self::other_weights).
    pub fn own_weights(&mut self) {
        let [values, running] = &mut self.spare;
        std::mem::swap(&mut self.values, values);
        std::mem::swap(&mut self.running, running);
    }

    #[track_caller]
    fn demand_flat_len(&self, len: usize) {
        assert_eq!(
            len,
            self.flat_len(),
            "a flat vector holds one number for each number of the parameters"
        );
    }
}

/// Copies `values` to the places of `params`, one parameter after the other.
fn scatter<'a, B: Backend>(
    buf: &mut B::Buf,
    backend: &B,
    params: impl IntoIterator<Item = &'a super::Param>,
    values: &[B::Elem],
) {
    let mut rest = values;
    for p in params {
        let (own, after) = rest.split_at(p.len);
        rest = after;
        let (offset, len) = (p.offset, p.len);
        backend.upload(ViewMut { buf, offset, len }, own);
    }
}
