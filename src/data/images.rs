//! Images as they are stored: bytes stay bytes until a batch is made.

use crate::{Error, Result};
use ndarray::Array4;
use std::sync::Arc;

/// The pixels of many images, one after the other, each in channel, row, column order.
///
/// Cloning shares the memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Bytes; 255 stands for 1.0.
    U8(Arc<[u8]>),
    /// Ready values.
    F32(Arc<[f32]>),
}

impl Pixels {
    fn len(&self) -> usize {
        match self {
            Pixels::U8(bytes) => bytes.len(),
            Pixels::F32(values) => values.len(),
        }
    }
}

/// The pixels of one image, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PixelSlice<'a> {
    /// Bytes; 255 stands for 1.0.
    U8(&'a [u8]),
    /// Ready values.
    F32(&'a [f32]),
}

/// The pixels of one image, owned: what a replay buffer keeps.
#[derive(Clone, Debug, PartialEq)]
pub enum RawSample {
    /// Bytes; 255 stands for 1.0.
    U8(Box<[u8]>),
    /// Ready values.
    F32(Box<[f32]>),
}

impl RawSample {
    /// The pixels, borrowed.
    pub fn as_pixels(&self) -> PixelSlice<'_> {
        match self {
            RawSample::U8(bytes) => PixelSlice::U8(bytes),
            RawSample::F32(values) => PixelSlice::F32(values),
        }
    }
}

/// Images of one size: `shape` is (channels, height, width).
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    shape: [usize; 3],
    pixels: Pixels,
}

impl Images {
    /// Images over stored pixels.
    ///
    /// # Errors
    /// [`Error::Config`] if a dimension of `shape` is 0 or `pixels` is not a whole number of
    /// images.
    pub fn new(shape: [usize; 3], pixels: Pixels) -> Result<Self> {
        let numel = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        match numel {
            Some(numel) if numel > 0 && pixels.len().is_multiple_of(numel) => {
                Ok(Images { shape, pixels })
            }
            _ => Err(Error::config(
                "images",
                format!("a multiple of {} x {} x {} > 0 pixels", shape[0], shape[1], shape[2]),
                pixels.len(),
            )),
        }
    }

    /// Images from an array of bytes, (image, channel, row, column); 255 stands for 1.0.
    ///
    /// # Errors
    /// As [`Images::new`].
    pub fn from_u8(images: Array4<u8>) -> Result<Self> {
        let (shape, bytes) = standard_layout(images);
        Self::new(shape, Pixels::U8(bytes))
    }

    /// Images from an array of ready values, (image, channel, row, column).
    ///
    /// # Errors
    /// As [`Images::new`].
    pub fn from_f32(images: Array4<f32>) -> Result<Self> {
        let (shape, values) = standard_layout(images);
        Self::new(shape, Pixels::F32(values))
    }

    /// (channels, height, width).
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Pixels per image, over all channels.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.numel()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All pixels, image after image.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The pixels of image `index`.
    #[track_caller]
    pub fn get(&self, index: usize) -> PixelSlice<'_> {
        let numel = self.numel();
        let range = index * numel..(index + 1) * numel;
        match &self.pixels {
            Pixels::U8(bytes) => PixelSlice::U8(&bytes[range]),
            Pixels::F32(values) => PixelSlice::F32(&values[range]),
        }
    }

    /// The first NaN or infinity: (image, value).
    pub(super) fn first_non_finite(&self) -> Option<(usize, f32)> {
        let Pixels::F32(values) = &self.pixels else { return None };
        let at = values.iter().position(|value| !value.is_finite())?;
        Some((at / self.numel(), values[at]))
    }
}

/// The (channels, height, width) of `images` and its elements in that order, without a copy where
/// they already lie so.
fn standard_layout<T: Clone>(images: Array4<T>) -> ([usize; 3], Arc<[T]>) {
    let (_, channels, height, width) = images.dim();
    let elements = if images.is_standard_layout() {
        let (elements, offset) = images.into_raw_vec_and_offset();
        match offset {
            None | Some(0) => Arc::from(elements),
            Some(offset) => Arc::from(&elements[offset..]),
        }
    } else {
        images.iter().cloned().collect()
    };
    ([channels, height, width], elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array4, s};

    #[test]
    fn layouts_of_the_array_do_not_matter() {
        let nchw = Array4::from_shape_fn((2, 3, 2, 2), |(n, c, y, x)| {
            (n * 100 + c * 10 + y * 2 + x) as u8
        });
        let want = Images::from_u8(nchw.clone()).unwrap();
        assert_eq!(want.len(), 2);
        assert_eq!(
            want.get(1),
            PixelSlice::U8(&[100, 101, 102, 103, 110, 111, 112, 113, 120, 121, 122, 123])
        );
        let nhwc = nchw.clone().permuted_axes([0, 2, 3, 1]);
        assert_eq!(Images::from_u8(nhwc.permuted_axes([0, 3, 1, 2])).unwrap(), want);

        let mut tail = nchw.clone();
        tail.slice_collapse(s![1.., .., .., ..]);
        assert_eq!(Images::from_u8(tail).unwrap().get(0), want.get(1));
        let mut head = nchw;
        head.slice_collapse(s![..1, .., .., ..]);
        let head = Images::from_u8(head).unwrap();
        assert_eq!((head.len(), head.get(0)), (1, want.get(0)));
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (shape, len) in [([1, 2, 2], 7), ([0, 2, 2], 0), ([usize::MAX, 2, 2], 4)] {
            let error = Images::new(shape, Pixels::U8(vec![0; len].into())).unwrap_err();
            assert!(error.to_string().contains(&format!("found {len}")), "{error}");
        }
    }
}
