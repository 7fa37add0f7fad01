//! Scaling with Pillow's bilinear filter, which torchvision's `Resize` uses on images.

/// What a pixel can be: a byte or a float.
pub(super) trait Pixel: Copy + Default + 'static {
    /// The sum of the pixels times their weights.
    fn weigh(weights: &[f64], pixels: impl Iterator<Item = Self>) -> Self;
}

impl Pixel for u8 {
    /// Pillow's fixed-point arithmetic: weights are rounded to 22 binary places, the sum to a byte.
    fn weigh(weights: &[f64], pixels: impl Iterator<Item = u8>) -> u8 {
        const PLACES: u32 = 22;
        let fixed = |w: &f64| (w * f64::from(1 << PLACES) + 0.5) as i32;
        let terms = weights.iter().zip(pixels);
        let sum = terms.fold(1 << (PLACES - 1), |sum, (w, p)| {
            sum + i32::from(p) * fixed(w)
        });
        (sum >> PLACES).clamp(0, 255) as u8
    }
}

impl Pixel for f32 {
    fn weigh(weights: &[f64], pixels: impl Iterator<Item = f32>) -> f32 {
        let terms = weights.iter().zip(pixels);
        terms.fold(0.0, |sum, (w, p)| sum + w * f64::from(p)) as f32
    }
}

/// From which pixels of a line each pixel of the scaled line is mixed.
#[derive(Debug)]
pub(super) struct Axis {
    /// For each output pixel its first source pixel and the range of its weights.
    taps: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<f64>,
}

impl Axis {
    /// Scales `from` pixels to `to`: a triangle as wide as an output pixel (a source pixel, when
    /// growing) to each side of its centre, with weights that sum to 1.
    pub(super) fn new(from: usize, to: usize) -> Self {
        let scale = from as f64 / to as f64;
        let width = scale.max(1.0);
        let inverse = 1.0 / width;
        let (mut taps, mut weights) = (Vec::with_capacity(to), Vec::new());
        for x in 0..to {
            let centre = (x as f64 + 0.5) * scale;
            let first = (centre - width + 0.5).max(0.0) as usize;
            let end = ((centre + width + 0.5) as usize).min(from);
            let start = weights.len();
            let weight = |i: usize| (1.0 - ((i as f64 - centre + 0.5) * inverse).abs()).max(0.0);
            weights.extend((first..end).map(weight));
            let sum = weights[start..].iter().fold(0.0, |sum, w| sum + w);
            weights[start..].iter_mut().for_each(|w| *w /= sum);
            taps.push((first, start..weights.len()));
        }
        Axis { taps, weights }
    }
}

/// Scales each plane of `input`, `height` x `width`, first along the rows, then along the columns,
/// rounding in between, as Pillow does.
pub(super) fn resize<T: Pixel>(
    input: &[T],
    [height, width]: [usize; 2],
    [rows, columns]: &[Axis; 2],
    between: &mut Vec<T>,
    out: &mut Vec<T>,
) {
    between.clear();
    for line in input.chunks_exact(width) {
        between.extend(columns.taps.iter().map(|(first, weights)| {
            let pixels = line[*first..].iter().copied();
            T::weigh(&columns.weights[weights.clone()], pixels)
        }));
    }
    let width = columns.taps.len();
    out.clear();
    for plane in between.chunks_exact(height * width) {
        for (first, weights) in &rows.taps {
            let weights = &rows.weights[weights.clone()];
            out.extend((0..width).map(|x| {
                let pixels = plane[first * width + x..].iter().step_by(width).copied();
                T::weigh(weights, pixels)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(pixels: &[u8], size: [usize; 2], to: [usize; 2]) -> Vec<u8> {
        let axes = [Axis::new(size[0], to[0]), Axis::new(size[1], to[1])];
        let mut out = Vec::new();
        resize(pixels, size, &axes, &mut Vec::new(), &mut out);
        out
    }

    /// `Image.fromarray(x).resize((w, h), Image.BILINEAR)` of Pillow 13.0.0 for pixels
    /// `(37 y + 91 x + 5 x y) mod 256`.
    #[test]
    fn bytes_are_pillows() {
        let image = |h: usize, w: usize| -> Vec<u8> {
            (0..h * w)
                .map(|p| ((37 * (p / w) + 91 * (p % w) + 5 * (p / w) * (p % w)) % 256) as u8)
                .collect()
        };
        for (from, to, want) in [
            (
                [5, 7],
                [3, 4],
                &[65, 138, 103, 89, 117, 109, 133, 124, 114, 125, 119, 140][..],
            ),
            (
                [4, 3],
                [7, 5],
                &[
                    0, 36, 91, 146, 182, 13, 50, 106, 162, 199, 34, 72, 130, 188, 226, 56, 95, 154,
                    137, 125, 77, 117, 178, 85, 23, 98, 139, 202, 111, 50, 111, 153, 217, 127, 67,
                ],
            ),
            (
                [6, 6],
                [6, 3],
                &[
                    65, 100, 134, 106, 149, 83, 110, 103, 141, 150, 120, 90, 81, 138, 148, 122, 91,
                    170,
                ],
            ),
            ([9, 4], [2, 4], &[81, 129, 122, 109, 121, 101, 160, 118]),
        ] {
            assert_eq!(
                scaled(&image(from[0], from[1]), from, to),
                want,
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn floats_keep_their_mean() {
        let mut out = Vec::new();
        let axes = [Axis::new(2, 1), Axis::new(4, 2)];
        resize(
            &[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
            [2, 4],
            &axes,
            &mut Vec::new(),
            &mut out,
        );
        // Weights 3/7, 3/7, 1/7 along the rows and 1/2, 1/2 along the columns.
        for (x, want) in out.iter().zip([2.0 + 5.0 / 7.0, 2.0 + 16.0 / 7.0]) {
            assert!((x - want).abs() <= 1e-6, "{out:?}");
        }
    }
}
