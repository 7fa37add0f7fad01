//! The last gradient of the output of a batch normalisation, left until its backward pass.
//!
//! When the loop over the nodes comes to a convolution whose input a batch normalisation put out, the data gradient
//! may as well wait until it comes to that one: [`Backend::batch_norm_backward_after`] does the two together. Whoever
//! writes to the same gradient in between has it computed first.
//!
//! The gradient of the weight waits with it where it [goes along](Backend::weight_goes_along). It is computed into a block
//! of its own: gradients of parameters share one buffer, of which the normalisation writes another part.

use super::{Arena, Block, Graph, Lent, Op, ParamId, Var};
use crate::backend::{Backend, ConvBackward, Elem, Src, WeightGradient, Write};
use crate::shape::Conv;

/// Gradients of a convolution that nobody has computed. What they read stays until then.
#[derive(Clone, Copy)]
pub(crate) struct Deferred {
    /// The input, whose gradient has its block.
    pub x: Var,
    /// The gradient of the output.
    pub dy: Block,
    pub weight: ParamId,
    pub conv: Conv,
    /// How the gradient of the input is written.
    pub write: Write,
    /// Whether the gradient of the weight goes along.
    pub along: bool,
}

impl<B: Backend> Graph<B> {
    /// Leaves the gradients of a convolution, if a batch normalisation put its input out and it
    /// [pays](Backend::adds_up_after); returns whether it did.
    pub(crate) fn defer(&mut self, deferred: Deferred) -> bool {
        let normalised = matches!(self.peek(deferred.x).op, Op::BatchNorm { train: true, .. });
        let pays = normalised && self.backend.adds_up_after(deferred.conv);
        if pays {
            self.deferred.push(deferred);
        }
        pays
    }

    /// Takes the deferred gradient of `x`, if there is one. Whoever does computes it and
    /// [gives](Self::give_gradient) what it read back.
    pub(crate) fn take_deferred(&mut self, x: Var) -> Option<Deferred> {
        let at = self.deferred.iter().position(|deferred| deferred.x == x)?;
        Some(self.deferred.swap_remove(at))
    }

    /// Computes the deferred gradient of `x`, if there is one.
    pub(crate) fn settle(&mut self, x: Var) {
        if let Some(deferred) = self.take_deferred(x) {
            self.convolution_backward(deferred);
            self.give_gradient(deferred.dy);
        }
    }

    /// Computes gradients of a convolution.
    pub(crate) fn convolution_backward(&mut self, of: Deferred) {
        let mut dw = self.lend_along(&of);
        let block = self.peek(of.x).grad.expect("it has its block");
        let mut dx = self.arena.lend(block);
        let w = self.params.value(of.weight);
        let args = of.args(&self.arena, self.peek(of.x).value, w, dw.as_mut());
        self.backend.conv2d_backward(dx.view(), args);
        self.arena.restore(dx);
        self.add_along(&of, dw);
    }

    /// Where the gradient of the weight goes at first, if it goes along.
    pub(crate) fn lend_along(&mut self, of: &Deferred) -> Option<Lent<B::Buf>> {
        // Its input may be bytes.
        self.node(of.x);
        of.along.then(|| self.output(of.conv.weight_len()).1)
    }

    /// Adds what has gone along to the gradient of the weight.
    pub(crate) fn add_along(&mut self, of: &Deferred, dw: Option<Lent<B::Buf>>) {
        let Some(dw) = dw else { return };
        let block = dw.block();
        self.arena.restore(dw);
        if let Some(write) = self.write_of(of.weight) {
            let (to, from) = (self.params.grad(of.weight), self.arena.view(block));
            self.backend
                .scale_add(to, from, B::Elem::from_f64(1.0), write);
        }
        self.arena.give(block);
    }

    /// Gives back the block of a gradient that has been consumed, unless that of a weight is still to be made of it.
    pub(crate) fn give_gradient(&mut self, dy: Block) {
        if !self.params.pending_reads(dy) {
            self.arena.give(dy);
        }
    }
}

impl Deferred {
    /// As the backend wants it: with the value of `x`, the weight and where its gradient goes at first.
    pub(crate) fn args<'a, B: Backend>(
        &self,
        arena: &'a Arena<B>,
        x: Block,
        w: Src<'a, B>,
        dw: Option<&'a mut Lent<B::Buf>>,
    ) -> ConvBackward<'a, B::Buf> {
        ConvBackward {
            dy: arena.view(self.dy),
            w,
            conv: self.conv,
            write: self.write,
            weight: dw.map(|dw| WeightGradient {
                x: arena.range(x, 0, self.conv.input.len()),
                dw: dw.view(),
            }),
        }
    }
}
