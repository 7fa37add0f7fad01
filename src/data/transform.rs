//! From stored pixels to what the network sees.

use std::sync::Arc;

use super::view::OUTSIDE;

/// Which of the two transforms of a [`TransformGroups`] a sample goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// While training and when a sample is replayed.
    Train,
    /// For evaluation and for the logits that are stored with replay samples.
    Eval,
}

/// Maps stored pixels to f32: bytes are divided by 255, floats stay as they are, then each channel
/// is normalised if a mean and standard deviation were given.
///
/// The arithmetic is torchvision's `ToTensor` followed by `Normalize`, operation by operation in
/// f32: `(b / 255 - mean) / std`.
///
/// ```
/// use unforget::data::Transform;
/// let mut out = [0.0; 2];
/// Transform::default().write_u8(&[0, 255], None, &mut out);
/// assert_eq!(out, [0.0, 1.0]);
/// ```
#[derive(Clone, Debug)]
pub struct Transform {
    /// Mean and standard deviation of each channel.
    normalize: Option<Box<[(f32, f32)]>>,
    /// What each byte becomes: one table a channel, or a single one without normalisation.
    tables: Arc<[[f32; 256]]>,
}

impl Default for Transform {
    /// Bytes to [0, 1], floats unchanged.
    fn default() -> Self {
        Transform {
            normalize: None,
            tables: Arc::new([std::array::from_fn(|b| b as f32 / 255.0)]),
        }
    }
}

impl Transform {
    /// To [0, 1] (bytes only), then `(x - mean) / std` with one mean and one standard deviation a
    /// channel.
    ///
    /// # Panics
    /// If the lengths differ or are zero, a mean is not finite, or a standard deviation is not
    /// finite and positive.
    #[track_caller]
    pub fn normalize(mean: &[f32], std: &[f32]) -> Self {
        assert!(
            !mean.is_empty() && mean.len() == std.len(),
            "normalize: {} means for {} standard deviations",
            mean.len(),
            std.len()
        );
        assert!(
            mean.iter().all(|m| m.is_finite()) && std.iter().all(|&s| s.is_finite() && s > 0.0),
            "normalize: mean {mean:?} must be finite and std {std:?} positive"
        );
        let stats: Box<[_]> = mean.iter().copied().zip(std.iter().copied()).collect();
        Transform {
            tables: stats
                .iter()
                .map(|&(mean, std)| std::array::from_fn(|b| (b as f32 / 255.0 - mean) / std))
                .collect(),
            normalize: Some(stats),
        }
    }

    /// The constants of MNIST: mean 0.1307, standard deviation 0.3081.
    pub fn mnist() -> Self {
        Self::normalize(&[0.1307], &[0.3081])
    }

    /// The constants of Fashion-MNIST: mean 0.2860, standard deviation 0.3530.
    pub fn fmnist() -> Self {
        Self::normalize(&[0.2860], &[0.3530])
    }

    /// The constants of CIFAR-10 (red, green, blue).
    pub fn cifar10() -> Self {
        Self::normalize(&[0.4914, 0.4822, 0.4465], &[0.2023, 0.1994, 0.2010])
    }

    /// The constants of CIFAR-100 (red, green, blue).
    pub fn cifar100() -> Self {
        Self::normalize(&[0.5071, 0.4865, 0.4409], &[0.2673, 0.2564, 0.2762])
    }

    /// The number of channels that this transform was made for; `None` fits any.
    pub fn channels(&self) -> Option<usize> {
        self.normalize.as_ref().map(|stats| stats.len())
    }

    /// Writes the transformed `pixels` (channels x positions) to `out`.
    ///
    /// With a `map`, position p of each channel takes the source position `map[p]`, or a zero pixel
    /// where that is [`OUTSIDE`]; the map is applied before the normalisation.
    ///
    /// # Panics
    /// If the lengths do not fit.
    #[track_caller]
    pub fn write_u8(&self, pixels: &[u8], map: Option<&[u32]>, out: &mut [f32]) {
        let plane = self.plane(pixels.len(), map, out.len());
        let channels = pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane));
        for (c, (source, out)) in channels.enumerate() {
            let table = &self.tables[c.min(self.tables.len() - 1)];
            match map {
                None => out
                    .iter_mut()
                    .zip(source)
                    .for_each(|(o, &b)| *o = table[usize::from(b)]),
                Some(map) => out
                    .iter_mut()
                    .zip(map)
                    .for_each(|(o, &p)| *o = table[usize::from(pick(source, p))]),
            }
        }
    }

    /// As [`Transform::write_u8`], from floats, which are not divided by 255.
    ///
    /// # Panics
    /// If the lengths do not fit.
    #[track_caller]
    pub fn write_f32(&self, pixels: &[f32], map: Option<&[u32]>, out: &mut [f32]) {
        let plane = self.plane(pixels.len(), map, out.len());
        let channels = pixels.chunks_exact(plane).zip(out.chunks_exact_mut(plane));
        for (c, (source, out)) in channels.enumerate() {
            match map {
                None => out.copy_from_slice(source),
                Some(map) => out
                    .iter_mut()
                    .zip(map)
                    .for_each(|(o, &p)| *o = pick(source, p)),
            }
            if let Some(stats) = &self.normalize {
                let (mean, std) = stats[c];
                out.iter_mut().for_each(|x| *x = (*x - mean) / std);
            }
        }
    }

    /// The number of positions of one channel.
    #[track_caller]
    fn plane(&self, pixels: usize, map: Option<&[u32]>, out: usize) -> usize {
        let channels = self.tables.len();
        let plane = map.map_or(pixels / channels, <[u32]>::len);
        assert!(
            plane > 0
                && pixels == out
                && pixels.is_multiple_of(plane)
                && (self.normalize.is_none() || pixels == plane * channels),
            "transform: {pixels} pixels to {out} values, {channels} channels of {plane}"
        );
        plane
    }
}

/// The pixel at `position`, or zero outside the image.
#[inline]
pub(super) fn pick<T: Copy + Default>(channel: &[T], position: u32) -> T {
    if position == OUTSIDE {
        T::default()
    } else {
        channel[position as usize]
    }
}

/// The transforms of a data set: one for training, one for evaluation.
#[derive(Clone, Debug, Default)]
pub struct TransformGroups {
    /// For training and for replayed samples.
    pub train: Transform,
    /// For evaluation and for stored logits.
    pub eval: Transform,
}

impl TransformGroups {
    /// The same transform for both.
    pub fn same(transform: Transform) -> Self {
        TransformGroups {
            train: transform.clone(),
            eval: transform,
        }
    }

    /// The transform of `group`.
    pub fn get(&self, group: Group) -> &Transform {
        match group {
            Group::Train => &self.train,
            Group::Eval => &self.eval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Normalize(0.1307, 0.3081)` of `b / 255` in f32, each operation rounded.
    #[test]
    fn bytes_are_normalised_as_by_torchvision() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut out = [0.0; 256];
        Transform::mnist().write_u8(&bytes, None, &mut out);
        for (b, x) in out.into_iter().enumerate() {
            assert_eq!(x, (b as f32 / 255.0f32 - 0.1307f32) / 0.3081f32);
        }
        assert!((out[0] + 0.4242).abs() < 1e-4 && (out[255] - 2.8215).abs() < 1e-4);
    }

    #[test]
    fn each_channel_has_its_own_constants_and_the_map_comes_first() {
        let transform = Transform::normalize(&[0.5, 0.0], &[0.5, 2.0]);
        let mut out = [9.0; 4];
        transform.write_u8(&[0, 255, 0, 255], Some(&[1, OUTSIDE]), &mut out);
        assert_eq!(out, [1.0, -1.0, 0.5, 0.0]);
        transform.write_f32(&[0.0, 4.0, 0.0, 4.0], Some(&[1, OUTSIDE]), &mut out);
        assert_eq!(out, [7.0, -1.0, 2.0, 0.0]);
        Transform::default().write_u8(&[0, 255, 51, 255], Some(&[1, 0]), &mut out);
        assert_eq!(out, [1.0, 0.0, 1.0, 0.2]);
    }

    #[test]
    #[should_panic(expected = "3 pixels to 3 values, 2 channels")]
    fn channels_that_do_not_fit_are_a_callers_bug() {
        Transform::normalize(&[0.0; 2], &[1.0; 2]).write_f32(&[0.0; 3], None, &mut [0.0; 3]);
    }
}
