//! The last gradient of the output of a batch normalisation, left until its backward pass.
//!
//! When the loop over the nodes comes to a convolution whose input a batch normalisation put out, the data gradient
//! may as well wait until it comes to that one: [`Backend::batch_norm_backward_after`] does the two together. Whoever
//! writes to the same gradient in between has it computed first.

use super::{Block, Graph, Op, ParamId, Var};
use crate::backend::{Backend, Write};
use crate::shape::Conv;

/// The data gradient of a convolution that nobody has computed. What it reads stays until then.
#[derive(Clone, Copy)]
pub(crate) struct Deferred {
    /// Whose gradient it is; its block is taken.
    pub x: Var,
    /// The gradient of the output of the convolution.
    pub dy: Block,
    pub weight: ParamId,
    pub conv: Conv,
    /// How it is written.
    pub write: Write,
}

impl<B: Backend> Graph<B> {
    /// Leaves the gradient that a convolution sends to `x`, if a batch normalisation put `x` out and it
    /// [pays](Backend::adds_up_after); returns whether it did.
    pub(crate) fn defer(&mut self, x: Var, dy: Block, weight: ParamId, conv: Conv) -> bool {
        let normalised = matches!(self.peek(x).op, Op::BatchNorm { train: true, .. });
        let pays = normalised && self.backend.adds_up_after(conv);
        let Some((lent, write)) = pays.then(|| self.grad_of(x)).flatten() else {
            return false;
        };
        self.arena.restore(lent);
        self.deferred.push(Deferred {
            x,
            dy,
            weight,
            conv,
            write,
        });
        true
    }

    /// Takes the deferred gradient of `x`, if there is one. Whoever does computes it and
    /// [gives](Self::give_gradient) what it read back.
    pub(crate) fn take_deferred(&mut self, x: Var) -> Option<Deferred> {
        let at = self.deferred.iter().position(|deferred| deferred.x == x)?;
        Some(self.deferred.swap_remove(at))
    }

    /// Computes the deferred gradient of `x`, if there is one.
    pub(crate) fn settle(&mut self, x: Var) {
        let Some(deferred) = self.take_deferred(x) else {
            return;
        };
        let block = self.peek(x).grad.expect("taken when it was deferred");
        let mut dx = self.arena.lend(block);
        let (dy, w) = (
            self.arena.view(deferred.dy),
            self.params.value(deferred.weight),
        );
        self.backend
            .conv2d_backward_data(dx.view(), dy, w, deferred.conv, deferred.write);
        self.arena.restore(dx);
        self.give_gradient(deferred.dy);
    }

    /// Gives back the block of a gradient that has been consumed, unless that of a weight is still to be made of it.
    pub(crate) fn give_gradient(&mut self, dy: Block) {
        if !self.params.pending_reads(dy) {
            self.arena.give(dy);
        }
    }
}
