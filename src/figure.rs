//! Pictures of matrices, for loggers that show pictures.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle, iso_8859_1};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::primitives::{Primitive, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use embedded_graphics::{Pixel, draw_target::DrawTarget};
use ndarray::{Array3, ArrayD, ArrayView2, Axis, Ix2};

const FONT: MonoFont = iso_8859_1::FONT_7X13;
const GLYPH: (i32, i32) = (7, 13);
const GAP: i32 = 8;
const SIDE: i32 = 560;
const MISSING: Rgb888 = Rgb888::new(0xcc, 0xcc, 0xcc);
/// More rows or columns than this are drawn in blocks.
const MOST: usize = 1024;
/// Characters of a label.
const LONGEST: usize = 16;

/// A matrix as a heat map, `[height, width, 3]`: row 0 on top, white for the lowest value (0 if none is
/// negative) and dark blue for the highest (1 if none is above), grey for what is not finite.
/// Where there is room, the cells show their values: as they are if all are whole numbers, else with
/// two decimals.
///
/// `labels` name the rows and the columns, in order; where there is none, the index stands. Of a
/// matrix with more than 1024 rows or columns, each cell is the largest value of a block.
///
/// ```
/// use ndarray::arr2;
/// use unforget::figure;
///
/// let confusion = arr2(&[[9.0, 1.0], [0.0, 10.0]]).into_dyn();
/// let picture = figure::matrix(&confusion, &["cat".into(), "dog".into()]);
/// assert_eq!(picture.dim().2, 3);
/// ```
///
/// # Panics
/// If `values` does not have two dimensions.
#[track_caller]
pub fn matrix(values: &ArrayD<f64>, labels: &[String]) -> Array3<u8> {
    let Ok(view) = values.view().into_dimensionality::<Ix2>() else {
        panic!(
            "figure::matrix: expected a matrix, found the shape {:?}",
            values.shape()
        );
    };
    let step = view.nrows().max(view.ncols()).div_ceil(MOST).max(1);
    Heat::new(view, labels, step).draw()
}

/// A picture under way.
struct Canvas(Array3<u8>);

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.dim().1 as u32, self.0.dim().0 as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    /// What lies outside is left out.
    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else {
                continue;
            };
            for (channel, part) in [colour.r(), colour.g(), colour.b()].into_iter().enumerate() {
                if let Some(value) = self.0.get_mut((y, x, channel)) {
                    *value = part;
                }
            }
        }
        Ok(())
    }
}

/// What is drawn, and how large.
struct Heat<'a> {
    cells: Vec<Vec<f64>>,
    labels: &'a [String],
    step: usize,
    low: f64,
    high: f64,
    whole: bool,
    cell: i32,
    left: i32,
}

impl<'a> Heat<'a> {
    fn new(values: ArrayView2<'_, f64>, labels: &'a [String], step: usize) -> Self {
        let finite = || values.iter().copied().filter(|v| v.is_finite());
        let cells: Vec<Vec<f64>> = (values.axis_chunks_iter(Axis(0), step))
            .map(|rows| {
                let blocks = rows.axis_chunks_iter(Axis(1), step);
                blocks
                    .map(|block| block.iter().copied().fold(f64::NAN, f64::max))
                    .collect()
            })
            .collect();
        let most = cells.len().max(cells.first().map_or(0, Vec::len)).max(1) as i32;
        let mut heat = Heat {
            cells,
            labels,
            step,
            low: finite().fold(0.0, f64::min),
            high: finite().fold(0.0, f64::max),
            whole: finite().all(|v| v.fract() == 0.0),
            cell: (SIDE / most).clamp(1, 56),
            left: 0,
        };
        if heat.high <= 1.0 {
            heat.high = 1.0;
        }
        let rows = heat.cells.len();
        let longest = (0..rows)
            .map(|i| heat.label(i).chars().count())
            .max()
            .unwrap_or(0);
        heat.left = GAP + GLYPH.0 * longest as i32 + GAP;
        heat
    }

    fn label(&self, index: usize) -> String {
        let index = index * self.step;
        match self.labels.get(index) {
            Some(label) => label.chars().take(LONGEST).collect(),
            None => index.to_string(),
        }
    }

    fn draw(&self) -> Array3<u8> {
        let (rows, columns) = (self.cells.len(), self.cells.first().map_or(0, Vec::len));
        let top = GAP + GLYPH.1 + GAP;
        let width = self.left + columns as i32 * self.cell + GAP;
        let height = top + rows as i32 * self.cell + GAP;
        let mut canvas = Canvas(Array3::from_elem(
            (height as usize, width as usize, 3),
            0xff,
        ));
        let numbers = self.numbers();
        for (i, row) in self.cells.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let corner =
                    Point::new(self.left + j as i32 * self.cell, top + i as i32 * self.cell);
                let paint = self.paint(value);
                let square = Rectangle::new(corner, Size::new_equal(self.cell as u32));
                let Ok(()) = square
                    .into_styled(PrimitiveStyle::with_fill(paint))
                    .draw(&mut canvas);
                if numbers && value.is_finite() {
                    let ink = if luminance(paint) < 128 {
                        Rgb888::WHITE
                    } else {
                        Rgb888::BLACK
                    };
                    let middle = corner + Point::new_equal(self.cell / 2);
                    write(
                        &mut canvas,
                        &self.number(value),
                        middle,
                        Alignment::Center,
                        ink,
                    );
                }
            }
        }
        let middle = self.cell / 2;
        for i in self.labelled(rows, GLYPH.1) {
            let at = Point::new(self.left - GAP / 2, top + i as i32 * self.cell + middle);
            write(
                &mut canvas,
                &self.label(i),
                at,
                Alignment::Right,
                Rgb888::BLACK,
            );
        }
        let widest = (0..columns)
            .map(|j| self.label(j).chars().count())
            .max()
            .unwrap_or(0);
        for j in self.labelled(columns, GLYPH.0 * (widest as i32 + 1)) {
            let at = Point::new(self.left + j as i32 * self.cell + middle, GAP + GLYPH.1 / 2);
            write(
                &mut canvas,
                &self.label(j),
                at,
                Alignment::Center,
                Rgb888::BLACK,
            );
        }
        canvas.0
    }

    /// The rows or columns that get their label, so that none touches the next.
    fn labelled(&self, count: usize, size: i32) -> impl Iterator<Item = usize> {
        let every = (size + self.cell - 1) / self.cell;
        (0..count).step_by(every.max(1) as usize)
    }

    fn number(&self, value: f64) -> String {
        if self.whole {
            format!("{value:.0}")
        } else {
            format!("{value:.2}")
        }
    }

    /// Whether every number fits into its cell.
    fn numbers(&self) -> bool {
        let finite = self.cells.iter().flatten().filter(|v| v.is_finite());
        let longest = finite.map(|&v| self.number(v).len()).max().unwrap_or(0);
        longest as i32 * GLYPH.0 + 2 <= self.cell && GLYPH.1 <= self.cell
    }

    fn paint(&self, value: f64) -> Rgb888 {
        if !value.is_finite() {
            return MISSING;
        }
        // Halved first: the difference of two large numbers may not be one.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        let mix = |dark: f64| (255.0 + (dark - 255.0) * part).round() as u8;
        Rgb888::new(mix(8.0), mix(48.0), mix(107.0))
    }
}

/// How bright a colour looks, 0 to 255 (ITU-R BT.601).
fn luminance(colour: Rgb888) -> u32 {
    let [r, g, b] = [colour.r(), colour.g(), colour.b()].map(u32::from);
    (299 * r + 587 * g + 114 * b) / 1000
}

/// Writes a line, vertically centred on `at`.
fn write(canvas: &mut Canvas, text: &str, at: Point, alignment: Alignment, ink: Rgb888) {
    let style = TextStyleBuilder::new()
        .baseline(Baseline::Middle)
        .alignment(alignment)
        .build();
    let text = Text::with_text_style(text, at, MonoTextStyle::new(&FONT, ink), style);
    let Ok(_) = text.draw(canvas);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    /// The colour just inside the upper left corner of a cell, where no number is.
    fn corner(picture: &Array3<u8>, left: i32, cell: i32, i: i32, j: i32) -> [u8; 3] {
        let (y, x) = (GAP + GLYPH.1 + GAP + i * cell + 1, left + j * cell + 1);
        [0, 1, 2].map(|c| picture[[y as usize, x as usize, c]])
    }

    #[test]
    fn low_is_white_high_is_dark_and_missing_is_grey() {
        let values = arr2(&[[0.0, 1.0], [f64::NAN, 0.5]]).into_dyn();
        let picture = matrix(&values, &[]);
        let (left, cell) = (GAP + GLYPH.0 + GAP, 56);
        let wanted = (GAP + GLYPH.1 + GAP + 2 * cell + GAP, left + 2 * cell + GAP);
        assert_eq!((picture.dim().0 as i32, picture.dim().1 as i32), wanted);
        assert_eq!(corner(&picture, left, cell, 0, 0), [255, 255, 255]);
        assert_eq!(corner(&picture, left, cell, 0, 1), [8, 48, 107]);
        assert_eq!(corner(&picture, left, cell, 1, 0), [0xcc, 0xcc, 0xcc]);
        assert_eq!(corner(&picture, left, cell, 1, 1), [132, 152, 181]);
    }

    #[test]
    fn numbers_and_labels_are_drawn_where_they_fit() {
        let dark = |picture: &Array3<u8>| picture.iter().filter(|&&v| v == 0).count();
        let zeros = ArrayD::zeros(vec![3, 3]);
        let plain = matrix(&zeros, &[]);
        assert!(dark(&plain) > 0, "black digits");
        let named = matrix(&zeros, &["airplane".into(), "dog".into()]);
        assert!(named.dim().1 > plain.dim().1, "room for the longest label");
        let crowded = Heat::new(
            ArrayView2::from_shape((100, 100), &[7.0; 10_000]).unwrap(),
            &[],
            1,
        );
        assert!(!crowded.numbers());
        assert!(crowded.labelled(100, 28).count() <= 20);
    }

    #[test]
    fn any_shape_has_a_picture() {
        for shape in [
            vec![0, 0],
            vec![0, 3],
            vec![3, 0],
            vec![1, 1],
            vec![2000, 3],
        ] {
            let picture = matrix(&ArrayD::from_elem(shape, 1e308), &[]);
            assert!(!picture.is_empty() && picture.dim().0 < 2000);
        }
        let extremes = matrix(
            &arr2(&[[f64::MAX, f64::MIN, f64::INFINITY]]).into_dyn(),
            &[],
        );
        assert!(!extremes.is_empty());
    }

    #[test]
    #[should_panic(expected = "found the shape [2]")]
    fn a_vector_is_refused() {
        matrix(&ArrayD::zeros(vec![2]), &[]);
    }
}
