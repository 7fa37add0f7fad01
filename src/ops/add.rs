//! `Y = A + B` and `Y = factor·X`. Backward: `dA = dB = dY`, `dX = factor·dY`.

use crate::backend::{Backend, Elem, Write};
use crate::graph::{Block, Graph, Op, Order, Var};

impl<B: Backend> Graph<B> {
    /// The sum of two values of the same shape. Losses are values too: a plugin adds its penalty
    /// this way.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        let (na, nb) = (self.node(a), self.node(b));
        assert_eq!(
            na.shape, nb.shape,
            "add: the shapes {} and {} differ",
            na.shape, nb.shape
        );
        let (a, b) = match (na.order, nb.order) {
            (Order::Rows, Order::Spatial) => (self.spatial(a), b),
            (Order::Spatial, Order::Rows) => (a, self.spatial(b)),
            _ => (a, b),
        };
        let (na, nb) = (self.node(a), self.node(b));
        let len = na.shape.len();
        let (value, mut y) = self.output(len);
        let one = B::Elem::from_f64(1.0);
        self.backend.scale_add(
            y.view(),
            self.arena.range(na.value, 0, len),
            one,
            Write::Set,
        );
        self.backend.scale_add(
            y.view(),
            self.arena.range(nb.value, 0, len),
            one,
            Write::Add,
        );
        self.arena.restore(y);
        self.push(Op::Add(a, b), na.shape, na.order, value, &[a, b], false)
    }

    pub(super) fn add_backward(&mut self, a: Var, b: Var, dy: Block) {
        self.pass_gradient(a, 1.0, dy);
        self.pass_gradient(b, 1.0, dy);
    }

    /// The value times a constant.
    #[track_caller]
    pub fn scale(&mut self, x: Var, factor: f32) -> Var {
        let node = self.node(x);
        let len = node.shape.len();
        let (value, mut y) = self.output(len);
        let source = self.arena.range(node.value, 0, len);
        self.backend
            .scale_add(y.view(), source, B::Elem::from_f32(factor), Write::Set);
        self.arena.restore(y);
        self.push(
            Op::Scale(x, factor),
            node.shape,
            node.order,
            value,
            &[x],
            false,
        )
    }

    pub(super) fn scale_backward(&mut self, x: Var, factor: f32, dy: Block) {
        self.pass_gradient(x, factor, dy);
    }

    /// `dx (+)= factor·dy`
    pub(super) fn pass_gradient(&mut self, x: Var, factor: f32, dy: Block) {
        if let Some((mut dx, write)) = self.grad_of(x) {
            let factor = B::Elem::from_f32(factor);
            self.backend
                .scale_add(dx.view(), self.arena.view(dy), factor, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn add_gradient() {
        Check::new("add")
            .input(&[3, 4])
            .input(&[3, 4])
            .run(|g, v, _| g.add(v[0], v[1]));
        Check::new("x + x")
            .input(&[3, 4])
            .run(|g, v, _| g.add(v[0], v[0]));
    }

    #[test]
    fn scale_gradient() {
        Check::new("scale")
            .input(&[2, 3])
            .run(|g, v, _| g.scale(v[0], -1.75));
    }
}
