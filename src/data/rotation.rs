//! Rotation with the nearest pixel.

use super::OUTSIDE;

/// For each pixel of an image turned counter-clockwise by `degrees`, row by row, the pixel that it
/// shows, or [`OUTSIDE`].
///
/// torchvision's `rotate` on tensors with nearest-neighbour sampling, no expansion and zeros
/// outside: the centre of the image is the origin; the position of an output pixel is rotated back
/// by -`degrees` and rounded, halves to even, to the nearest source pixel.
pub fn rotation_map(height: usize, width: usize, degrees: f64) -> Vec<u32> {
    let mut map = Vec::with_capacity(height * width);
    rotated(height, width, degrees, |source| {
        map.push(source.map_or(OUTSIDE, |p| p as u32));
    });
    map
}

/// Calls `pixel` with the place that each pixel shows, row by row; `None` is outside.
pub(super) fn rotated(
    height: usize,
    width: usize,
    degrees: f64,
    mut pixel: impl FnMut(Option<usize>),
) {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (half_height, half_width) = (height as f64 / 2.0, width as f64 / 2.0);
    for y in 0..height {
        for x in 0..width {
            let dx = x as f64 - half_width + 0.5;
            let dy = y as f64 - half_height + 0.5;
            let sx = (cos * dx + sin * dy + half_width - 0.5).round_ties_even();
            let sy = (-sin * dx + cos * dy + half_height - 0.5).round_ties_even();
            let inside = (0.0..width as f64).contains(&sx) && (0.0..height as f64).contains(&sy);
            pixel(inside.then(|| sy as usize * width + sx as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_turns_go_counter_clockwise() {
        let o = OUTSIDE;
        assert_eq!(rotation_map(2, 2, 0.0), [0, 1, 2, 3]);
        assert_eq!(rotation_map(2, 2, 90.0), [1, 3, 0, 2]);
        assert_eq!(rotation_map(2, 2, 180.0), [3, 2, 1, 0]);
        assert_eq!(rotation_map(3, 3, -90.0), [6, 3, 0, 7, 4, 1, 8, 5, 2]);
        assert_eq!(rotation_map(1, 3, 90.0), [o, 1, o]);
        let corners = rotation_map(28, 28, 45.0);
        assert_eq!((corners[0], corners[783]), (o, o));
    }
}
