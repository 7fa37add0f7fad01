//! Labelled images as they were stored.

use std::sync::Arc;

use super::on_disk::ImageFiles;
use crate::{Error, Result};

/// The pixels of a [`Dataset`], sample after sample, each laid out channels x height x width.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Bytes, 0 to 255, as image files hold them.
    U8(Arc<[u8]>),
    /// Floating point numbers, finite, in whatever range the user prepared.
    F32(Arc<[f32]>),
    /// Bytes in files of pictures, each decoded when it is wanted.
    Files(Arc<ImageFiles>),
}

/// Labelled images, in memory or in files that are read when they are wanted; validated once, and a clone
/// shares them.
///
/// ```
/// use unforget::data::Dataset;
/// let dataset = Dataset::from_u8("two dots", [1, 1, 2], vec![0, 255, 255, 0], vec![1, 0], 2)?;
/// assert_eq!((dataset.len(), dataset.shape()), (2, [1, 1, 2]));
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dataset(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    shape: [usize; 3],
    pixels: Pixels,
    targets: Vec<u32>,
    n_classes: usize,
}

impl Dataset {
    /// `pixels` holds `targets.len()` samples of `shape` (channels, height, width) one after the
    /// other; every target is less than `n_classes`.
    ///
    /// # Errors
    /// [`Error::Config`] if a dimension is zero, the lengths disagree or a target is too large.
    pub fn from_u8(
        name: &str,
        shape: [usize; 3],
        pixels: Vec<u8>,
        targets: Vec<u32>,
        n_classes: usize,
    ) -> Result<Dataset> {
        check(name, shape, pixels.len(), &targets, n_classes)?;
        let pixels = Pixels::U8(pixels.into());
        let name = name.to_owned();
        Ok(Dataset(Arc::new(Inner {
            name,
            shape,
            pixels,
            targets,
            n_classes,
        })))
    }

    /// As [`Dataset::from_u8`], from numbers that are used as they are (no division by 255).
    ///
    /// # Errors
    /// [`Error::Config`] as for [`Dataset::from_u8`]; [`Error::NonFinite`], naming the sample, if a
    /// pixel is NaN or infinite.
    pub fn from_f32(
        name: &str,
        shape: [usize; 3],
        pixels: Vec<f32>,
        targets: Vec<u32>,
        n_classes: usize,
    ) -> Result<Dataset> {
        let size = check(name, shape, pixels.len(), &targets, n_classes)?;
        if let Some(at) = pixels.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite(format!(
                "data set {name}: sample {} holds {} at position {}; clean the data first",
                at / size,
                pixels[at],
                at % size
            )));
        }
        let pixels = Pixels::F32(pixels.into());
        let name = name.to_owned();
        Ok(Dataset(Arc::new(Inner {
            name,
            shape,
            pixels,
            targets,
            n_classes,
        })))
    }

    /// Pictures that are decoded when they are wanted.
    pub(super) fn from_files(
        name: &str,
        files: ImageFiles,
        targets: Vec<u32>,
        n_classes: usize,
    ) -> Result<Dataset> {
        let shape = files.shape();
        let size = shape.iter().fold(1usize, |n, &d| n.saturating_mul(d));
        let values = size.saturating_mul(files.len());
        check(name, shape, values, &targets, n_classes)?;
        Ok(Dataset(Arc::new(Inner {
            name: name.to_owned(),
            shape,
            pixels: Pixels::Files(Arc::new(files)),
            targets,
            n_classes,
        })))
    }

    /// Whether a sample has to be read and decoded whenever it is wanted.
    pub(super) fn is_on_disk(&self) -> bool {
        matches!(self.0.pixels, Pixels::Files(_))
    }

    /// What the data is called in messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Channels, height and width of one sample.
    pub fn shape(&self) -> [usize; 3] {
        self.0.shape
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.0.targets.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.0.targets.is_empty()
    }

    /// The class of every sample.
    pub fn targets(&self) -> &[u32] {
        &self.0.targets
    }

    /// All pixels, sample after sample.
    pub fn pixels(&self) -> &Pixels {
        &self.0.pixels
    }

    /// The number of classes; every target is below it.
    pub fn n_classes(&self) -> usize {
        self.0.n_classes
    }
}

/// The number of pixels of one sample, or what is wrong with the pieces of a data set.
fn check(
    name: &str,
    shape: [usize; 3],
    pixels: usize,
    targets: &[u32],
    n_classes: usize,
) -> Result<usize> {
    let field = |what| format!("data set {name}, {what}");
    let size = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    // Samples and pixel positions are addressed with u32, and u32::MAX marks "outside the image".
    let Some(size) = size.filter(|&n| n > 0 && n < u32::MAX as usize) else {
        return Err(Error::config(
            field("shape"),
            "channels, height and width of at least 1 and fewer than 2^32 - 1 pixels",
            format!("{shape:?}"),
        ));
    };
    if targets.len() >= u32::MAX as usize || size.checked_mul(targets.len()) != Some(pixels) {
        return Err(Error::config(
            field("pixels"),
            format!("{} samples of {size} values ({shape:?})", targets.len()),
            format!("{pixels} values"),
        ));
    }
    if let Some(sample) = targets.iter().position(|&t| t as usize >= n_classes) {
        return Err(Error::config(
            field("targets"),
            format!("classes below {n_classes}"),
            format!("class {} at sample {sample}", targets[sample]),
        ));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_do_not_fit_are_refused() {
        let build = |shape, pixels: usize, targets: &[u32], n_classes| {
            Dataset::from_u8("d", shape, vec![0; pixels], targets.to_vec(), n_classes)
                .map(|d| d.len())
                .map_err(|e| e.to_string())
        };
        assert_eq!(build([1, 2, 2], 8, &[0, 1], 2), Ok(2));
        for (result, want) in [
            (build([1, 2, 2], 7, &[0, 1], 2), "found 7 values"),
            (build([1, 2, 2], 8, &[0, 2], 2), "class 2 at sample 1"),
            (build([1, 0, 2], 0, &[0], 2), "[1, 0, 2]"),
            (build([usize::MAX, 2, 2], 0, &[0], 2), "2^32"),
        ] {
            let message = result.unwrap_err();
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn not_a_number_is_refused_with_its_sample() {
        for bad in [f32::NAN, f32::INFINITY] {
            let pixels = vec![0.0, 1.0, 2.0, bad, 0.0, 0.0];
            let error = Dataset::from_f32("d", [1, 1, 2], pixels, vec![0, 0, 0], 1).unwrap_err();
            assert!(matches!(error, Error::NonFinite(_)));
            assert!(error.to_string().contains("sample 1 holds"), "{error}");
        }
    }
}
