//! Mean squared error `L = mean (x - t)²`. Backward: `dx = 2·(x - t)/len·dL`, `dt = -dx`.

use crate::backend::Backend;
use crate::graph::{Block, Graph, Op, Order, Var};
use crate::shape::Shape;

impl<B: Backend> Graph<B> {
    /// The mean over all elements of the squared difference (PyTorch's `mse_loss`).
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn mse(&mut self, x: Var, target: Var) -> Var {
        let (x, target) = (self.rows(x), self.rows(target));
        let (nx, nt) = (self.node(x), self.node(target));
        assert_eq!(
            nx.shape, nt.shape,
            "mse: the shapes {} and {} differ",
            nx.shape, nt.shape
        );
        let len = nx.shape.len();
        let (value, mut loss) = self.output(1);
        let (a, b) = (
            self.arena.range(nx.value, 0, len),
            self.arena.range(nt.value, 0, len),
        );
        self.backend.mse(loss.view(), a, b);
        self.arena.restore(loss);
        self.push(
            Op::Mse(x, target),
            Shape::SCALAR,
            Order::Rows,
            value,
            &[x, target],
            false,
        )
    }

    pub(super) fn mse_backward(&mut self, x: Var, target: Var, dl: Block) {
        let (nx, nt) = (self.node(x), self.node(target));
        let len = nx.shape.len();
        for (v, sign) in [(x, 1.0), (target, -1.0)] {
            if let Some((mut dx, write)) = self.grad_of(v) {
                let (a, b) = (
                    self.arena.range(nx.value, 0, len),
                    self.arena.range(nt.value, 0, len),
                );
                self.backend
                    .mse_backward(dx.view(), a, b, self.arena.view(dl), sign, write);
                self.arena.restore(dx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn mse_gradient() {
        Check::new("mse")
            .input(&[3, 4])
            .input(&[3, 4])
            .run(|g, v, _| g.mse(v[0], v[1]));
        Check::new("mse of a value and its tanh")
            .input(&[3, 4])
            .run(|g, v, _| {
                let t = g.tanh(v[0]);
                g.mse(v[0], t)
            });
    }
}
