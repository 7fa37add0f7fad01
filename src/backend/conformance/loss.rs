//! The row-weighted loss.

use super::{Case, Lab, Visitor, WRITES};
use crate::backend::{Backend, RowLoss, Write};

pub(super) fn visit(visitor: &mut impl Visitor) {
    for (n, c, current) in [
        (0, 10, 0..0),
        (1, 1, 0..1),
        (10, 10, 0..10),
        (20, 10, 10..20),
        (33, 17, 0..16),
        (30, 100, 10..20),
        (384, 20, 256..384),
    ] {
        for write in WRITES {
            for logits_scale in [1.0, 30.0] {
                let dims = RowLoss {
                    n,
                    c,
                    current_start: current.start,
                    current_end: current.end,
                };
                visitor.visit(RowLossCase {
                    dims,
                    logits_scale,
                    with_targets: true,
                    write,
                });
                visitor.visit(RowLossCase {
                    dims,
                    logits_scale,
                    with_targets: false,
                    write,
                });
            }
        }
    }
}

/// The loss and its gradient. By turns the rows weigh both terms, only the first, only the second,
/// and none.
#[derive(Debug)]
pub(super) struct RowLossCase {
    pub(super) dims: RowLoss,
    /// Magnitude of the logits.
    pub(super) logits_scale: f64,
    /// Whether some row has stored logits.
    pub(super) with_targets: bool,
    /// How the gradient is written.
    pub(super) write: Write,
}

impl Case for RowLossCase {
    fn run<B: Backend>(&self, lab: &mut Lab<'_, B>) {
        let (RowLoss { n, c, .. }, backend) = (self.dims, lab.backend);
        let mut logits = lab.noise(n * c);
        logits.iter_mut().for_each(|o| *o *= self.logits_scale);
        let mut targets = lab.noise(n * c);
        let mut rows = Vec::new();
        for i in 0..n {
            let weight = lab.number().abs() + 0.5;
            let w_ce = if i % 4 < 2 { weight / n as f64 } else { 0.0 };
            let w_mse = if i % 2 == 0 && self.with_targets {
                weight / (n * c) as f64
            } else {
                0.0
            };
            let width = if w_mse == 0.0 { 0 } else { c - i % c };
            // Where a weight is 0, and beyond the width, anything may stand.
            targets[i * c + width..(i + 1) * c].fill(f64::INFINITY);
            // A stored logit that is NaN is left out.
            if width > 2 && i % 3 == 0 {
                targets[i * c + i % width] = f64::NAN;
            }
            if w_ce == 0.0 && w_mse == 0.0 {
                logits[i * c..][..c].fill(f64::NAN);
            }
            let line = [(i * 7 % c) as f64, w_ce, w_mse, width as f64];
            rows.extend(line.map(|x| f64::from(x as f32)));
        }
        let logits: Vec<f64> = logits.iter().map(|&x| f64::from(x as f32)).collect();
        let used = |i: usize| rows[i * 4 + 1] != 0.0;
        let unused: Vec<bool> = (0..n).map(|i| !used(i)).collect();
        let (logits, rows) = (lab.given(&logits), lab.given(&rows));
        let targets = self.with_targets.then(|| lab.given(&targets));
        let targets = targets.as_ref().map(|t| t.src());

        let mut terms = lab.output(4, Write::Set);
        let mut probs = lab.output(n * c, Write::Set);
        backend.row_loss(
            terms.dst(),
            probs.dst(),
            logits.src(),
            rows.src(),
            targets,
            self.dims,
        );
        lab.record_scaled("terms", &terms, 1, self.logits_scale);
        // The softmax of a row without CE weight is unspecified.
        let mut softmax = lab.read(&probs);
        for (row, _) in softmax
            .chunks_mut(c)
            .zip(&unused)
            .filter(|(_, unused)| **unused)
        {
            row.fill(0.0);
        }
        let probs = lab.given(&softmax);
        lab.record_scaled("probs", &probs, 1, self.logits_scale);

        let dl = lab.given(&[0.75]);
        let mut dx = lab.output(n * c, self.write);
        backend.row_loss_backward(
            dx.dst(),
            probs.src(),
            logits.src(),
            rows.src(),
            targets,
            dl.src(),
            self.dims,
            self.write,
        );
        lab.record_scaled("dx", &dx, 1, self.logits_scale);
    }
}
