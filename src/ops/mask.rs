//! Columns that are not in use, filled with a constant: `y_ij = x_ij where unit j is in use, else
//! value`. Backward: `dx_ij = dy_ij where unit j is in use, else 0`.

use crate::backend::{Backend, Elem, Write};
use crate::graph::{Block, Graph, MaskId, Op, Order, Var};

impl<B: Backend> Graph<B> {
    /// `x` (`[N, C]`) with `value` in the columns that `mask` (C units) does not show as in use.
    /// Nothing is recorded when all of them are.
    ///
    /// # Panics
    /// If `x` is not a matrix with as many columns as the mask has units.
    #[track_caller]
    pub fn mask_columns(&mut self, x: Var, mask: MaskId, value: f32) -> Var {
        let node = self.node(x);
        let units = self.masks.units(mask);
        assert!(
            node.shape.rank() == 2 && node.shape.dim(1) == units.len(),
            "mask_columns: a mask of {} units for a value of shape {}",
            units.len(),
            node.shape
        );
        if units.iter().all(|&used| used) {
            return x;
        }
        self.staging.clear();
        let flags = units.iter().map(|&used| f64::from(u8::from(used)));
        self.staging.extend(flags.map(B::Elem::from_f64));
        let keep = self.staged();
        let len = node.shape.len();
        let (out, mut y) = self.output(len);
        self.backend.mask_columns(
            y.view(),
            self.arena.range(node.value, 0, len),
            self.arena.view(keep),
            B::Elem::from_f32(value),
            Write::Set,
        );
        self.arena.restore(y);
        let op = Op::MaskColumns { x, keep };
        self.push(op, node.shape, Order::Rows, out, &[x], false)
    }

    pub(super) fn mask_columns_backward(&mut self, x: Var, keep: Block, dy: Block) {
        if let Some((mut dx, write)) = self.grad_of(x) {
            let (dy, keep) = (self.arena.view(dy), self.arena.view(keep));
            self.backend
                .mask_columns(dx.view(), dy, keep, B::Elem::default(), write);
            self.arena.restore(dx);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::reference::Reference;
    use crate::graph::{Graph, Mode};
    use crate::ops::gradcheck::{Check, Oracle};
    use crate::shape::Shape;

    fn masked(g: &mut Oracle, units: [bool; 4]) -> crate::graph::MaskId {
        let name = g.masks.ids().count().to_string();
        let id = g.masks.add(&name, 4);
        g.masks.set(id, units.to_vec());
        id
    }

    const HALF: [bool; 4] = [true, false, false, true];

    #[test]
    fn mask_gradient() {
        Check::new("mask_columns").input(&[3, 4]).run(|g, v, _| {
            let mask = masked(g, HALF);
            g.mask_columns(v[0], mask, -1000.0)
        });
        Check::new("a value used masked, otherwise masked and as it is")
            .input(&[3, 4])
            .run(|g, v, _| {
                let (one, two) = (masked(g, HALF), masked(g, [false, false, true, true]));
                let a = g.mask_columns(v[0], one, 0.5);
                let b = g.mask_columns(v[0], two, 3.0);
                let sum = g.add(a, b);
                g.add(sum, v[0])
            });
    }

    #[test]
    fn a_masked_column_holds_the_value_and_hides_what_was_there() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        let mask = masked(&mut g, HALF);
        g.begin(Mode::Eval);
        let x = [1.0, f64::NAN, f64::INFINITY, 4.0, 5.0, 6.0, 7.0, 8.0];
        let x = g.input(Shape::new(&[2, 4]), &x, false);
        let y = g.mask_columns(x, mask, -1000.0);
        let want = [1.0, -1000.0, -1000.0, 4.0, 5.0, -1000.0, -1000.0, 8.0];
        assert_eq!(g.read(y), want);
    }

    #[test]
    fn nothing_is_recorded_when_every_unit_is_in_use() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        let mask = masked(&mut g, [true; 4]);
        g.begin(Mode::Train);
        let x = g.input(Shape::new(&[1, 4]), &[1.0; 4], true);
        assert_eq!(g.mask_columns(x, mask, 0.0), x);
    }

    #[test]
    #[should_panic(expected = "mask_columns: a mask of 4 units for a value of shape [1, 5]")]
    fn a_mask_of_another_width_is_refused() {
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        let mask = masked(&mut g, HALF);
        g.begin(Mode::Eval);
        let x = g.input(Shape::new(&[1, 5]), &[1.0; 5], false);
        g.mask_columns(x, mask, 0.0);
    }
}
