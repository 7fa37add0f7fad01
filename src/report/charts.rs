//! The charts, drawn by `plotters` as SVG text.
//!
//! Canvases are twice the size they are shown at, because plotters rounds to whole pixels. Text
//! inside a chart is numbers only; legends are HTML, where names wrap and are escaped.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;

use super::scale::{colour, drawable, entry, extent, thin, tick_text, ticks};
use super::{LossPoint, ReportData};

/// Why a chart could not be drawn.
pub(super) type Failure = DrawingAreaErrorKind<std::io::Error>;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// What stands out in either theme: the style sheet gives this grey the colour of the text.
const INK: RGBColor = RGBColor(0x77, 0x77, 0x77);
const GRID: RGBColor = RGBColor(0x99, 0x99, 0x99);
const FONT: i32 = 24;
/// Points in a thinned loss curve: one for about three pixels of the page.
const POINTS: usize = 400;

/// A linear axis with the marks it is told to show.
#[derive(Clone)]
struct Axis {
    low: f64,
    high: f64,
    marks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let part = (value - self.low) / (self.high - self.low);
        from + (part * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

/// A term of the loss, as the chart and its legend name it.
pub(super) struct Term {
    pub name: &'static str,
    pub of: fn(&LossPoint) -> f64,
    /// Index into the palette, `None` for the colour of the text.
    pub colour: Option<usize>,
}

/// The terms worth a line: the total always, the others if they ever differ from 0.
pub(super) fn terms(losses: &[LossPoint]) -> Vec<Term> {
    let term = |name, colour, of: fn(&LossPoint) -> f64| Term { name, of, colour };
    let mut terms = vec![
        term("total", None, |point| point.loss),
        term("current samples", Some(0), |point| point.current),
        term("replayed logits", Some(1), |point| point.logits),
        term("replayed labels", Some(4), |point| point.replay),
    ];
    terms.retain(|term| {
        let alive = |point| drawable((term.of)(point)).is_some_and(|value| value != 0.0);
        term.colour.is_none() || losses.iter().any(alive)
    });
    terms
}

/// The classes that any buffer holds, in order: a class keeps its colour in every bar.
pub(super) fn classes(buffer: &[Vec<(u32, usize)>]) -> Vec<u32> {
    let mut classes: Vec<u32> = buffer.iter().flatten().map(|&(class, _)| class).collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// Accuracy of each test experience, from the experience that trained it on, and the mean over
/// those trained so far.
pub(super) fn accuracy(matrix: &[Vec<Option<f64>>]) -> Result<String, Failure> {
    let (rows, columns) = extent(matrix);
    let shown = |i, j| entry(matrix, i, j).map(|value| 100.0 * value.clamp(0.0, 1.0));
    draw((1140, 560), |canvas| {
        let high = rows.saturating_sub(1).max(1) as f64;
        let x = axis(-0.08 * high, 1.04 * high, whole(0, rows, 20));
        let y = axis(0.0, 103.0, ticks(0.0, 100.0, 5).0);
        let mut plot = frame(canvas, x, y, "after experience", 0)?;
        // The mean lies below the others: where all agree, they stay visible on it.
        let mean = |i: usize| {
            let values: Vec<f64> = (0..=i).filter_map(|j| shown(i, j)).collect();
            drawable(values.iter().sum::<f64>() / values.len() as f64)
        };
        let values = (0..rows).map(|i| (i as f64, mean(i))).collect();
        line(&mut plot, values, INK, 8, 9)?;
        for j in 0..columns {
            let values = (j..rows).map(|i| (i as f64, shown(i, j))).collect();
            line(&mut plot, values, paint(j), 3, 5)?;
        }
        Ok(())
    })
}

/// The terms of the loss over the steps, thinned, with a mark where an experience begins.
pub(super) fn losses(losses: &[LossPoint], terms: &[Term]) -> Result<String, Failure> {
    let series: Vec<_> = terms
        .iter()
        .map(|term| thin(losses, term.of, POINTS))
        .collect();
    let values = || {
        series
            .iter()
            .flatten()
            .flatten()
            .filter_map(|point| point.1)
    };
    let low = values().fold(0.0, f64::min);
    let top = values().fold(low, f64::max);
    let top = if top > low { top } else { low + 1.0 };
    let steps = || losses.iter().map(|point| point.step as f64);
    let (begin, end) = (
        steps().fold(f64::INFINITY, f64::min),
        steps().fold(0.0, f64::max),
    );
    let end = if end > begin { end } else { begin + 1.0 };
    draw((2340, 680), |canvas| {
        let (marks, digits) = ticks(low, top, 5);
        let head = top + 0.09 * (top - low);
        let x = axis(begin, end, ticks(begin, end, 10).0);
        let y = axis(low, head, marks);
        let mut plot = frame(canvas, x, y, "step", digits)?;
        // Marks first, so that the curves lie on top. Close borders share one label.
        let starts = losses.chunk_by(|a, b| a.experience == b.experience);
        let mut labelled = f64::NEG_INFINITY;
        for (index, first) in starts.filter_map(<[_]>::first).enumerate() {
            let at = first.step as f64;
            if index > 0 {
                let border = vec![(at, low), (at, head)];
                plot.draw_series([PathElement::new(border, GRID.mix(0.8).stroke_width(2))])?;
            }
            if at - labelled > 0.03 * (end - begin) {
                let text = format!(" {}", first.experience);
                let style = ("sans-serif", FONT).into_font().color(&INK);
                plot.draw_series([Text::new(text, (at, head), style)])?;
                labelled = at;
            }
        }
        // The total is a sum: drawn first, its terms stay visible where they nearly equal it.
        for (term, stretches) in terms.iter().zip(series) {
            let (paint, width) = term.colour.map_or((INK, 4), |index| (paint(index), 3));
            for stretch in stretches {
                line(&mut plot, stretch, paint, width, 0)?;
            }
        }
        Ok(())
    })
}

/// One stacked bar per experience: the stored samples by class.
pub(super) fn buffer(data: &ReportData) -> Result<String, Failure> {
    let classes = classes(&data.buffer);
    let total = |bar: &Vec<(u32, usize)>| bar.iter().map(|&(_, count)| count as f64).sum::<f64>();
    let top = data.buffer.iter().map(total).fold(1.0, f64::max);
    let bars = data.buffer.len();
    draw((2340, 620), |canvas| {
        let (marks, digits) = ticks(0.0, top, 5);
        let x = axis(-0.6, bars as f64 - 0.4, whole(0, bars, 40));
        let y = axis(0.0, 1.04 * top, marks);
        let mut plot = frame(canvas, x, y, "after experience", digits)?;
        // A lone bar or two would otherwise be as wide as the page.
        let half = 0.36 * (bars as f64 / 5.0).min(1.0);
        for (i, bar) in data.buffer.iter().enumerate() {
            let mut bar = bar.clone();
            bar.sort_unstable();
            let mut below = 0.0;
            for (class, count) in bar {
                let above = below + count as f64;
                let corners = [(i as f64 - half, below), (i as f64 + half, above)];
                let index = classes.binary_search(&class).unwrap_or(0);
                plot.draw_series([Rectangle::new(corners, paint(index).filled())])?;
                below = above;
            }
        }
        Ok(())
    })
}

/// An SVG of `size` with what `content` draws on it.
fn draw<'a>(
    size: (u32, u32),
    content: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Failure> + 'a,
) -> Result<String, Failure> {
    let mut svg = String::new();
    let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    content(&canvas)?;
    canvas.present()?;
    drop(canvas);
    Ok(svg)
}

/// Axes, grid and numbers; `digits` after the point on the vertical axis.
fn frame<'a, 'b>(
    canvas: &'a Canvas<'b>,
    x: Axis,
    y: Axis,
    below: &str,
    digits: usize,
) -> Result<Plot<'a, 'b>, Failure> {
    let mut plot = ChartBuilder::on(canvas)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(72)
        .y_label_area_size(84)
        .build_cartesian_2d(x, y)?;
    plot.configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID.mix(0.35).stroke_width(2))
        .light_line_style(TRANSPARENT)
        .axis_style(GRID.stroke_width(2))
        .label_style(("sans-serif", FONT).into_font().color(&INK))
        .x_desc(below)
        .x_label_formatter(&|&value| tick_text(value, 0))
        .y_label_formatter(&|&value| tick_text(value, digits))
        .draw()?;
    Ok(plot)
}

/// A polyline that pauses where a value is missing, with a dot of radius `dot` on each value.
fn line(
    plot: &mut Plot<'_, '_>,
    points: Vec<(f64, Option<f64>)>,
    paint: RGBColor,
    width: u32,
    dot: i32,
) -> Result<(), Failure> {
    let style = paint.stroke_width(width);
    for run in points.split(|point| point.1.is_none()) {
        let run: Vec<(f64, f64)> = run.iter().filter_map(|&(x, y)| Some((x, y?))).collect();
        // A value between two gaps has no line, so it always gets a dot.
        let dot = if run.len() == 1 { dot.max(3) } else { dot };
        if dot > 0 {
            plot.draw_series(run.iter().map(|&at| Circle::new(at, dot, paint.filled())))?;
        }
        if run.len() > 1 {
            plot.draw_series([PathElement::new(run, style)])?;
        }
    }
    Ok(())
}

/// The whole numbers `from..to`, every one or every so many that at most `most` remain.
fn whole(from: usize, to: usize, most: usize) -> Vec<f64> {
    let every = (to - from).div_ceil(most).max(1);
    (from..to)
        .step_by(every)
        .map(|index| index as f64)
        .collect()
}

fn axis(low: f64, high: f64, marks: Vec<f64>) -> Axis {
    Axis { low, high, marks }
}

fn paint(index: usize) -> RGBColor {
    let (r, g, b) = colour(index);
    RGBColor(r, g, b)
}
