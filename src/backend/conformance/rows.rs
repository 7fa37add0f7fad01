//! Masked columns, rows in another order, and what is predicted of each row.

use super::{Case, Lab, Visitor, WRITES};
use crate::backend::{Backend, Write};

pub(super) fn visit(visitor: &mut impl Visitor) {
    for (rows, cols) in [(0, 3), (1, 1), (5, 17), (20, 10), (33, 100), (20_000, 30)] {
        for write in WRITES {
            visitor.visit(MaskColumns { rows, cols, write });
            for other in [cols, cols + 3, cols.div_ceil(2)] {
                visitor.visit(GatherRows {
                    rows,
                    from: rows + 2,
                    cols: [cols, other],
                    write,
                });
            }
        }
    }
    for rows in [0, 1, 5, 33, 100] {
        for cols in [1, 3, 10, 33, 100] {
            for kept in [1, 2, 200] {
                visitor.visit(NoteOutcome { rows, cols, kept });
            }
        }
    }
}

/// Two mini-batches, whose logits are often equal and here and there NaN or infinite, behind numbers that are in
/// the ledger already.
#[derive(Debug)]
struct NoteOutcome {
    rows: usize,
    cols: usize,
    /// Every so many-th column is kept, but not the first; so there may be none.
    kept: usize,
}

impl Case for NoteOutcome {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let keep = (0..self.cols).map(|j| f64::from(u8::from(j % self.kept == self.kept - 1)));
        let keep = lab.given(&keep.collect::<Vec<_>>());
        let mut before = vec![9.0; 4 + 2 * (1 + 2 * self.rows)];
        before[0] = 3.0;
        let mut ledger = lab.given(&before);
        for loss in [0.5, -2.0] {
            let logits = lab.noise(self.rows * self.cols);
            let logits = logits.iter().enumerate().map(|(at, x)| match at % 11 {
                // In rows of NaN at first and of nothing but NaN, too.
                0 | 1 => f64::NAN,
                2 => f64::NEG_INFINITY,
                3 if *x > 0.5 => f64::INFINITY,
                _ => (x * 3.0).round(),
            });
            let logits = lab.given(&logits.collect::<Vec<_>>());
            let loss = lab.given(&[loss, 7.0]);
            (lab.backend).note_outcome(ledger.dst(), loss.src(), logits.src(), keep.src());
        }
        lab.record("ledger", &ledger, 1);
    }
}

#[derive(Debug)]
struct MaskColumns {
    rows: usize,
    cols: usize,
    write: Write,
}

impl Case for MaskColumns {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let len = self.rows * self.cols;
        let kept = |j: usize| j % 3 != 1;
        let mut x = lab.noise(len);
        // Whatever stands in a masked column, a NaN included, does not come through.
        for (at, x) in x.iter_mut().enumerate() {
            if !kept(at % self.cols) {
                *x = f64::NAN;
            }
        }
        let keep: Vec<f64> = (0..self.cols)
            .map(|j| f64::from(u8::from(kept(j))))
            .collect();
        let (x, keep) = (lab.given(&x), lab.given(&keep));
        let value = crate::backend::Elem::from_f64(-1000.0);
        let mut y = lab.output(len, self.write);
        lab.backend
            .mask_columns(y.dst(), x.src(), keep.src(), value, self.write);
        lab.record("y", &y, 1);
    }
}

#[derive(Debug)]
struct GatherRows {
    /// Rows of the result.
    rows: usize,
    /// Rows of the source.
    from: usize,
    /// Columns of the result and of the source.
    cols: [usize; 2],
    write: Write,
}

impl Case for GatherRows {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let [y_cols, x_cols] = self.cols;
        let x = lab.input(self.from * x_cols);
        // Backwards through the source, leaving out every third row.
        let index: Vec<f64> = (0..self.rows)
            .map(|k| {
                if k % 3 == 2 {
                    -1.0
                } else {
                    (self.from - 1 - k) as f64
                }
            })
            .collect();
        let index = lab.given(&index);
        let mut y = lab.output(self.rows * y_cols, self.write);
        lab.backend
            .gather_rows(y.dst(), y_cols, x.src(), x_cols, index.src(), self.write);
        lab.record("y", &y, 1);
    }
}
