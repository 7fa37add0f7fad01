//! Two-dimensional convolution, `Y = X * W (+ b)`, with any kernel, stride and zero padding.
//!
//! `y[o, p] = Σ_{i, t} x[i, p·stride + t - padding]·w[o, i, t] + b[o]` (PyTorch's `Conv2d`, a
//! cross-correlation). Backward: the data gradient sends `dy·w` back along the same taps, the weight
//! gradient sums `x·dy` over samples and positions, the bias gradient sums `dy`.

use crate::backend::Backend;
use crate::graph::{Block, Deferred, Graph, Op, Order, ParamId, ParamLayout, Var};
use crate::shape::Conv;

impl<B: Backend> Graph<B> {
    /// Convolution of `x` (`[N, C, H, W]`) with a weight created with [`ParamLayout::Conv`].
    ///
    /// # Panics
    /// If the shapes do not fit or the padded image is smaller than the kernel.
    #[track_caller]
    pub fn conv2d(
        &mut self,
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> Var {
        let (x, conv) = self.convolution(x, weight, stride, padding);
        let (value, mut y) = self.output(conv.output().len());
        let images = self.node(x).value;
        let source = self.arena.range(images, 0, conv.input.len());
        self.backend
            .conv2d(y.view(), source, self.params.value(weight), conv);
        if let Some(bias) = bias {
            self.backend
                .add_bias(y.view(), self.params.value(bias), conv.out_c);
        }
        self.arena.restore(y);
        self.push_convolution(x, weight, bias, conv, value)
    }

    /// The convolution of `x` with `weight`, and `x` in the order that it wants.
    #[track_caller]
    pub(super) fn convolution(
        &mut self,
        x: Var,
        weight: ParamId,
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> (Var, Conv) {
        let name = self.params.name(weight);
        let ParamLayout::Conv {
            outputs,
            inputs,
            kernel,
        } = self.params.layout(weight)
        else {
            panic!("conv2d: parameter {name} is not the weight of a convolution");
        };
        let shape = self.shape(x);
        assert!(
            shape.rank() == 4 && shape.dim(1) == inputs,
            "conv2d {name}: expected an input of shape [N, {inputs}, H, W], found {shape}"
        );
        let conv = Conv {
            input: shape.images(),
            out_c: outputs,
            kernel,
            stride,
            padding,
        };
        assert!(
            conv.output().pixels() > 0 && stride.iter().all(|&s| s > 0),
            "conv2d {name}: a kernel of {kernel:?} with stride {stride:?} and padding {padding:?} \
             does not fit an input of shape {shape}"
        );
        (self.spatial(x), conv)
    }

    /// Records a convolution whose output lies, or is about to lie, in `value`.
    pub(super) fn push_convolution(
        &mut self,
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        conv: Conv,
        value: Block,
    ) -> Var {
        let own = self.trains(&[Some(weight), bias]);
        let op = Op::Conv2d {
            x,
            weight,
            bias,
            conv,
        };
        let shape = conv.output().shape();
        self.push(op, shape, Order::Spatial, value, &[x], own)
    }

    /// Returns whether `dy` has been consumed: the data gradient may wait, and that of the weight with it.
    pub(super) fn conv2d_backward(
        &mut self,
        x: Var,
        weight: ParamId,
        bias: Option<ParamId>,
        conv: Conv,
        dy: Block,
    ) -> bool {
        let wanted = self.peek(x).needs_grad;
        let along = wanted && self.trains(&[Some(weight)]) && self.backend.weight_goes_along(conv);
        let images = self.node(x).value;
        if let Some(write) = (!along).then(|| self.write_of(weight)).flatten() {
            let source = self.arena.range(images, 0, conv.input.len());
            let (dw, gradient) = (self.params.grad(weight), self.arena.view(dy));
            self.backend
                .conv2d_backward_weight(dw, source, gradient, conv, write);
        }
        if let Some((bias, write)) = bias.and_then(|b| Some((b, self.write_of(b)?))) {
            let gradient = self.arena.view(dy);
            self.backend
                .sum_rows(self.params.grad(bias), gradient, conv.out_c, write);
        }
        let Some((dx, write)) = self.grad_of(x) else {
            return true;
        };
        self.arena.restore(dx);
        let rest = Deferred {
            x,
            dy,
            weight,
            conv,
            write,
            along,
        };
        if self.defer(rest) {
            return false;
        }
        self.convolution_backward(rest);
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::ParamLayout;
    use crate::ops::gradcheck::Check;
    use crate::shape::Shape;

    #[test]
    fn conv2d_gradient() {
        for (kernel, stride, padding) in [
            ([3, 3], [1, 1], [1, 1]),
            ([3, 3], [2, 2], [1, 1]),
            ([1, 1], [2, 2], [0, 0]),
            ([2, 3], [2, 1], [1, 0]),
            ([5, 5], [1, 1], [0, 0]),
        ] {
            Check::new("conv2d")
                .input(&[2, 3, 6, 5])
                .param(ParamLayout::Conv {
                    outputs: 4,
                    inputs: 3,
                    kernel,
                })
                .param(ParamLayout::Plain(Shape::new(&[4])))
                .run(|g, v, p| g.conv2d(v[0], p[0], Some(p[1]), stride, padding));
        }
    }

    #[test]
    fn conv2d_gradient_with_everything_used_twice() {
        Check::new("conv2d, input and weight used twice")
            .input(&[2, 2, 4, 4])
            .param(ParamLayout::Conv {
                outputs: 2,
                inputs: 2,
                kernel: [3, 3],
            })
            .run(|g, v, p| {
                let once = g.conv2d(v[0], p[0], None, [1, 1], [1, 1]);
                let twice = g.conv2d(once, p[0], None, [1, 1], [1, 1]);
                let sum = g.add(twice, once);
                g.add(sum, v[0])
            });
    }
}
