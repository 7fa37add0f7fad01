//! Dropout: `y = x·mask / (1 - p)` in training, `y = x` otherwise. Backward: the same with `dy`.
//!
//! The mask comes from a counter-based generator, so it is not stored but computed again in the
//! backward pass, and it is the same for any number of threads. PyTorch's masks are not reproduced.

use crate::backend::{Backend, DropoutMask, Write};
use crate::graph::{Block, Graph, Mode, Op, Var};

impl<B: Backend> Graph<B> {
    /// Drops each element with probability `p` in training mode.
    ///
    /// # Panics
    /// If `p` is not in `[0, 1)`.
    #[track_caller]
    pub fn dropout(&mut self, x: Var, p: f32) -> Var {
        assert!(
            (0.0..1.0).contains(&p),
            "dropout: expected a probability in [0, 1), found {p}"
        );
        if self.mode != Mode::Train || p == 0.0 {
            return x;
        }
        let x = self.spatial(x);
        let node = self.node(x);
        let mask = DropoutMask {
            p,
            seed: self.generator.seed(),
            step: self.train_steps,
            layer: self.dropouts,
        };
        self.dropouts += 1;
        let len = node.shape.len();
        let (value, mut y) = self.output(len);
        let source = self.arena.range(node.value, 0, len);
        self.backend
            .dropout(y.view(), source, node.shape.images(), mask, Write::Set);
        self.arena.restore(y);
        self.push(
            Op::Dropout { x, mask },
            node.shape,
            node.order,
            value,
            &[x],
            false,
        )
    }

    pub(super) fn dropout_backward(&mut self, x: Var, mask: DropoutMask, dy: Block) {
        let images = self.shape(x).images();
        if let Some((mut dx, write)) = self.grad_of(x) {
            self.backend
                .dropout(dx.view(), self.arena.view(dy), images, mask, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn dropout_gradient() {
        Check::new("dropout")
            .input(&[6, 7])
            .run(|g, v, _| g.dropout(v[0], 0.4));
        Check::new("two dropouts of a value")
            .input(&[6, 7])
            .run(|g, v, _| {
                let (a, b) = (g.dropout(v[0], 0.5), g.dropout(v[0], 0.5));
                g.add(a, b)
            });
    }
}
