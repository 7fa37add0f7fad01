//! Numbers to marks: axis ticks, colours, text and the thinning of long series.

use super::LossPoint;

/// Values beyond this are treated as missing: a diverged loss would only flatten the chart.
const LARGEST: f64 = 1e30;

/// Mid-tones that are told apart on white and on black (Tableau 10).
const PALETTE: [(u8, u8, u8); 10] = [
    (78, 121, 167),
    (242, 142, 43),
    (225, 87, 89),
    (118, 183, 178),
    (89, 161, 79),
    (237, 201, 72),
    (176, 122, 161),
    (255, 157, 167),
    (156, 117, 95),
    (186, 176, 172),
];

/// `value` if it can be drawn.
pub(super) fn drawable(value: f64) -> Option<f64> {
    (value.abs() < LARGEST).then_some(value)
}

/// Entry `[i][j]` of a matrix that may be ragged, if it is there and can be drawn.
pub(super) fn entry(matrix: &[Vec<Option<f64>>], i: usize, j: usize) -> Option<f64> {
    matrix.get(i)?.get(j).copied().flatten().and_then(drawable)
}

/// Rows and columns of a matrix that may be ragged.
pub(super) fn extent(matrix: &[Vec<Option<f64>>]) -> (usize, usize) {
    let columns = matrix.iter().map(Vec::len).max().unwrap_or(0);
    (matrix.len(), columns)
}

/// Whether any entry can be shown.
pub(super) fn has_values(matrix: &[Vec<Option<f64>>]) -> bool {
    let values = || matrix.iter().flatten().flatten();
    values().any(|&value| drawable(value).is_some())
}

/// A fraction in per cent with one digit, or "n/a".
pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".into(), |value| format!("{:.1}", 100.0 * value))
}

/// The colour of series `index`: the palette first, then hues by the golden angle.
pub(super) fn colour(index: usize) -> (u8, u8, u8) {
    PALETTE.get(index).copied().unwrap_or_else(|| {
        let hue = (index as f64 * 137.508) % 360.0 / 60.0;
        // Alternating lightness keeps neighbours in hue apart once the circle is crowded.
        let (low, high) = [(70.0, 190.0), (100.0, 225.0), (50.0, 150.0)][index % 3];
        let rising = low + (high - low) * (1.0 - (hue % 2.0 - 1.0).abs());
        let (r, g, b) = match hue as u8 {
            0 => (high, rising, low),
            1 => (rising, high, low),
            2 => (low, high, rising),
            3 => (low, rising, high),
            4 => (rising, low, high),
            _ => (high, low, rising),
        };
        (r as u8, g as u8, b as u8)
    })
}

/// About `wanted` round numbers within `low..=high`, and the digits after the point they need.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> (Vec<f64>, usize) {
    let rough = (high - low) / wanted.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= rough * 0.999)
        .unwrap_or(rough);
    if !step.is_normal() {
        return (vec![low, high], 1);
    }
    let first = (low / step).ceil();
    let marks = (0..=2 * wanted.max(1)).map(|k| (first + k as f64) * step);
    let digits = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
    (
        marks.filter(|&mark| mark <= high + step * 1e-6).collect(),
        digits,
    )
}

/// A tick as text: plain where it is short, else with an exponent.
pub(super) fn tick_text(value: f64, digits: usize) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        format!("{value:.1e}")
    } else {
        format!("{value:.digits$}")
    }
}

/// One experience's stretch of a thinned series: (step, mean), with `None` where nothing could
/// be drawn.
pub(super) type Stretch = Vec<(f64, Option<f64>)>;

/// Means over consecutive steps, about `points` of them in all. No mean reaches across the border
/// of two experiences, where the loss jumps.
pub(super) fn thin(
    losses: &[LossPoint],
    term: fn(&LossPoint) -> f64,
    points: usize,
) -> Vec<Stretch> {
    let width = losses.len().div_ceil(points.max(1)).max(1);
    losses
        .chunk_by(|a, b| a.experience == b.experience)
        .map(|stretch| stretch.chunks(width).map(|bin| mean(bin, term)).collect())
        .collect()
}

fn mean(bin: &[LossPoint], term: fn(&LossPoint) -> f64) -> (f64, Option<f64>) {
    let step = bin.iter().map(|point| point.step as f64).sum::<f64>() / bin.len() as f64;
    let values: Vec<f64> = bin.iter().map(term).filter_map(drawable).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (step, drawable(mean))
}
