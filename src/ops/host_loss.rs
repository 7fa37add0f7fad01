//! A loss that is computed outside of the engine: `L = f(x)` with the gradient `∂f/∂x` given along
//! with it. Backward: `dx = dL·∂f/∂x`.
//!
//! For losses over logits, which are few numbers: they are copied out, handled in f64 on every
//! backend, and the gradient is copied in. Distillation and asymmetric cross-entropy are written this
//! way, and so may be any loss of a user.

use crate::backend::{Backend, Elem};
use crate::graph::{Block, Graph, Op, Order, Var};
use crate::shape::Shape;

impl<B: Backend> Graph<B> {
    /// The loss that `loss` computes of the values of `x`, in row order. It also gets a slice of the
    /// same length, filled with zeros, into which it writes the derivative of the loss.
    #[track_caller]
    pub fn host_loss(&mut self, x: Var, loss: impl FnOnce(&[f64], &mut [f64]) -> f64) -> Var {
        let x = self.rows(x);
        let node = self.node(x);
        let len = node.shape.len();
        self.staging.clear();
        self.staging.resize(len, B::Elem::default());
        let source = self.arena.range(node.value, 0, len);
        self.backend.download(source, &mut self.staging);
        let [values, gradient] = &mut self.host;
        values.clear();
        values.extend(self.staging.iter().map(|x| x.to_f64()));
        gradient.clear();
        gradient.resize(len, 0.0);
        let result = B::Elem::from_f64(loss(values, gradient));
        self.staging.clear();
        self.staging
            .extend(gradient.iter().map(|&g| B::Elem::from_f64(g)));
        let (slope, mut lent) = self.output(len);
        self.backend.upload(lent.view(), &self.staging);
        self.arena.restore(lent);
        let (value, mut lent) = self.output(1);
        self.backend.upload(lent.view(), &[result]);
        self.arena.restore(lent);
        let op = Op::HostLoss { x, slope };
        self.push(op, Shape::SCALAR, Order::Rows, value, &[x], false)
    }

    pub(super) fn host_loss_backward(&mut self, x: Var, slope: Block, dl: Block) {
        let mut factor = [B::Elem::default()];
        self.backend
            .download(self.arena.range(dl, 0, 1), &mut factor);
        if let Some((mut dx, write)) = self.grad_of(x) {
            self.backend
                .scale_add(dx.view(), self.arena.view(slope), factor[0], write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    /// `Σ k·x_k³` over the places k, counted from 1.
    fn cubes(x: &[f64], gradient: &mut [f64]) -> f64 {
        let mut sum = 0.0;
        for (k, (x, g)) in x.iter().zip(gradient).enumerate() {
            let k = k as f64 + 1.0;
            sum += k * x.powi(3);
            *g = 3.0 * k * x * x;
        }
        sum
    }

    #[test]
    fn host_loss_gradient() {
        Check::new("host_loss")
            .input(&[3, 4])
            .run(|g, v, _| g.host_loss(v[0], cubes));
        Check::new("host_loss of images, scaled, beside another use of its input")
            .input(&[2, 3, 2, 2])
            .run(|g, v, _| {
                let x = g.spatial(v[0]);
                let a = g.host_loss(x, cubes);
                let a = g.scale(a, -0.3);
                let b = g.mse(v[0], x);
                let c = g.host_loss(v[0], cubes);
                let sum = g.add(a, b);
                g.add(sum, c)
            });
    }
}
