//! The gradient of a weight as the product that it is, until somebody asks for its numbers.
//!
//! On a backend that can ([`Backend::DESCENDS`]), plain SGD subtracts the product from the weight in the pass
//! that computes it, so the gradient of a first layer, which is most of a small network, is neither written to
//! memory nor read from it. Whoever reads gradients sees the same numbers as ever: a reader computes them for
//! itself, a second writer and any other step of SGD has them computed first.

use super::{ParamId, Params};
use crate::backend::{Backend, Dst, Gemm, SgdStep, Src, View, ViewMut, Write};
use crate::graph::{Arena, Block, multiply};

/// A gradient `xᵀ·dy` that nobody has computed. Both blocks stay as they are until it is settled or the step
/// ends.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    pub weight: ParamId,
    pub x: Block,
    pub dy: Block,
    /// Of the product.
    pub dims: Gemm,
}

impl Pending {
    /// Computes the product.
    fn write<B: Backend>(&self, backend: &B, arena: &Arena<B>, gradient: Dst<'_, B>) {
        let dy = self.dy(arena);
        multiply(backend, arena, gradient, self.x, dy, self.dims, Write::Set);
    }

    fn dy<'a, B: Backend>(&self, arena: &'a Arena<B>) -> Src<'a, B> {
        arena.range(self.dy, 0, self.dims.k * self.dims.n)
    }
}

impl<B: Backend> Params<B> {
    /// Leaves a gradient, which [`write`](Self::write) has just said is to be set, as a product, if there is
    /// room for another such: there is for one.
    pub fn defer(&mut self, product: Pending) -> bool {
        let room = self.pending.is_none();
        if room {
            self.pending = Some(product);
        }
        room
    }

    /// Whether the pending product, if there is one, reads `block`.
    pub fn pending_reads(&self, block: Block) -> bool {
        self.pending.is_some_and(|p| p.x == block || p.dy == block)
    }

    /// Computes the pending gradient, if there is one.
    pub fn settle(&mut self, backend: &B, arena: &mut Arena<B>) {
        if let Some(product) = self.pending.take() {
            product.write(backend, arena, self.grad(product.weight));
            arena.give(product.dy);
        }
    }

    /// Makes the step of the pending gradient's weight, and returns the weight, if this step can be made
    /// without the gradient's numbers. Otherwise computes them.
    pub(super) fn descend(
        &mut self,
        backend: &B,
        arena: &mut Arena<B>,
        step: SgdStep,
    ) -> Option<ParamId> {
        let product = self.pending.filter(|p| self.trainable(p.weight))?;
        if step.momentum == 0.0 && step.weight_decay == 0.0 {
            let p = &mut self.params[product.weight.0 as usize];
            let weight = ViewMut {
                buf: &mut self.values,
                offset: p.offset,
                len: p.len,
            };
            let x = arena.factor(product.x, product.dims.k * product.dims.m);
            let dy = product.dy(arena);
            if backend.descend(weight, x, dy, product.dims, step.lr) {
                p.has_momentum = false;
                return Some(product.weight);
            }
        }
        self.settle(backend, arena);
        None
    }

    /// Copies the gradient of a parameter, which has one, as it is stored.
    pub(super) fn copy_grad(
        &self,
        backend: &B,
        arena: &Arena<B>,
        id: ParamId,
        out: &mut [B::Elem],
    ) {
        let (offset, len) = (self.param(id).offset, self.param(id).len);
        let Some(product) = self.pending.filter(|p| p.weight == id) else {
            let buf = &self.grads;
            return backend.download(View { buf, offset, len }, out);
        };
        let buf = backend.alloc(len);
        let mut buf = buf.unwrap_or_else(|error| std::panic::resume_unwind(Box::new(error)));
        let gradient = ViewMut {
            buf: &mut buf,
            offset: 0,
            len,
        };
        product.write(backend, arena, gradient);
        let (buf, offset) = (&buf, 0);
        backend.download(View { buf, offset, len }, out);
    }
}

#[cfg(test)]
mod tests;
