//! What the data looks like.

use ndarray::{Array3, s};

use super::Metric;
use super::name::{emit, metric_name};
use crate::data::{ClassificationDataset, RawSample};
use crate::rng::TorchGenerator;
use crate::template::{Event, MetricData, MetricValue, State};

/// Black pixels between two images and around the grid, as torchvision's `make_grid` leaves them.
const PADDING: usize = 2;

/// Avalanche's `images_samples_metrics`: see [`ImagesSamples`].
pub fn images_samples_metrics(
    n_rows: usize,
    n_cols: usize,
    on_train: bool,
    on_eval: bool,
) -> Vec<Box<dyn Metric>> {
    vec![Box::new(
        ImagesSamples::new(n_rows, n_cols).streams(on_train, on_eval),
    )]
}

/// A grid of random samples of the data of each experience (`adapted_dataset`), as they are stored:
/// neither augmented nor normalised, and without replay.
///
/// Names: `images/train_phase/train_stream/Task000` and
/// `images/eval_phase/test_stream/Task000/Exp000`.
///
/// Avalanche shuffles with the generator of the run, so that looking at images changes the training;
/// here the choice depends on the iterations trained only. Numbers that are not bytes are spread over
/// black to white, from the least to the largest of the grid. An image of other than 1 or 3 channels
/// shows its first channel.
pub struct ImagesSamples {
    n_rows: usize,
    n_cols: usize,
    group: bool,
    on_train: bool,
    on_eval: bool,
}

impl ImagesSamples {
    /// A grid for training data, grouped by task and label.
    pub fn new(n_rows: usize, n_cols: usize) -> Self {
        ImagesSamples {
            n_rows,
            n_cols,
            group: true,
            on_train: true,
            on_eval: false,
        }
    }

    /// Whether images of the same task and label stand together (default true).
    pub fn group(mut self, group: bool) -> Self {
        self.group = group;
        self
    }

    /// Whether grids of training data and of evaluation data are emitted (default: training only).
    pub fn streams(mut self, on_train: bool, on_eval: bool) -> Self {
        (self.on_train, self.on_eval) = (on_train, on_eval);
        self
    }

    fn grid(&self, data: &ClassificationDataset, seed: u64) -> Array3<u8> {
        let mut chosen = TorchGenerator::manual_seed(seed).randperm(data.len());
        chosen.truncate(self.n_rows.saturating_mul(self.n_cols));
        let mut chosen: Vec<usize> = chosen.into_iter().map(|i| i as usize).collect();
        if self.group {
            chosen.sort_by_key(|&i| (data.task_label(i), data.target(i)));
        }
        let pictures: Vec<RawSample> = chosen.iter().map(|&i| data.raw(i)).collect();
        let pixels = to_bytes(&pictures);
        let [channels, height, width] = data.shape();
        let columns = self.n_cols.min(chosen.len());
        let rows = chosen.len().div_ceil(columns.max(1));
        let mut grid = Array3::zeros((
            rows * (height + PADDING) + PADDING,
            columns * (width + PADDING) + PADDING,
            3,
        ));
        for (at, pixels) in pixels.chunks_exact(channels * height * width).enumerate() {
            let top = (at / columns) * (height + PADDING) + PADDING;
            let left = (at % columns) * (width + PADDING) + PADDING;
            let mut cell = grid.slice_mut(s![top..top + height, left..left + width, ..]);
            for ((y, x, colour), pixel) in cell.indexed_iter_mut() {
                let channel = if channels == 3 { colour } else { 0 };
                *pixel = pixels[(channel * height + y) * width + x];
            }
        }
        grid
    }
}

/// All pixels as bytes.
fn to_bytes(pictures: &[RawSample]) -> Vec<u8> {
    let numbers = |picture: &RawSample| match picture {
        RawSample::U8(_) => Vec::new(),
        RawSample::F32(pixels) => pixels.to_vec(),
    };
    let floats = pictures.iter().flat_map(numbers);
    let range = |(low, high): (f32, f32), x: f32| (low.min(x), high.max(x));
    let (low, high) = floats.fold((f32::INFINITY, f32::NEG_INFINITY), range);
    let byte = |x: f32| match high > low {
        true => {
            (255.0 * (f64::from(x) - f64::from(low)) / (f64::from(high) - f64::from(low))).round()
        }
        false => 0.0,
    };
    let bytes = |picture: &RawSample| match picture {
        RawSample::U8(pixels) => pixels.to_vec(),
        RawSample::F32(pixels) => pixels.iter().map(|&x| byte(x) as u8).collect(),
    };
    pictures.iter().flat_map(bytes).collect()
}

impl Metric for ImagesSamples {
    fn on(&mut self, event: Event, s: &State, out: &mut Vec<MetricValue>) {
        let of_experience = match event {
            Event::AfterTrainDatasetAdaptation if self.on_train => false,
            Event::AfterEvalDatasetAdaptation if self.on_eval => true,
            _ => return,
        };
        if let Some(data) = &s.adapted_dataset {
            let name = metric_name("images", s, of_experience);
            let grid = self.grid(data, s.clock.train_iterations);
            emit(out, s, name, MetricData::Image(grid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Dataset, TransformGroups};

    fn view(dataset: Dataset) -> ClassificationDataset {
        ClassificationDataset::new(dataset, TransformGroups::default())
    }

    #[test]
    fn samples_stand_in_the_grid_by_label() {
        // Sample i has the pixels i + 1 and 100 + i.
        let pixels = (0..6).flat_map(|i| [i + 1, 100 + i]).collect();
        let labels = vec![2, 1, 0, 2, 1, 0];
        let data = view(Dataset::from_u8("dots", [1, 1, 2], pixels, labels, 3).unwrap());
        let grid = ImagesSamples::new(2, 3).grid(&data, 5);
        assert_eq!(grid.dim(), (2 * 3 + 2, 3 * 4 + 2, 3));
        let cell = |row: usize, column: usize| {
            let (y, x) = (2 + 3 * row, 2 + 4 * column);
            assert_eq!(grid[[y, x, 0]], grid[[y, x, 2]]);
            assert_eq!(grid[[y, x + 1, 1]], grid[[y, x, 1]] + 99);
            assert_eq!((grid[[y, x + 2, 0]], grid[[y + 1, x, 0]]), (0, 0));
            data.target(grid[[y, x, 0]] as usize - 1)
        };
        let labels = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)].map(|(r, c)| cell(r, c));
        assert_eq!(labels, [0, 0, 1, 1, 2, 2]);
        assert_eq!(grid, ImagesSamples::new(2, 3).grid(&data, 5));
    }

    #[test]
    fn numbers_are_spread_over_black_to_white() {
        let pixels = vec![-1.0, 1.0, 3.0, 0.0, 0.0, 0.0];
        let data = view(Dataset::from_f32("rgb", [3, 1, 1], pixels, vec![0, 1], 2).unwrap());
        let grid = ImagesSamples::new(1, 2).grid(&data, 0);
        assert_eq!(grid.slice(s![2, 2, ..]).to_vec(), [0, 128, 255]);
        assert_eq!(grid.slice(s![2, 5, ..]).to_vec(), [64, 64, 64]);
    }

    #[test]
    fn a_grid_of_few_samples_or_of_none_is_small() {
        let data = view(Dataset::from_u8("dots", [1, 1, 1], vec![7; 3], vec![0; 3], 1).unwrap());
        assert_eq!(ImagesSamples::new(8, 2).grid(&data, 0).dim(), (8, 8, 3));
        let none = ImagesSamples::new(2, 2).grid(&data.subset(&[]), 0);
        assert_eq!(none.dim(), (2, 2, 3));
        assert_eq!(ImagesSamples::new(0, 0).grid(&data, 0).dim(), (2, 2, 3));
    }
}
