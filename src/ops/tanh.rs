//! `y = tanh(x)`. Backward: `dx = dy·(1 - y²)`.

use crate::backend::Backend;
use crate::graph::{Block, Graph, Op, Var};

impl<B: Backend> Graph<B> {
    /// The hyperbolic tangent, element by element.
    #[track_caller]
    pub fn tanh(&mut self, x: Var) -> Var {
        let node = self.node(x);
        let len = node.shape.len();
        let (value, mut y) = self.output(len);
        self.backend
            .tanh(y.view(), self.arena.range(node.value, 0, len));
        self.arena.restore(y);
        self.push(Op::Tanh(x), node.shape, node.order, value, &[x], false)
    }

    pub(super) fn tanh_backward(&mut self, x: Var, y: Block, dy: Block) {
        if let Some((mut dx, write)) = self.grad_of(x) {
            let (y, dy) = (self.arena.view(y), self.arena.view(dy));
            self.backend.tanh_backward(dx.view(), y, dy, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn tanh_gradient() {
        Check::new("tanh")
            .input(&[4, 5])
            .run(|g, v, _| g.tanh(v[0]));
        Check::new("tanh of a value used twice")
            .input(&[4, 5])
            .run(|g, v, _| {
                let y = g.tanh(v[0]);
                g.add(y, v[0])
            });
    }
}
