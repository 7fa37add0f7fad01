//! Rows by label: the rows of one task taken out of a mini-batch, and put back where they were.
//!
//! Both are `y_kj = x_(index k)j`, with zeros where there is no such row or column, and no row of x
//! is used twice. Backward: the same with the inverse index.

use crate::backend::{Backend, Elem, Write};
use crate::graph::{Block, Graph, Op, Order, Var};
use crate::shape::Shape;

impl<B: Backend> Graph<B> {
    /// The rows of `x` (`[N, C]`) whose label is `label`, in order. Nothing is recorded when all
    /// are.
    ///
    /// # Panics
    /// If there is not one label for each row.
    #[track_caller]
    pub fn take_rows(&mut self, x: Var, labels: &[u32], label: u32) -> Var {
        let shape = self.shape(x);
        assert!(
            shape.rank() == 2 && shape.dim(0) == labels.len(),
            "take_rows: {} labels for a value of shape {shape}",
            labels.len()
        );
        let count = labels.iter().filter(|&&l| l == label).count();
        if count == labels.len() {
            return x;
        }
        let (positions, ranks) = self.row_maps(labels, label);
        self.move_rows(x, positions, ranks, Shape::new(&[count, shape.dim(1)]))
    }

    /// The inverse of [`take_rows`](Self::take_rows): `x` holds the rows of label `label`; the
    /// result has a row for each label and `cols` columns, with zeros where `x` has no number.
    /// Nothing is recorded when that is `x` itself.
    ///
    /// # Panics
    /// If `x` has not one row for each such label, or more than `cols` columns.
    #[track_caller]
    pub fn put_rows(&mut self, x: Var, labels: &[u32], label: u32, cols: usize) -> Var {
        let shape = self.shape(x);
        let count = labels.iter().filter(|&&l| l == label).count();
        assert!(
            shape.rank() == 2 && shape.dim(0) == count && shape.dim(1) <= cols,
            "put_rows: a value of shape {shape} for {count} rows of {cols} columns"
        );
        if count == labels.len() && shape.dim(1) == cols {
            return x;
        }
        let (positions, ranks) = self.row_maps(labels, label);
        self.move_rows(x, ranks, positions, Shape::new(&[labels.len(), cols]))
    }

    /// Where the rows of `label` stand, and for each row its rank among them, or -1.
    fn row_maps(&mut self, labels: &[u32], label: u32) -> (Block, Block) {
        assert!(
            labels.len() <= 1 << 24,
            "rows are counted in f32, which is exact up to 2^24; found {}",
            labels.len()
        );
        self.staging.clear();
        let chosen = (labels.iter().enumerate()).filter(|(_, l)| **l == label);
        self.staging
            .extend(chosen.map(|(row, _)| B::Elem::from_f64(row as f64)));
        let positions = self.staged();
        self.staging.clear();
        let mut next = 0;
        self.staging.extend(labels.iter().map(|&l| {
            let rank = if l == label { f64::from(next) } else { -1.0 };
            next += u32::from(l == label);
            B::Elem::from_f64(rank)
        }));
        (positions, self.staged())
    }

    /// Row k of the result, of shape `to`, is row `index[k]` of `x`; `inverse` leads back.
    fn move_rows(&mut self, x: Var, index: Block, inverse: Block, to: Shape) -> Var {
        let node = self.node(x);
        let (value, mut y) = self.output(to.len());
        self.backend.gather_rows(
            y.view(),
            to.dim(1),
            self.arena.range(node.value, 0, node.shape.len()),
            node.shape.dim(1),
            self.arena.view(index),
            Write::Set,
        );
        self.arena.restore(y);
        let op = Op::MoveRows { x, inverse };
        self.push(op, to, Order::Rows, value, &[x], false)
    }

    pub(super) fn move_rows_backward(&mut self, x: Var, inverse: Block, from: Shape, dy: Block) {
        let cols = self.shape(x).dim(1);
        if let Some((mut dx, write)) = self.grad_of(x) {
            let (dy, inverse) = (self.arena.view(dy), self.arena.view(inverse));
            self.backend
                .gather_rows(dx.view(), cols, dy, from.dim(1), inverse, write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::reference::Reference;
    use crate::graph::{Graph, Mode};
    use crate::ops::gradcheck::Check;
    use crate::shape::Shape;

    const LABELS: [u32; 5] = [7, 2, 7, 7, 2];

    #[test]
    fn taking_rows_gradient() {
        Check::new("take_rows")
            .input(&[5, 3])
            .run(|g, v, _| g.take_rows(v[0], &LABELS, 7));
        Check::new("rows of both labels, and all of them")
            .input(&[5, 3])
            .run(|g, v, _| {
                let (a, b) = (g.take_rows(v[0], &LABELS, 7), g.take_rows(v[0], &LABELS, 2));
                let both = g.concat(a, b);
                g.add(both, v[0])
            });
    }

    #[test]
    fn putting_rows_gradient() {
        Check::new("put_rows, padded")
            .input(&[3, 2])
            .run(|g, v, _| g.put_rows(v[0], &LABELS, 7, 4));
        Check::new("two heads of different widths, one used twice")
            .input(&[3, 2])
            .input(&[2, 3])
            .run(|g, v, _| {
                let (a, b) = (
                    g.put_rows(v[0], &LABELS, 7, 3),
                    g.put_rows(v[1], &LABELS, 2, 3),
                );
                let both = g.add(a, b);
                let again = g.put_rows(v[0], &[7, 7, 7, 1, 1], 7, 3);
                g.add(both, again)
            });
    }

    #[test]
    fn rows_go_out_and_come_back() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        g.begin(Mode::Eval);
        let x: Vec<f64> = (0..10).map(f64::from).collect();
        let v = g.input(Shape::new(&[5, 2]), &x, false);
        let (a, b) = (g.take_rows(v, &LABELS, 7), g.take_rows(v, &LABELS, 2));
        assert_eq!(g.read(a), [0.0, 1.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(g.read(b), [2.0, 3.0, 8.0, 9.0]);
        let none = g.take_rows(v, &LABELS, 3);
        assert_eq!(g.shape(none), Shape::new(&[0, 2]));
        let (a, b) = (g.put_rows(a, &LABELS, 7, 2), g.put_rows(b, &LABELS, 2, 2));
        let back = g.add(a, b);
        assert_eq!(g.read(back), x);
        let wide = g.put_rows(v, &[1; 5], 1, 3);
        assert_eq!(g.read(wide)[..6], [0.0, 1.0, 0.0, 2.0, 3.0, 0.0]);
        assert_eq!(g.take_rows(v, &[1; 5], 1), v);
        assert_eq!(g.put_rows(v, &[1; 5], 1, 2), v);
    }

    #[test]
    #[should_panic(expected = "put_rows: a value of shape [3, 2] for 2 rows of 4 columns")]
    fn rows_without_a_place_are_refused() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        g.begin(Mode::Eval);
        let v = g.input(Shape::new(&[3, 2]), &[0.0; 6], false);
        g.put_rows(v, &LABELS, 2, 4);
    }
}
