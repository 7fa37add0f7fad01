//! Changes of order and shape: `flatten`, `reshape`, and the conversions between row order and the
//! backend's spatial order. Each is a permutation; its backward pass is the inverse permutation.

use crate::backend::{Backend, Write};
use crate::graph::{Block, Graph, Op, Order, Var};
use crate::shape::Shape;

impl<B: Backend> Graph<B> {
    /// All dimensions but the first made one: `[N, C, H, W]` to `[N, C·H·W]`, in PyTorch's order.
    #[track_caller]
    pub fn flatten(&mut self, x: Var) -> Var {
        let x = self.rows(x);
        let shape = self.shape(x);
        let n = shape.dim(0);
        self.reshape(x, Shape::new(&[n, shape.len() / n.max(1)]))
    }

    /// The same numbers, in row order, under another shape.
    ///
    /// # Panics
    /// If the shapes hold different numbers of values.
    #[track_caller]
    pub fn reshape(&mut self, x: Var, shape: Shape) -> Var {
        let x = self.rows(x);
        let node = self.peek(x);
        assert_eq!(
            node.shape.len(),
            shape.len(),
            "reshape: {} and {shape} hold different numbers of values",
            node.shape
        );
        // The value is shared: nothing on the tape is ever overwritten within a step.
        self.push(Op::Reshape(x), shape, Order::Rows, node.value, &[x], false)
    }

    pub(super) fn reshape_backward(&mut self, x: Var, dy: Block) {
        self.pass_gradient(x, 1.0, dy);
    }

    /// The value in row order.
    #[track_caller]
    pub(super) fn rows(&mut self, x: Var) -> Var {
        let node = self.peek(x);
        if node.order == Order::Rows {
            return x;
        }
        let (value, mut y) = self.output(node.shape.len());
        let (source, images) = (self.arena.view(node.value), node.shape.images());
        self.backend.to_rows(y.view(), source, images, Write::Set);
        self.arena.restore(y);
        self.push(Op::ToRows(x), node.shape, Order::Rows, value, &[x], false)
    }

    pub(super) fn rows_backward(&mut self, x: Var, dy: Block) {
        let images = self.shape(x).images();
        if let Some((mut dx, write)) = self.grad_of(x) {
            self.backend
                .to_spatial(dx.view(), self.arena.view(dy), images, write);
            self.arena.restore(dx);
        }
    }

    /// The value in the backend's spatial order (values of rank 0 to 2 are left alone).
    #[track_caller]
    pub(super) fn spatial(&mut self, x: Var) -> Var {
        let node = self.node(x);
        if node.order == Order::Spatial || node.shape.rank() < 4 {
            return x;
        }
        let (value, mut y) = self.output(node.shape.len());
        let source = self.arena.range(node.value, 0, node.shape.len());
        self.backend
            .to_spatial(y.view(), source, node.shape.images(), Write::Set);
        self.arena.restore(y);
        self.push(
            Op::ToSpatial(x),
            node.shape,
            Order::Spatial,
            value,
            &[x],
            false,
        )
    }

    pub(super) fn spatial_backward(&mut self, x: Var, dy: Block) {
        let images = self.shape(x).images();
        if let Some((mut dx, write)) = self.grad_of(x) {
            self.backend
                .to_rows(dx.view(), self.arena.view(dy), images, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn flatten_gradient() {
        Check::new("flatten of an image")
            .input(&[3, 2, 4, 5])
            .run(|g, v, _| g.flatten(v[0]));
        Check::new("flatten, twice used")
            .input(&[3, 2, 2, 3])
            .run(|g, v, _| {
                let spatial = g.spatial(v[0]);
                let (a, b) = (g.flatten(spatial), g.flatten(v[0]));
                let b = g.scale(b, 0.5);
                g.add(a, b)
            });
    }

    #[test]
    fn reshape_gradient() {
        Check::new("reshape").input(&[3, 4]).run(|g, v, _| {
            let y = g.reshape(v[0], crate::shape::Shape::new(&[2, 6]));
            g.tanh(y)
        });
    }
}
