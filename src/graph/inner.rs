//! Outputs of convolutions that nobody has but the normalisation behind them.
//!
//! Once the backward pass of the normalisation has read such a value, gradients may have its memory: half of what the
//! forward pass of a ResNet leaves. A second backward pass in the same step computes it again, from the weight as it is
//! then.

use super::{Graph, Held, Node, Op, Var};
use crate::backend::Backend;

impl<B: Backend> Graph<B> {
    /// Says that only one operation ever reads `v`, the output of a convolution without a bias.
    pub(crate) fn keep_inside(&mut self, v: Var) {
        self.nodes[v.index as usize].held = Held::Inner;
    }

    /// The node of `v`, whose value may then be read by the backward pass of the operation that has it.
    pub(crate) fn recall(&mut self, v: Var) -> Node {
        let node = self.peek(v);
        if node.held == Held::Gone {
            let Op::Conv2d {
                x, weight, conv, ..
            } = node.op
            else {
                unreachable!("only outputs of convolutions are given back");
            };
            let images = self.node(x).value;
            let (value, mut y) = self.output(conv.output().len());
            let source = self.arena.range(images, 0, conv.input.len());
            self.backend
                .conv2d(y.view(), source, self.params.value(weight), conv);
            self.arena.restore(y);
            let node = &mut self.nodes[v.index as usize];
            (node.value, node.held) = (value, Held::Inner);
        }
        self.node(v)
    }

    /// Gives the value of `v` back, if nobody else has it, after that backward pass.
    pub(crate) fn give_inner(&mut self, v: Var) {
        let node = &mut self.nodes[v.index as usize];
        if node.held == Held::Inner {
            node.held = Held::Gone;
            self.arena.give(node.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::graph::{Mode, ParamLayout};
    use crate::shape::Shape;

    const SHAPE: [usize; 4] = [4, 4, 8, 8];

    /// A graph after the forward pass of a convolution, a normalisation and then both in one, and what each puts out, the
    /// loss last.
    fn step(mode: Mode, frozen: bool) -> (Graph<Cpu>, [Var; 4]) {
        let mut g = Graph::new(Cpu::default()).unwrap();
        let (shape, layout) = (
            Shape::new(&SHAPE),
            ParamLayout::Conv {
                outputs: 4,
                inputs: 4,
                kernel: [3, 3],
            },
        );
        let number = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
        let numbers = |len: usize| -> Vec<f32> { (0..len).map(number).collect() };
        let weight = g.parameter("w", layout, &numbers(layout.shape().len()));
        let norm = g.norm("bn", 4, 1e-5, 0.1);
        g.begin(mode);
        let x = g.input(shape, &numbers(shape.len()), false);
        let sides = [1; 2];
        let open = g.conv2d(x, weight, None, sides, sides);
        let once = g.batch_norm_relu(open, norm, frozen, None);
        let twice = g.conv2d_batch_norm(once, weight, sides, sides, norm, frozen, None, true);
        let target = g.input(shape, &vec![0.5; shape.len()], false);
        let loss = g.mse(twice, target);
        (g, [open, once, twice, loss])
    }

    /// Which outputs of convolutions are there.
    fn held(g: &Graph<Cpu>) -> Vec<Held> {
        let convolutions = g.nodes.iter().filter(|n| matches!(n.op, Op::Conv2d { .. }));
        convolutions.map(|n| n.held).collect()
    }

    #[test]
    fn the_backward_pass_gives_back_what_nobody_else_has_and_only_that() {
        for (mode, frozen) in [
            (Mode::Train, false),
            (Mode::Train, true),
            (Mode::EvalWithGrad, false),
        ] {
            let (mut g, vars) = step(mode, frozen);
            assert_eq!(held(&g), [Held::Kept, Held::Inner]);
            let before = vars.map(|v| g.read(v));
            g.backward(vars[3]);
            assert_eq!(held(&g), [Held::Kept, Held::Gone]);
            assert_eq!(vars.map(|v| g.read(v)), before, "{mode:?}, {frozen}");
        }
    }

    #[test]
    fn gradients_take_its_place() {
        let (mut g, [.., loss]) = step(Mode::Train, false);
        let numbers = g.arena.numbers();
        g.backward(loss);
        let (len, more) = (Shape::new(&SHAPE).len(), g.arena.numbers() - numbers);
        // The first two gradients find nothing that was given back.
        assert!((2 * len..2 * len + 32).contains(&more), "{more}");
        // What is computed again for a second pass finds it.
        g.backward(loss);
        assert_eq!(g.arena.numbers(), numbers + more);
    }
}
