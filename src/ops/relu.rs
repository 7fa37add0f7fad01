//! `y = max(x, 0)`. Backward: `dx = dy where y > 0, else 0` (0 at 0, as in PyTorch).

use crate::backend::Backend;
use crate::graph::{Block, Graph, Op, Var};

impl<B: Backend> Graph<B> {
    /// The rectified linear unit, element by element.
    #[track_caller]
    pub fn relu(&mut self, x: Var) -> Var {
        let node = self.node(x);
        let len = node.shape.len();
        let (value, mut y) = self.output(len);
        self.backend
            .relu(y.view(), self.arena.range(node.value, 0, len));
        self.arena.restore(y);
        self.push(Op::Relu(x), node.shape, node.order, value, &[x], false)
    }

    pub(super) fn relu_backward(&mut self, x: Var, y: Block, dy: Block) {
        if let Some((mut dx, write)) = self.grad_of(x) {
            let (y, dy) = (self.arena.view(y), self.arena.view(dy));
            self.backend.relu_backward(dx.view(), y, dy, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn relu_gradient() {
        Check::new("relu")
            .input(&[4, 5])
            .run(|g, v, _| g.relu(v[0]));
        Check::new("relu of a value used twice")
            .input(&[4, 5])
            .run(|g, v, _| {
                let y = g.relu(v[0]);
                g.add(y, v[0])
            });
    }
}
