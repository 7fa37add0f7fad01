//! The fused loss of Dark Experience Replay, and cross-entropy as its simplest case.
//!
//! Every row i of the logits carries its own weights (o logits, y label, z stored logits):
//! `L = Σ_i w_ce[i]·CE(o_i, y_i) + w_mse[i]·Σ_j (o_ij - z_ij)²`, so that both published forms of
//! DER++ are row weights and not code paths. Avalanche's runs replay and current rows through one
//! forward pass and uses each replay row for both terms:
//! `L = CE(current) + alpha·MSE(replay) + beta·CE(replay)`, means over rows, the MSE also over
//! classes (`avalanche/training/supervised/der.py`). The squares run over the columns that were
//! stored: a head may have grown since, and units may have been masked.
//!
//! Backward: `do = w_ce·(softmax(o) - onehot(y)) + 2·w_mse·(o - z)`.

use crate::backend::{Backend, Elem, ROW_LOSS_COLUMNS, RowLoss};
use crate::graph::{Block, Graph, Op, Order, Var};
use crate::shape::Shape;
use std::ops::Range;

/// The rows of a [`row_loss`](Graph::row_loss).
#[derive(Clone, Debug)]
pub struct LossRows<'a> {
    /// Labels, one a row.
    pub labels: &'a [u32],
    /// Rows of the current mini-batch; the others are replay. Only the reported terms depend on it.
    pub current: Range<usize>,
    /// Stored logits, row after row, each as wide as it was stored. NaN stands for a unit that was
    /// masked: that column is not compared.
    pub targets: &'a [f32],
    /// The row of the logits that the first row of `targets` belongs to.
    pub first_target: usize,
    /// How wide each row of `targets` is; empty means as wide as the logits.
    pub widths: &'a [u32],
}

impl<'a> LossRows<'a> {
    /// The stored rows, for logits of `columns` columns.
    fn stored(&self, columns: usize) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let count = match self.widths {
            [] => self.targets.len() / columns.max(1),
            widths => widths.len(),
        };
        let (mut rest, widths) = (self.targets, self.widths);
        (0..count).map(move |row| {
            let width = widths.get(row).map_or(columns, |&w| w as usize);
            let (first, others) = rest.split_at(width);
            rest = others;
            first
        })
    }

    /// For each stored row, in how many columns logits of `columns` columns are compared with it:
    /// what a mean over the columns divides by.
    pub fn compared(&self, columns: usize) -> impl Iterator<Item = usize> + use<'a> {
        let there = move |row: &[f32]| row.iter().take(columns).filter(|z| !z.is_nan()).count();
        self.stored(columns).map(there)
    }
}

/// The arguments of [`der_loss`](Graph::der_loss).
#[derive(Clone, Copy, Debug)]
pub struct DerLoss<'a> {
    /// Labels of the replay rows and then of the current rows.
    pub labels: &'a [u32],
    /// Stored logits of the replay rows, row after row; NaN where a unit was masked.
    pub targets: &'a [f32],
    /// How wide each row of `targets` is; empty means as wide as the logits.
    pub widths: &'a [u32],
    /// How many of the rows are replay; they come first.
    pub replay: usize,
    /// Weight of the logits' mean squared error.
    pub alpha: f32,
    /// Weight of the replay rows' cross-entropy.
    pub beta: f32,
}

impl<B: Backend> Graph<B> {
    /// The mean cross-entropy of `logits` (`[N, C]`) and labels.
    ///
    /// # Panics
    /// If the number of labels is not N or a label is not below C.
    #[track_caller]
    pub fn cross_entropy(&mut self, logits: Var, labels: &[u32]) -> Var {
        let weight = 1.0 / labels.len().max(1) as f64;
        let current = 0..labels.len();
        let rows = LossRows {
            labels,
            current,
            targets: &[],
            first_target: 0,
            widths: &[],
        };
        self.row_loss(logits, &rows, |_| (weight, 0.0))
    }

    /// Avalanche's DER loss, replay rows first: a short form of [`row_loss`](Self::row_loss) for loops
    /// written by hand. The replay rows give both other terms. A mean over replay rows and classes, so each stored logit has the weight `alpha / (replay·C)`; where a row has fewer than
    /// C columns stored, C is their number.
    ///
    /// # Panics
    /// If the lengths do not fit the logits or a label is not below C.
    #[track_caller]
    pub fn der_loss(&mut self, logits: Var, loss: &DerLoss<'_>) -> Var {
        let DerLoss {
            labels,
            targets,
            widths,
            replay,
            ..
        } = *loss;
        let c = self.shape(logits).dim(1);
        let current = replay..labels.len();
        let (new, old) = (current.len().max(1) as f64, replay.max(1) as f64);
        let (alpha, beta) = (f64::from(loss.alpha), f64::from(loss.beta));
        let rows = LossRows {
            labels,
            current,
            targets,
            first_target: 0,
            widths,
        };
        let mut compared = rows.compared(c);
        self.row_loss(logits, &rows, |row| {
            if row >= replay {
                return (1.0 / new, 0.0);
            }
            let columns = compared.next().unwrap_or(c);
            (beta / old, alpha / (old * columns.max(1) as f64))
        })
    }

    /// The loss with the weights `(w_ce, w_mse)` of each row given by `weights`, which is called once
    /// for each row, in order.
    ///
    /// # Panics
    /// If the lengths do not fit the logits (`[N, C]`), a label with a weight is not below C, or a
    /// row with an MSE weight has no target.
    #[track_caller]
    pub fn row_loss(
        &mut self,
        logits: Var,
        rows: &LossRows<'_>,
        mut weights: impl FnMut(usize) -> (f64, f64),
    ) -> Var {
        let node = self.node(logits);
        assert_eq!(
            node.shape.rank(),
            2,
            "loss: expected logits [N, C], found {}",
            node.shape
        );
        let (n, c) = (node.shape.dim(0), node.shape.dim(1));
        assert_eq!(
            rows.labels.len(),
            n,
            "loss: labels for logits of shape {}",
            node.shape
        );
        let (given, numbers) = match rows.widths {
            [] => (
                rows.targets.len() / c.max(1),
                rows.targets.len() / c.max(1) * c,
            ),
            widths => (widths.len(), widths.iter().map(|&w| w as usize).sum()),
        };
        assert!(
            rows.targets.len() == numbers && rows.first_target + given <= n,
            "loss: {} stored logits from row {} do not fit logits of shape {}",
            rows.targets.len(),
            rows.first_target,
            node.shape
        );
        self.staging.clear();
        for (i, &label) in rows.labels.iter().enumerate() {
            let (w_ce, w_mse) = weights(i);
            let row = i.wrapping_sub(rows.first_target);
            assert!(
                (label as usize) < c || w_ce == 0.0,
                "loss: label {label} of row {i}, {c} logits"
            );
            assert!(
                w_mse == 0.0 || row < given,
                "loss: row {i} has no stored logits"
            );
            let width = rows.widths.get(row).map_or(c, |&w| (w as usize).min(c));
            let fields = [f64::from(label), w_ce, w_mse, width as f64];
            self.staging.extend(fields.map(B::Elem::from_f64));
        }
        let (table, mut table_out) = self.output(n * ROW_LOSS_COLUMNS);
        self.backend.upload(table_out.view(), &self.staging);
        self.arena.restore(table_out);
        let targets = (given > 0).then(|| {
            self.staging.clear();
            for row in rows.stored(c) {
                let numbers = row.iter().copied().chain(std::iter::repeat(0.0)).take(c);
                self.staging.extend(numbers.map(B::Elem::from_f32));
            }
            let (block, mut lent) = self.output(n * c);
            self.backend
                .upload(lent.range(rows.first_target * c, given * c), &self.staging);
            self.arena.restore(lent);
            block
        });
        let (current_start, current_end) = (rows.current.start, rows.current.end);
        let dims = RowLoss {
            n,
            c,
            current_start,
            current_end,
        };
        let (value, mut terms) = self.output(4);
        let (probs, mut probs_out) = self.output(n * c);
        self.backend.row_loss(
            terms.view(),
            probs_out.view(),
            self.arena.range(node.value, 0, n * c),
            self.arena.view(table),
            targets.map(|t| self.arena.view(t)),
            dims,
        );
        self.arena.restore(terms);
        self.arena.restore(probs_out);
        let op = Op::RowLoss {
            logits,
            rows: table,
            targets,
            probs,
            dims,
        };
        self.push(op, Shape::SCALAR, Order::Rows, value, &[logits], false)
    }

    pub(super) fn row_loss_backward(
        &mut self,
        logits: Var,
        rows: Block,
        targets: Option<Block>,
        probs: Block,
        dims: RowLoss,
        dl: Block,
    ) {
        let node = self.node(logits);
        if let Some((mut dx, write)) = self.grad_of(logits) {
            let source = self.arena.range(node.value, 0, dims.n * dims.c);
            let (rows, probs) = (self.arena.view(rows), self.arena.view(probs));
            let targets = targets.map(|t| self.arena.view(t));
            let dl = self.arena.view(dl);
            self.backend.row_loss_backward(
                dx.view(),
                probs,
                source,
                rows,
                targets,
                dl,
                dims,
                write,
            );
            self.arena.restore(dx);
        }
    }

    /// `[total, cross-entropy of current rows, MSE of logits, cross-entropy of replay rows]` of a
    /// row-weighted loss, each with its weight, so that the last three add up to the first.
    ///
    /// # Panics
    /// If `loss` is not the result of [`row_loss`](Self::row_loss) or one of its short forms.
    #[track_caller]
    pub fn loss_terms(&self, loss: Var) -> [f32; 4] {
        assert!(
            matches!(self.peek(loss).op, Op::RowLoss { .. }),
            "not a row-weighted loss"
        );
        self.read_raw::<4>(loss).map(Elem::to_f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradcheck::Check;

    #[test]
    fn cross_entropy_gradient() {
        Check::new("cross_entropy")
            .input(&[5, 4])
            .run(|g, v, _| g.cross_entropy(v[0], &[0, 3, 2, 2, 1]));
    }

    const DER: DerLoss<'static> = DerLoss {
        labels: &[1, 0, 2, 2, 1],
        targets: &[0.3, -0.2, 0.9, 1.5, -0.7, 0.1],
        widths: &[],
        replay: 2,
        alpha: 0.7,
        beta: 0.4,
    };

    /// The first row was stored when there were two units, the second when the middle one of three
    /// was masked.
    const RAGGED: DerLoss<'static> = DerLoss {
        targets: &[0.3, -0.2, 1.5, f32::NAN, 0.1],
        widths: &[2, 3],
        ..DER
    };

    /// By hand: `0.7·((o00 - 0.3)² + (o01 + 0.2)²)/(2·2) + 0.7·((o10 - 1.5)² + (o12 - 0.1)²)/(2·2)`
    #[test]
    fn only_what_was_stored_is_compared() {
        use crate::backend::reference::Reference;
        use crate::graph::Mode;
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        g.begin(Mode::Train);
        let mut x = vec![0.25; 15];
        x[2] = 1e6;
        x[4] = -1e6;
        let v = g.input(Shape::new(&[5, 3]), &x, true);
        let loss = g.der_loss(
            v,
            &DerLoss {
                beta: 0.0,
                ..RAGGED
            },
        );
        let squares = [0.05f64, 0.45, 1.25, 0.15].map(|d| d * d);
        let want = 0.7 * squares.iter().sum::<f64>() / 4.0;
        let found = f64::from(g.loss_terms(loss)[2]);
        assert!((found - want).abs() <= 1e-6, "{found} against {want}");
        g.backward(loss);
        let dx = g.read_grad(v).unwrap();
        assert_eq!((dx[2], dx[4]), (0.0, 0.0));
        assert!((dx[3] + 0.7 * 2.0 * 1.25 / 4.0).abs() <= 1e-6, "{}", dx[3]);
    }

    #[test]
    #[should_panic(expected = "loss: 5 stored logits from row 0 do not fit")]
    fn widths_that_do_not_add_up_are_refused() {
        let mut g = Graph::new(crate::backend::reference::Reference::<f64>::default()).unwrap();
        g.begin(crate::graph::Mode::Train);
        let v = g.input(Shape::new(&[5, 3]), &[0.0; 15], false);
        g.der_loss(
            v,
            &DerLoss {
                widths: &[3, 3],
                ..RAGGED
            },
        );
    }

    #[test]
    fn der_loss_gradient() {
        Check::new("der_loss")
            .input(&[5, 3])
            .run(|g, v, _| g.der_loss(v[0], &DER));
        Check::new("der_loss on stored columns")
            .input(&[5, 3])
            .run(|g, v, _| g.der_loss(v[0], &RAGGED));
        Check::new("two losses of the same logits")
            .input(&[5, 3])
            .run(|g, v, _| {
                let (a, b) = (g.der_loss(v[0], &DER), g.cross_entropy(v[0], DER.labels));
                g.add(a, b)
            });
    }

    #[test]
    fn der_loss_is_the_sum_of_its_three_terms() {
        use crate::backend::reference::Reference;
        use crate::graph::Mode;
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        g.begin(Mode::Train);
        let x: Vec<f64> = (0..15).map(|i| f64::from(i * 7 % 11) / 4.0 - 1.0).collect();
        let v = g.input(Shape::new(&[5, 3]), &x, false);
        let loss = g.der_loss(v, &DER);
        let ce = |row: usize| {
            let o = &x[row * 3..][..3];
            o.iter().map(|o| o.exp()).sum::<f64>().ln() - o[DER.labels[row] as usize]
        };
        let current = (2..5).map(ce).sum::<f64>() / 3.0;
        let replay = 0.4 * (0..2).map(ce).sum::<f64>() / 2.0;
        let mse = (0..6)
            .map(|i| (x[i] - f64::from(DER.targets[i])).powi(2))
            .sum::<f64>()
            / 6.0;
        let want = [current + 0.7 * mse + replay, current, 0.7 * mse, replay];
        for (got, want) in g.loss_terms(loss).iter().zip(want) {
            assert!(
                (f64::from(*got) - want).abs() <= 1e-6,
                "{got} against {want}"
            );
        }
    }

    #[test]
    fn a_term_with_weight_zero_cannot_poison_the_loss() {
        use crate::backend::reference::Reference;
        use crate::graph::Mode;
        let mut g = Graph::new(Reference::<f64>::default()).unwrap();
        g.begin(Mode::Train);
        let v = g.input(Shape::new(&[2, 2]), &[f64::INFINITY, 0.0, 1.0, 2.0], true);
        let loss = DerLoss {
            labels: &[0, 1],
            targets: &[1.0, 0.0],
            replay: 1,
            alpha: 0.0,
            beta: 0.0,
            widths: &[],
        };
        let loss = g.der_loss(v, &loss);
        assert!(g.read(loss)[0].is_finite());
        g.backward(loss);
        assert!(g.read_grad(v).unwrap().iter().all(|x| x.is_finite()));
    }
}
