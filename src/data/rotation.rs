//! Rotation with the nearest pixel, as tensors and as Pillow's images are turned.

use super::OUTSIDE;

/// For each pixel of an image turned counter-clockwise by `degrees`, row by row, the pixel that it
/// shows, or [`OUTSIDE`].
///
/// torchvision's `rotate` on tensors with nearest-neighbour sampling, no expansion and zeros
/// outside: the centre of the image is the origin; the position of an output pixel is rotated back
/// by -`degrees` and rounded, halves to even, to the nearest source pixel.
pub fn rotation_map(height: usize, width: usize, degrees: f64) -> Vec<u32> {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (half_height, half_width) = (height as f64 / 2.0, width as f64 / 2.0);
    let mut map = Vec::with_capacity(height * width);
    for y in 0..height {
        for x in 0..width {
            let dx = x as f64 - half_width + 0.5;
            let dy = y as f64 - half_height + 0.5;
            let sx = (cos * dx + sin * dy + half_width - 0.5).round_ties_even();
            let sy = (-sin * dx + cos * dy + half_height - 0.5).round_ties_even();
            let inside = (0.0..width as f64).contains(&sx) && (0.0..height as f64).contains(&sy);
            map.push(if inside {
                (sy as usize * width + sx as usize) as u32
            } else {
                OUTSIDE
            });
        }
    }
    map
}

/// As [`rotation_map`] for `Image.rotate` of Pillow, which torchvision's `rotate` calls for images:
/// the same but for one pixel in ten thousand, as Pillow steps through the source in 65536ths of a
/// pixel. Half turns, and quarter turns of squares, are exact.
pub fn pillow_rotation_map(height: usize, width: usize, degrees: f64) -> Vec<u32> {
    let mut map = Vec::with_capacity(height * width);
    pillow_rotated(height, width, degrees, |source| {
        map.push(source.map_or(OUTSIDE, |p| p as u32));
    });
    map
}

/// Calls `pixel` with the place that each pixel shows, row by row; `None` is outside.
pub(super) fn pillow_rotated(
    height: usize,
    width: usize,
    degrees: f64,
    mut pixel: impl FnMut(Option<usize>),
) {
    let angle = degrees.rem_euclid(360.0);
    let quarters = angle / 90.0;
    let exact = quarters % 2.0 == 0.0 || (quarters.fract() == 0.0 && height == width);
    if exact {
        let (bottom, right) = (height - 1, width - 1);
        for y in 0..height {
            for x in 0..width {
                let (sy, sx) = match quarters as u32 % 4 {
                    0 => (y, x),
                    1 => (x, right - y),
                    2 => (bottom - y, right - x),
                    _ => (bottom - x, y),
                };
                pixel(Some(sy * width + sx));
            }
        }
        return;
    }
    let round = |x: f64| (x * 1e15).round_ties_even() / 1e15;
    let (sin, cos) = (-angle.to_radians()).sin_cos();
    let (sin, cos) = (round(sin), round(cos));
    let (half_height, half_width) = (height as f64 / 2.0, width as f64 / 2.0);
    let left = -cos * half_width - sin * half_height + half_width;
    let top = sin * half_width - cos * half_height + half_height;
    let fixed = |x: f64| (x * 65536.0 + 0.5).floor() as i64;
    let start = [
        fixed(left + cos * 0.5 + sin * 0.5),
        fixed(top - sin * 0.5 + cos * 0.5),
    ];
    let (along, down) = ([fixed(cos), fixed(-sin)], [fixed(sin), fixed(cos)]);
    for y in 0..height as i64 {
        for x in 0..width as i64 {
            let [sx, sy] = [0, 1].map(|d| (start[d] + y * down[d] + x * along[d]) >> 16);
            let inside = (0..width as i64).contains(&sx) && (0..height as i64).contains(&sy);
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
        for map in [rotation_map, pillow_rotation_map] {
            assert_eq!(map(2, 2, 0.0), [0, 1, 2, 3]);
            assert_eq!(map(2, 2, 90.0), [1, 3, 0, 2]);
            assert_eq!(map(2, 2, 180.0), [3, 2, 1, 0]);
            assert_eq!(map(3, 3, -90.0), [6, 3, 0, 7, 4, 1, 8, 5, 2]);
            assert_eq!(map(1, 3, 90.0), [o, 1, o]);
            let corners = map(28, 28, 45.0);
            assert_eq!((corners[0], corners[783]), (o, o));
        }
    }

    /// FNV-1a of `Image.rotate(angle)` in Pillow 13.0.0, for pixels `(7x + 13y) mod 251`.
    #[test]
    fn images_turn_as_in_pillow() {
        for (size, angle, want) in [
            ([28, 28], 30.0, 0x89f3_b8d5_8bb1_60ca_u64),
            ([28, 28], 63.043_607_238_208_246, 0x0272_c555_6977_ebf0),
            ([28, 28], 67.155_146_840_700_08, 0xb738_f0de_78e4_db73),
            ([28, 28], 74.630_673_390_685_26, 0xb729_b943_303c_0a11),
            ([28, 28], 90.0, 0xbcd5_f13e_edc8_55fb),
            ([28, 28], 180.0, 0x3fe2_7e3a_b5bf_67b1),
            ([28, 28], 283.25, 0x8f83_6261_ee71_78f4),
            ([28, 28], 359.9, 0xe2a8_6b51_f3d5_182d),
            ([7, 12], 33.3, 0x6fc2_0494_613a_6972),
            ([7, 12], 90.0, 0xe174_5d7c_07a1_2cda),
            ([7, 12], 270.0 - 720.0, 0x33fc_7ad9_0229_4b04),
        ] {
            let [height, width] = size;
            let mut hash = 0xcbf2_9ce4_8422_2325u64;
            for place in pillow_rotation_map(height, width, angle) {
                let (y, x) = (place as usize / width, place as usize % width);
                let byte = if place == OUTSIDE {
                    0
                } else {
                    (7 * x + 13 * y) % 251
                };
                hash = (hash ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
            }
            assert_eq!(hash, want, "{size:?} by {angle}");
        }
    }
}
