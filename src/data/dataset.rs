//! Labelled images.

use crate::{Error, Result};
use std::sync::Arc;

/// The pixels of many images.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// Bytes.
    U8(Arc<[u8]>),
    /// Ready values.
    F32(Arc<[f32]>),
}

/// Labelled images of one shape.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: Arc<str>,
    shape: [usize; 3],
    pixels: Pixels,
    targets: Arc<[u32]>,
    n_classes: usize,
}

impl Dataset {
    /// A data set from bytes.
    pub fn from_u8(
        name: &str,
        shape: [usize; 3],
        pixels: Vec<u8>,
        targets: Vec<u32>,
        n_classes: usize,
    ) -> Result<Self> {
        let len = pixels.len();
        Self::new(
            name,
            shape,
            Pixels::U8(pixels.into()),
            len,
            targets,
            n_classes,
        )
    }

    /// A data set from ready values.
    pub fn from_f32(
        name: &str,
        shape: [usize; 3],
        pixels: Vec<f32>,
        targets: Vec<u32>,
        n_classes: usize,
    ) -> Result<Self> {
        let len = pixels.len();
        Self::new(
            name,
            shape,
            Pixels::F32(pixels.into()),
            len,
            targets,
            n_classes,
        )
    }

    fn new(
        name: &str,
        shape: [usize; 3],
        pixels: Pixels,
        len: usize,
        targets: Vec<u32>,
        n_classes: usize,
    ) -> Result<Self> {
        let numel = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
        if numel.and_then(|numel| numel.checked_mul(targets.len())) != Some(len) || len == 0 {
            return Err(Error::config(name, "whole images", len));
        }
        Ok(Dataset {
            name: name.into(),
            shape,
            pixels,
            targets: targets.into(),
            n_classes,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// (channels, height, width).
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The labels.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The pixels.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }
}
