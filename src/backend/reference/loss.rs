//! The row-weighted loss.

use super::{Elem, RowLoss, Write, put, put_all};
use crate::backend::ROW_LOSS_COLUMNS;

/// What the loss is computed from.
pub(super) struct Rows<'a, E> {
    logits: &'a [E],
    table: &'a [E],
    targets: Option<&'a [E]>,
    dims: RowLoss,
}

/// One line of the row table.
struct Row {
    label: usize,
    w_ce: f64,
    w_mse: f64,
    width: usize,
}

impl<'a, E: Elem> Rows<'a, E> {
    pub(super) fn new(
        logits: &'a [E],
        table: &'a [E],
        targets: Option<&'a [E]>,
        dims: RowLoss,
    ) -> Self {
        Rows {
            logits,
            table,
            targets,
            dims,
        }
    }

    fn row(&self, i: usize) -> Row {
        let line = &self.table[i * ROW_LOSS_COLUMNS..][..ROW_LOSS_COLUMNS];
        Row {
            label: line[0].to_f64() as usize,
            w_ce: line[1].to_f64(),
            w_mse: line[2].to_f64(),
            width: line[3].to_f64() as usize,
        }
    }

    fn logit(&self, i: usize, j: usize) -> f64 {
        self.logits[i * self.dims.c + j].to_f64()
    }

    /// `o_ij - z_ij`, or 0 where z was not stored; only where row `i` has a weight for it.
    fn distance(&self, i: usize, j: usize) -> f64 {
        let targets = self
            .targets
            .expect("a row with an MSE weight has stored logits");
        let z = targets[i * self.dims.c + j].to_f64();
        if z.is_nan() {
            0.0
        } else {
            self.logit(i, j) - z
        }
    }
}

/// `L = Σ_i w_ce[i]·CE(o_i, label_i) + w_mse[i]·Σ_{j < width_i} (o_ij - z_ij)²`
pub(super) fn row_loss<E: Elem>(
    terms: &mut [E],
    probs: &mut [E],
    logits: &[E],
    table: &[E],
    targets: Option<&[E]>,
    dims: RowLoss,
) {
    let rows = Rows::new(logits, table, targets, dims);
    let (mut current, mut mse, mut replay) = (0.0, 0.0, 0.0);
    for i in 0..dims.n {
        let row = rows.row(i);
        if row.w_ce != 0.0 {
            let top = (0..dims.c)
                .map(|j| rows.logit(i, j))
                .fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..dims.c).map(|j| (rows.logit(i, j) - top).exp()).sum();
            let softmax = (0..dims.c).map(|j| (rows.logit(i, j) - top).exp() / sum);
            put_all(&mut probs[i * dims.c..][..dims.c], softmax, Write::Set);
            let ce = row.w_ce * (sum.ln() + top - rows.logit(i, row.label));
            match (dims.current_start..dims.current_end).contains(&i) {
                true => current += ce,
                false => replay += ce,
            }
        }
        if row.w_mse != 0.0 {
            let squares: f64 = (0..row.width).map(|j| rows.distance(i, j).powi(2)).sum();
            mse += row.w_mse * squares;
        }
    }
    put_all(
        terms,
        [current + mse + replay, current, mse, replay],
        Write::Set,
    );
}

/// `dx = dl·(w_ce·(softmax(o) - onehot(label)) + 2·w_mse·(o - z))`
pub(super) fn row_loss_backward<E: Elem>(
    dx: &mut [E],
    probs: &[E],
    rows: &Rows<'_, E>,
    dl: E,
    write: Write,
) {
    let RowLoss { n, c, .. } = rows.dims;
    for i in 0..n {
        let row = rows.row(i);
        for j in 0..c {
            let mut d = 0.0;
            if row.w_ce != 0.0 {
                let onehot = if j == row.label { 1.0 } else { 0.0 };
                d += row.w_ce * (probs[i * c + j].to_f64() - onehot);
            }
            if row.w_mse != 0.0 && j < row.width {
                d += 2.0 * row.w_mse * rows.distance(i, j);
            }
            put(&mut dx[i * c + j], dl.to_f64() * d, write);
        }
    }
}
