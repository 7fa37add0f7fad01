//! Which class is taken for which.

use ndarray::{Array2, Array3, Axis};
use serde::{Deserialize, Serialize};

use super::accuracy::for_each_row;
use super::name::{emit, stream_metric_name};
use super::{Metric, argmax};
use crate::Result;
use crate::figure;
use crate::snapshot::Snapshot;
use crate::template::{Event, MetricData, MetricValue, State};

/// What the counts of a confusion matrix are divided by; 0 by 0 is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Normalize {
    /// Nothing: counts.
    #[default]
    None,
    /// The samples of the true class (Avalanche's `'true'`): the rows add up to 1.
    True,
    /// The predictions of the class (Avalanche's `'pred'`): the columns add up to 1.
    Pred,
    /// All samples (Avalanche's `'all'`).
    All,
}

/// Avalanche's `confusion_matrix_metrics`: in each call of `eval` the number of samples of each true
/// class (row) that were taken for each class (column); see [`ConfusionMatrix`].
pub fn confusion_matrix_metrics() -> Vec<Box<dyn Metric>> {
    vec![Box::new(ConfusionMatrix::default())]
}

/// The confusion matrix of a call of `eval`, as wide as the logits or as `num_classes` says.
///
/// Names: `ConfusionMatrix_Stream/eval_phase/test_stream` the matrix, and with
/// [`image`](Self::image) `ConfusionMatrix_Stream/eval_phase/test_stream/image` a picture of it.
/// Avalanche publishes both under the first name, as alternatives for the logger to choose from.
#[derive(Default)]
pub struct ConfusionMatrix {
    num_classes: Option<usize>,
    normalize: Normalize,
    image: bool,
    absolute_class_order: bool,
    counts: Counts,
    /// Classes in the order in which they were trained on.
    met: Vec<u32>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counts {
    n: usize,
    counts: Vec<u64>,
}

impl Counts {
    /// Makes room for the classes `0..n`.
    fn grow(&mut self, n: usize) {
        if n > self.n {
            let mut larger = vec![0; n * n];
            for (from, to) in (self.counts.chunks(self.n.max(1))).zip(larger.chunks_mut(n)) {
                to[..self.n].copy_from_slice(from);
            }
            *self = Counts { n, counts: larger };
        }
    }

    /// Counts a sample, if it is one of the classes `0..n` and was taken for one.
    fn add(&mut self, n: usize, guess: Option<u32>, label: u32) {
        let label = label as usize;
        if let Some(guess) = guess.filter(|_| label < n) {
            self.grow(n);
            self.counts[label * self.n + guess as usize] += 1;
        }
    }

    fn clear(&mut self, num_classes: usize) {
        self.n = num_classes;
        self.counts.clear();
        self.counts.resize(num_classes * num_classes, 0);
    }
}

impl ConfusionMatrix {
    /// Counts the classes `0..num_classes` only: other logits do not compete, and samples of other
    /// classes do not count (Avalanche fails on them).
    pub fn num_classes(mut self, num_classes: usize) -> Self {
        self.num_classes = Some(num_classes);
        self
    }

    /// What the counts are divided by.
    pub fn normalize(mut self, normalize: Normalize) -> Self {
        self.normalize = normalize;
        self
    }

    /// Whether a picture is emitted too ([`figure::matrix`]): rows are true classes from the top.
    pub fn image(mut self, image: bool) -> Self {
        self.image = image;
        self
    }

    /// Whether the picture shows the classes in ascending order rather than in the order in which
    /// they were trained on.
    pub fn absolute_class_order(mut self, absolute_class_order: bool) -> Self {
        self.absolute_class_order = absolute_class_order;
        self
    }

    fn matrix(&self) -> Array2<f64> {
        let n = self.counts.n;
        let counts = self.counts.counts.iter().map(|&count| count as f64);
        let counts = Array2::from_shape_vec((n, n), counts.collect()).expect("n x n counts");
        let sum = |i: usize, j: usize| match self.normalize {
            Normalize::None => 1.0,
            Normalize::True => counts.row(i).sum(),
            Normalize::Pred => counts.column(j).sum(),
            Normalize::All => counts.sum(),
        };
        Array2::from_shape_fn((n, n), |(i, j)| match counts[[i, j]] {
            0.0 => 0.0,
            count => count / sum(i, j),
        })
    }

    fn picture(&self, matrix: &Array2<f64>) -> Array3<u8> {
        let n = matrix.nrows();
        let mut order: Vec<usize> = self.met.iter().map(|&class| class as usize).collect();
        order.retain(|&class| class < n && !self.absolute_class_order);
        let rest: Vec<usize> = (0..n).filter(|class| !order.contains(class)).collect();
        order.extend(rest);
        let matrix = matrix.select(Axis(0), &order).select(Axis(1), &order);
        let labels: Vec<String> = order.iter().map(usize::to_string).collect();
        figure::matrix(&matrix.into_dyn(), &labels)
    }
}

impl Metric for ConfusionMatrix {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        match event {
            Event::BeforeTrainingExp => {
                let new = s
                    .experience
                    .iter()
                    .flat_map(|e| e.classes_in_this_experience());
                for &class in new {
                    if !self.met.contains(&class) {
                        self.met.push(class);
                    }
                }
            }
            Event::BeforeEval => {
                self.counts.clear(self.num_classes.unwrap_or(0));
            }
            Event::AfterEvalIteration => match self.num_classes {
                Some(n) => for_each_row(s, |row, label| {
                    self.counts.add(n, argmax(row, 0..n as u32), label);
                }),
                None => {
                    let width = s.prediction_width();
                    for (guess, &label) in s.predictions().zip(&s.mb_y) {
                        self.counts.add(width.max(label as usize + 1), guess, label);
                    }
                }
            },
            Event::AfterEval => {
                let (matrix, name) = (
                    self.matrix(),
                    stream_metric_name("ConfusionMatrix_Stream", s),
                );
                if self.image {
                    let picture = MetricData::Image(self.picture(&matrix));
                    emit(out, s, format!("{name}/image"), picture);
                }
                emit(out, s, name, MetricData::Tensor(matrix.into_dyn()));
            }
            _ => {}
        }
    }

    fn is_of_outcomes(&self) -> bool {
        // Otherwise other classes than those of the largest logits may be counted.
        self.num_classes.is_none()
    }

    fn save(&self, out: &mut Snapshot) {
        out.put("counts", &self.counts);
        out.put("met", &self.met);
    }

    fn load(&mut self, from: &Snapshot) -> Result<()> {
        self.counts = from.get("counts")?;
        self.met = from.get("met")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(normalize: Normalize) -> ConfusionMatrix {
        let mut metric = ConfusionMatrix::default().normalize(normalize);
        metric.counts.grow(2);
        metric.counts.counts = vec![3, 1, 0, 0];
        metric.counts.grow(3);
        metric
    }

    #[test]
    fn counts_keep_their_place_when_the_matrix_grows() {
        let counts = matrix(Normalize::None).matrix();
        assert_eq!(
            counts,
            ndarray::arr2(&[[3.0, 1.0, 0.0], [0.0; 3], [0.0; 3]])
        );
    }

    #[test]
    fn nothing_divided_by_nothing_is_nothing() {
        let rows = matrix(Normalize::True).matrix();
        assert_eq!(
            rows,
            ndarray::arr2(&[[0.75, 0.25, 0.0], [0.0; 3], [0.0; 3]])
        );
        let columns = matrix(Normalize::Pred).matrix();
        assert_eq!(
            columns,
            ndarray::arr2(&[[1.0, 1.0, 0.0], [0.0; 3], [0.0; 3]])
        );
        assert_eq!(matrix(Normalize::All).matrix()[[0, 0]], 0.75);
    }

    #[test]
    fn the_picture_shows_classes_in_training_order() {
        let mut metric = matrix(Normalize::None);
        metric.met = vec![1, 0];
        let picture = |metric: &ConfusionMatrix| metric.picture(&metric.matrix());
        let drawn = |cells: [[f64; 3]; 3], labels: [&str; 3]| {
            figure::matrix(&ndarray::arr2(&cells).into_dyn(), &labels.map(String::from))
        };
        // Of class 0 three samples were right and one was taken for class 1.
        let trained = drawn(
            [[0.0, 0.0, 0.0], [1.0, 3.0, 0.0], [0.0; 3]],
            ["1", "0", "2"],
        );
        assert_eq!(picture(&metric), trained);
        metric = metric.absolute_class_order(true);
        let ascending = drawn([[3.0, 1.0, 0.0], [0.0; 3], [0.0; 3]], ["0", "1", "2"]);
        assert_eq!(picture(&metric), ascending);
        assert_ne!(trained, ascending);
    }
}
