//! A convolution and the batch normalisation of its output in one call: the numbers of the two, sooner.
//!
//! What is recorded are the two, each of which has its backward pass. In training mode the statistics are added up where
//! the convolution computes its output ([`Backend::batch_norm_after`]), so that the second pass over it is the only one.

use super::batch_norm::First;
use crate::backend::Backend;
use crate::graph::{Graph, Mode, Norm, ParamId, Var};

impl<B: Backend> Graph<B> {
    /// [`conv2d`](Self::conv2d) without a bias, and then [`batch_norm`](Self::batch_norm) of its output. `residual` is
    /// added to the result, which goes through a ReLU at the end if `relu` says so: see
    /// [`batch_norm_relu`](Self::batch_norm_relu).
    ///
    /// # Panics
    /// Where the two do.
    #[track_caller]
    #[expect(
        clippy::too_many_arguments,
        reason = "those of a convolution and of a normalisation"
    )]
    pub fn conv2d_batch_norm(
        &mut self,
        x: Var,
        weight: ParamId,
        stride: [usize; 2],
        padding: [usize; 2],
        norm: Norm,
        frozen: bool,
        residual: Option<Var>,
        relu: bool,
    ) -> Var {
        if self.mode != Mode::Train || frozen {
            let y = self.conv2d(x, weight, None, stride, padding);
            self.keep_inside(y);
            return self.normalised(y, norm, frozen, residual, relu);
        }
        let (x, conv) = self.convolution(x, weight, stride, padding);
        let value = self.arena.take(&self.backend, conv.output().len());
        let y = self.push_convolution(x, weight, None, conv, value);
        self.keep_inside(y);
        let residual = self.check_norm(y, norm, residual);
        let first = First { x, weight, conv };
        self.push_normalised(y, Some(first), norm, true, residual, relu)
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::Backend;
    use crate::backend::cpu::Cpu;
    use crate::graph::{Graph, Mode, Norm, ParamId, ParamLayout, Var};
    use crate::ops::gradcheck::Check;
    use crate::shape::Shape;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// A weight from `inputs` to `outputs` channels.
    fn weight(outputs: usize, inputs: usize, kernel: usize) -> ParamLayout {
        ParamLayout::Conv {
            outputs,
            inputs,
            kernel: [kernel; 2],
        }
    }

    #[test]
    fn conv2d_batch_norm_gradient() {
        for (frozen, relu) in [(false, false), (false, true), (true, true)] {
            Check::new("conv2d, batch_norm")
                .input(&[4, 2, 4, 3])
                .param(weight(3, 2, 3))
                .norm(3)
                .run(|g, v, p| {
                    let norm = g.test_norm();
                    g.conv2d_batch_norm(v[0], p[0], [1; 2], [1; 2], norm, frozen, None, relu)
                });
            Check::new("conv2d, batch_norm in groups, residual")
                .input(&[5, 2, 4, 4])
                .input(&[5, 3, 2, 2])
                .param(weight(3, 2, 3))
                .norm(3)
                .run(|g, v, p| {
                    g.set_groups(&[2, 3]);
                    let norm = g.test_norm();
                    let residual = Some(v[1]);
                    g.conv2d_batch_norm(v[0], p[0], [2; 2], [1; 2], norm, frozen, residual, relu)
                });
        }
    }

    #[test]
    fn conv2d_batch_norm_gradient_with_everything_used_twice() {
        for relu in [false, true] {
            Check::new("conv2d, batch_norm twice; its output is input, residual and added")
                .input(&[3, 2, 4, 4])
                .param(weight(2, 2, 3))
                .norm(2)
                .run(|g, v, p| {
                    let norm = g.test_norm();
                    let mut of = |x, residual| {
                        g.conv2d_batch_norm(x, p[0], [1; 2], [1; 2], norm, false, residual, relu)
                    };
                    let once = of(v[0], None);
                    let twice = of(once, Some(once));
                    let sum = g.add(twice, once);
                    g.add(sum, v[0])
                });
        }
    }

    /// The two operations in one call, or one after the other.
    #[derive(Clone, Copy)]
    struct Layer {
        weight: ParamId,
        norm: Norm,
        stride: usize,
        frozen: bool,
        at_once: bool,
    }

    impl Layer {
        #[track_caller]
        fn forward<B: Backend>(self, g: &mut Graph<B>, x: Var, residual: Option<Var>) -> Var {
            let (w, norm, frozen) = (self.weight, self.norm, self.frozen);
            let (stride, padding) = ([self.stride; 2], [1; 2]);
            if self.at_once {
                return g.conv2d_batch_norm(x, w, stride, padding, norm, frozen, residual, true);
            }
            let y = g.conv2d(x, w, None, stride, padding);
            g.batch_norm_relu(y, norm, frozen, residual)
        }
    }

    /// Numbers that differ from layer to layer.
    fn numbers(seed: usize, len: usize) -> Vec<f32> {
        let number = |i: usize| (i * seed % 1009) as f32 / 500.0 - 1.0;
        (0..len).map(number).collect()
    }

    /// Everything that two layers compute, the second with the output of the first as input and as residual, with
    /// gradients added up over some backward passes.
    fn results(
        mode: Mode,
        stride: usize,
        groups: &[usize],
        frozen: bool,
        passes: usize,
        at_once: bool,
    ) -> Vec<u32> {
        let (n, c, side) = (40, 20, 8);
        let mut g = Graph::new(Cpu::default()).unwrap();
        let layers = ["a", "b"].map(|name| {
            let layout = weight(c, c, 3);
            let values = numbers(37 + 4 * usize::from(name == "b"), layout.shape().len());
            let weight = g.parameter(&format!("conv {name}"), layout, &values);
            Layer {
                weight,
                norm: g.norm(name, c, 1e-5, 0.1),
                stride: 1,
                frozen,
                at_once,
            }
        });
        let first = Layer {
            stride,
            ..layers[0]
        };
        let shape = Shape::new(&[n, c, side, side]);
        g.begin(mode);
        g.set_groups(groups);
        let x = g.input(shape, &numbers(53, shape.len()), true);
        let between = first.forward(&mut g, x, None);
        let y = layers[1].forward(&mut g, between, Some(between));
        let shape = g.shape(y);
        let target = g.input(shape, &numbers(71, shape.len()), false);
        let loss = g.mse(y, target);
        (0..passes).for_each(|_| g.backward(loss));
        let mut all = g.read(y);
        all.extend(g.read_grad(x).unwrap_or_default());
        for Layer { weight, norm, .. } in layers {
            for p in [weight, norm.gamma, norm.beta] {
                all.extend(
                    g.params
                        .read_grad(&g.backend, &g.arena, p)
                        .unwrap_or_default(),
                );
            }
            all.extend(g.params.read_running(&g.backend, norm.running));
            all.push(g.params.buffer(norm.running).2 as f32);
        }
        all.push(g.multiply_adds(y).all as f32);
        all.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn at_once_and_one_after_the_other_give_the_same_bits() {
        for mode in [Mode::Train, Mode::Eval, Mode::EvalWithGrad] {
            for (stride, groups, frozen) in [
                (1, &[][..], false),
                (1, &[20, 20], false),
                (1, &[7, 33], false),
                (2, &[20, 20], false),
                (1, &[20, 20], true),
            ] {
                // What a first backward pass gives back, a second computes again.
                for passes in [1, 2] {
                    let of = |at_once| results(mode, stride, groups, frozen, passes, at_once);
                    let same = of(true) == of(false);
                    assert!(same, "{mode:?}, {stride}, {groups:?}, {frozen}, {passes}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_the_words_of_the_two() {
        let refused = |mode: Mode, input: [usize; 4], channels: usize, residual: usize, at_once| {
            let mut g = Graph::new(Cpu::default()).unwrap();
            let layout = weight(4, 3, 5);
            let layer = Layer {
                weight: g.parameter("w", layout, &vec![0.5; layout.shape().len()]),
                norm: g.norm("n", channels, 1e-5, 0.1),
                stride: 1,
                frozen: false,
                at_once,
            };
            g.begin(mode);
            let [x, r] = [Shape::new(&input), Shape::new(&[2, 4, residual, 4])]
                .map(|shape| g.input(shape, &vec![0.5; shape.len()], false));
            let panic = catch_unwind(AssertUnwindSafe(|| layer.forward(&mut g, x, Some(r))));
            let panic = panic.expect_err("something does not fit");
            *panic.downcast::<String>().expect("a message")
        };
        for mode in [Mode::Train, Mode::Eval] {
            for (input, channels, residual, words) in [
                ([2, 5, 6, 6], 4, 4, "conv2d w: expected an input"),
                ([2, 3, 6, 2], 4, 4, "does not fit an input"),
                ([2, 3, 6, 6], 5, 4, "batch_norm n.weight: expected an input"),
                ([2, 3, 6, 6], 4, 3, "batch_norm_relu: a residual"),
            ] {
                let of = |at_once| refused(mode, input, channels, residual, at_once);
                let message = of(true);
                assert!(message.contains(words), "{message}, not {words}");
                assert_eq!(message, of(false));
            }
        }
    }
}
