//! Labelled images as they came from their source.

use super::Images;
use crate::rng::MAX_RANDPERM;
use crate::{Error, Result};
use ndarray::Array4;
use std::sync::Arc;

/// Labelled images, checked once when they are made.
///
/// Cloning shares the memory. What an experience sees of it is a
/// [`ClassificationDataset`](super::ClassificationDataset).
///
/// ```
/// use ndarray::Array4;
/// use unforget::data::Dataset;
/// let digits = Dataset::from_u8("digits", Array4::zeros((3, 1, 8, 8)), [0, 2, 1], 3)?;
/// assert_eq!((digits.len(), digits.shape()), (3, [1, 8, 8]));
///
/// let error = Dataset::from_u8("digits", Array4::zeros((2, 1, 8, 8)), [0, 3], 3).unwrap_err();
/// assert_eq!(error.to_string(), "digits: label of sample 1: expected 0 to 2, found 3");
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset {
    name: Arc<str>,
    images: Images,
    targets: Arc<[u32]>,
    n_classes: usize,
}

impl Dataset {
    /// A data set of `images` with the label of each, in `0..n_classes`. `name` appears in
    /// messages.
    ///
    /// # Errors
    /// [`Error::Config`] if the numbers of images and labels differ, there are more than
    /// [`MAX_RANDPERM`] of them, or a label is out of range; [`Error::NonFinite`] for a NaN or an
    /// infinity among the pixels.
    pub fn new(
        name: &str,
        images: Images,
        targets: impl Into<Arc<[u32]>>,
        n_classes: usize,
    ) -> Result<Self> {
        let targets = targets.into();
        if images.len() != targets.len() {
            let expected = format!("one for each of the {} images", images.len());
            return Err(Error::config(format!("{name}: labels"), expected, targets.len()));
        }
        if targets.len() > MAX_RANDPERM as usize {
            let expected = format!("at most {MAX_RANDPERM}");
            return Err(Error::config(format!("{name}: samples"), expected, targets.len()));
        }
        if let Some(at) = first_outside(&targets, n_classes) {
            let name = format!("{name}: label of sample {at}");
            let expected = match n_classes {
                0 => "no sample (there is no class)".to_string(),
                _ => format!("0 to {}", n_classes - 1),
            };
            return Err(Error::config(name, expected, targets[at]));
        }
        if let Some((at, value)) = images.first_non_finite() {
            return Err(Error::NonFinite(format!(
                "{name}: sample {at} holds {value}; clean the data (every pixel must be finite)"
            )));
        }
        Ok(Dataset { name: name.into(), images, targets, n_classes })
    }

    /// A data set from bytes (image, channel, row, column), 255 standing for 1.0.
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn from_u8(
        name: &str,
        images: Array4<u8>,
        targets: impl Into<Arc<[u32]>>,
        n_classes: usize,
    ) -> Result<Self> {
        Self::new(name, Images::from_u8(images)?, targets, n_classes)
    }

    /// A data set from ready values (image, channel, row, column).
    ///
    /// # Errors
    /// As [`Dataset::new`].
    pub fn from_f32(
        name: &str,
        images: Array4<f32>,
        targets: impl Into<Arc<[u32]>>,
        n_classes: usize,
    ) -> Result<Self> {
        Self::new(name, Images::from_f32(images)?, targets, n_classes)
    }

    /// The name given by the source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The images.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// (channels, height, width) of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.images.shape()
    }

    /// The label of every image.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// Labels are below this number; not each of them need occur.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

/// The position of the first label that is not below `n_classes`.
pub(super) fn first_outside(targets: &[u32], n_classes: usize) -> Option<usize> {
    targets.iter().position(|&target| target as usize >= n_classes)
}

/// A data set as it is published: a part to train on and a part to test on.
#[derive(Clone, Debug)]
pub struct TrainTest {
    /// The samples to train on.
    pub train: Dataset,
    /// The samples to test on.
    pub test: Dataset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_place() {
        let zeros = || Array4::<u8>::zeros((2, 1, 1, 1));
        let message = |result: Result<Dataset>| result.unwrap_err().to_string();
        assert_eq!(
            message(Dataset::from_u8("d", zeros(), [0], 1)),
            "d: labels: expected one for each of the 2 images, found 1"
        );
        assert_eq!(
            message(Dataset::from_u8("d", zeros(), [0, 0], 0)),
            "d: label of sample 0: expected no sample (there is no class), found 0"
        );
        let mut values = Array4::<f32>::zeros((3, 1, 2, 2));
        values[[1, 0, 1, 1]] = f32::NAN;
        let error = Dataset::from_f32("d", values, [0, 0, 0], 1).unwrap_err();
        assert!(matches!(error, Error::NonFinite(_)));
        assert!(error.to_string().starts_with("d: sample 1 holds NaN"), "{error}");
    }

    #[test]
    fn an_empty_data_set_is_possible() {
        let empty = Dataset::from_u8("d", Array4::zeros((0, 1, 2, 2)), [], 0).unwrap();
        assert!(empty.is_empty() && empty.images().is_empty());
    }
}
