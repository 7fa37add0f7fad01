//! Joining and cutting along the batch. Backward: cutting and joining.

use crate::backend::{Backend, Write};
use crate::graph::{Block, Graph, Op, Var};
use crate::shape::Shape;

impl<B: Backend> Graph<B> {
    /// The samples of `a` followed by those of `b`.
    ///
    /// # Panics
    /// If the shapes differ in more than the number of samples, or are scalars.
    #[track_caller]
    pub fn concat(&mut self, a: Var, b: Var) -> Var {
        let (a, b) = (self.spatial(a), self.spatial(b));
        let (na, nb) = (self.node(a), self.node(b));
        assert!(
            na.shape.rank() > 0 && with_samples(na.shape, nb.shape.dim(0)) == nb.shape,
            "concat: the shapes {} and {} differ in more than the number of samples",
            na.shape,
            nb.shape
        );
        let shape = with_samples(na.shape, na.shape.dim(0) + nb.shape.dim(0));
        let (value, mut y) = self.output(shape.len());
        for (node, start) in [(na, 0), (nb, na.shape.dim(0))] {
            let (part, n) = (node.shape.images(), node.shape.dim(0));
            let source = self.arena.range(node.value, 0, part.len());
            let (whole, set) = (shape.images(), Write::Set);
            self.backend
                .copy_samples(y.view(), whole, start, source, part, 0, n, set);
        }
        self.arena.restore(y);
        self.push(Op::Concat(a, b), shape, na.order, value, &[a, b], false)
    }

    pub(super) fn concat_backward(&mut self, a: Var, b: Var, dy: Block) {
        let (na, nb) = (self.shape(a), self.shape(b));
        let whole = with_samples(na, na.dim(0) + nb.dim(0)).images();
        for (x, shape, start) in [(a, na, 0), (b, nb, na.dim(0))] {
            let (part, n) = (shape.images(), shape.dim(0));
            if let Some((mut dx, write)) = self.grad_of(x) {
                let dy = self.arena.view(dy);
                self.backend
                    .copy_samples(dx.view(), part, 0, dy, whole, start, n, write);
                self.arena.restore(dx);
            }
        }
    }

    /// `count` samples of `x`, from sample `start`.
    ///
    /// # Panics
    /// If `x` has fewer samples, or is a scalar.
    #[track_caller]
    pub fn slice(&mut self, x: Var, start: usize, count: usize) -> Var {
        let x = self.spatial(x);
        let node = self.node(x);
        assert!(
            node.shape.rank() > 0 && start + count <= node.shape.dim(0),
            "slice: samples {start}..{} of a value of shape {}",
            start + count,
            node.shape
        );
        let shape = with_samples(node.shape, count);
        let (value, mut y) = self.output(shape.len());
        let (whole, part) = (node.shape.images(), shape.images());
        let source = self.arena.range(node.value, 0, whole.len());
        self.backend
            .copy_samples(y.view(), part, 0, source, whole, start, count, Write::Set);
        self.arena.restore(y);
        let op = Op::Slice {
            x,
            start: start as u32,
        };
        self.push(op, shape, node.order, value, &[x], false)
    }

    pub(super) fn slice_backward(&mut self, x: Var, start: u32, shape: Shape, dy: Block) {
        let (whole, part) = (self.shape(x).images(), shape.images());
        if let Some((mut dx, write)) = self.grad_of(x) {
            if write == Write::Set {
                self.backend.fill(dx.view(), B::Elem::default());
            }
            let (dy, start) = (self.arena.view(dy), start as usize);
            self.backend
                .copy_samples(dx.view(), whole, start, dy, part, 0, part.n, Write::Add);
            self.arena.restore(dx);
        }
    }
}

/// `shape` with another number of samples.
fn with_samples(shape: Shape, n: usize) -> Shape {
    let mut dims = shape.dims();
    dims[0] = n;
    Shape::new(&dims[..shape.rank()])
}

#[cfg(test)]
mod tests {
    use crate::ops::gradcheck::Check;

    #[test]
    fn concat_gradient() {
        Check::new("concat rows")
            .input(&[2, 3])
            .input(&[4, 3])
            .run(|g, v, _| {
                let whole = g.concat(v[0], v[1]);
                g.tanh(whole)
            });
        Check::new("concat an image with itself")
            .input(&[2, 3, 2, 2])
            .run(|g, v, _| g.concat(v[0], v[0]));
    }

    #[test]
    fn slice_gradient() {
        Check::new("slice rows")
            .input(&[5, 3])
            .run(|g, v, _| g.slice(v[0], 1, 3));
        Check::new("overlapping slices of images")
            .input(&[5, 2, 3, 2])
            .run(|g, v, _| {
                let (a, b) = (g.slice(v[0], 0, 3), g.slice(v[0], 2, 3));
                g.add(a, b)
            });
    }
}
