//! Metrics of continual learning, as pure functions of an accuracy matrix.
//!
//! Row `i` of the matrix is the evaluation after the `i`-th training, column `j` the test set of
//! experience `j`; `a[i][j]` is a fraction in `[0, 1]`. The matrix need not be square: joint
//! training has one row, an interrupted run has fewer rows than columns. Every metric is `None`
//! where it has no meaning, never NaN.
//!
//! | metric | formula, with `T` the last row | source |
//! |---|---|---|
//! | [`average_accuracy`](AccuracyMatrix::average_accuracy) | `mean_j a[T][j]` | Lopez-Paz & Ranzato 2017 (GEM), §2 |
//! | [`average_incremental_accuracy`](AccuracyMatrix::average_incremental_accuracy) | `mean_i mean_{j<=i} a[i][j]` | Rebuffi et al. 2017 (iCaRL), §4 |
//! | [`forgetting`](AccuracyMatrix::forgetting) | `mean_{j<T} (a[j][j] - a[T][j])` | Avalanche, `StreamForgetting` |
//! | [`max_forgetting`](AccuracyMatrix::max_forgetting) | `mean_{j<T} (max_{i<T} a[i][j] - a[T][j])` | Chaudhry et al. 2018, §3 |
//! | [`backward_transfer`](AccuracyMatrix::backward_transfer) | `mean_{j<T} (a[T][j] - a[j][j])` | Lopez-Paz & Ranzato 2017 (GEM), §2 |

use serde::{Deserialize, Serialize};

/// The accuracies of a run, one row per evaluation.
///
/// ```
/// use unforget::evaluation::AccuracyMatrix;
/// let mut matrix = AccuracyMatrix::default();
/// matrix.push(vec![1.0, 0.0]);
/// matrix.push(vec![0.25, 0.75]);
/// assert_eq!(matrix.average_accuracy(), Some(0.5));
/// assert_eq!(matrix.forgetting(), Some(0.75));
/// assert_eq!(matrix.backward_transfer(), Some(-0.75));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccuracyMatrix {
    rows: Vec<Vec<f64>>,
}

impl AccuracyMatrix {
    /// Adds the evaluation made after one more training.
    ///
    /// # Panics
    /// If the row has another length than the rows before it.
    #[track_caller]
    pub fn push(&mut self, row: Vec<f64>) {
        if let Some(first) = self.rows.first() {
            assert_eq!(
                first.len(),
                row.len(),
                "every row of an accuracy matrix has one entry per test experience"
            );
        }
        self.rows.push(row);
    }

    /// The rows, oldest first.
    pub fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    /// The mean accuracy over all test experiences at the end of the run. Each experience counts
    /// the same, whatever its number of samples; experiences not trained on yet count too.
    pub fn average_accuracy(&self) -> Option<f64> {
        mean(self.rows.last()?.iter().copied())
    }

    /// The mean over the evaluations of the mean accuracy on the experiences seen until then.
    pub fn average_incremental_accuracy(&self) -> Option<f64> {
        mean(
            self.rows
                .iter()
                .enumerate()
                .filter_map(|(i, row)| mean(row.iter().take(i + 1).copied())),
        )
    }

    /// What was lost since an experience was learned: its accuracy right after training on it
    /// minus its accuracy at the end, averaged over all experiences but the last. Negative when
    /// later training helped. This is Avalanche's definition.
    pub fn forgetting(&self) -> Option<f64> {
        let (last, before) = self.rows.split_last()?;
        mean(
            before
                .iter()
                .zip(last)
                .enumerate()
                .filter_map(|(j, (row, end))| Some(row.get(j)? - end)),
        )
    }

    /// As [`forgetting`](Self::forgetting), but measured from the best accuracy the experience had
    /// at any evaluation before the last, its own training or later (Chaudhry et al. 2018).
    pub fn max_forgetting(&self) -> Option<f64> {
        let (last, before) = self.rows.split_last()?;
        mean(last.iter().take(before.len()).enumerate().map(|(j, end)| {
            let best = before
                .iter()
                .map(|row| row[j])
                .fold(f64::NEG_INFINITY, f64::max);
            best - end
        }))
    }

    /// The influence of later training on earlier experiences: minus
    /// [`forgetting`](Self::forgetting).
    pub fn backward_transfer(&self) -> Option<f64> {
        // Subtracted from zero so that no forgetting prints as 0, not as -0.
        self.forgetting().map(|lost| 0.0 - lost)
    }
}

/// The mean, or `None` of nothing.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[&[f64]]) -> AccuracyMatrix {
        let mut matrix = AccuracyMatrix::default();
        for row in rows {
            matrix.push(row.to_vec());
        }
        matrix
    }

    #[track_caller]
    fn near(value: Option<f64>, wanted: f64) {
        let value = value.expect("a value");
        let close = (value - wanted).abs() <= 1e-12;
        assert!(close, "{value} is not {wanted}");
    }

    // Three experiences; the first is at its best after the second training.
    const ROWS: [&[f64]; 3] = [&[0.8, 0.1, 0.0], &[0.9, 0.6, 0.2], &[0.5, 0.4, 0.7]];

    #[test]
    fn metrics_agree_with_numbers_worked_out_by_hand() {
        let m = matrix(&ROWS);
        near(m.average_accuracy(), (0.5 + 0.4 + 0.7) / 3.0);
        near(
            m.average_incremental_accuracy(),
            (0.8 + 0.75 + 1.6 / 3.0) / 3.0,
        );
        near(m.forgetting(), (0.3 + 0.2) / 2.0);
        near(m.max_forgetting(), (0.4 + 0.2) / 2.0);
        near(m.backward_transfer(), -0.25);
    }

    #[test]
    fn one_training_has_an_accuracy_but_nothing_to_forget() {
        let joint = matrix(&[&[0.9, 0.8]]);
        near(joint.average_accuracy(), 0.85);
        assert_eq!(joint.forgetting(), None);
        assert_eq!(joint.max_forgetting(), None);
        assert_eq!(joint.backward_transfer(), None);
        assert_eq!(AccuracyMatrix::default().average_accuracy(), None);
        assert_eq!(
            AccuracyMatrix::default().average_incremental_accuracy(),
            None
        );
    }

    #[test]
    fn an_interrupted_run_counts_the_experiences_it_trained_on() {
        let m = matrix(&ROWS[..2]);
        near(m.forgetting(), -0.1);
        near(m.max_forgetting(), -0.1);
    }

    #[test]
    #[should_panic(expected = "one entry per test experience")]
    fn rows_of_different_lengths_are_a_callers_bug() {
        matrix(&[&[0.1, 0.2], &[0.3]]);
    }
}
