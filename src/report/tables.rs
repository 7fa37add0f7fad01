//! The parts of the page that are tables: results, heat maps, forgetting, settings.

use maud::{Markup, html};

use super::ReportData;
use super::scale::{drawable, entry, extent, percent};

/// Columns from which a heat map takes the full width and small type.
const DENSE: usize = 11;

/// The name of experience `index`, or its number.
pub(super) fn name(data: &ReportData, index: usize) -> String {
    let name = data.experience_names.get(index);
    name.cloned().unwrap_or_else(|| index.to_string())
}

/// The results in words and figures.
pub(super) fn summary(data: &ReportData) -> Markup {
    html! {
        table.rows.summary { tbody {
            @for (name, value) in &data.summary {
                tr { th scope="row" { (name) } td.number { (value) } }
            }
        } }
    }
}

/// The options of the run, in two columns.
pub(super) fn settings(data: &ReportData) -> Markup {
    html! {
        dl.settings {
            @for (name, value) in &data.settings {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// Whether a heat map of `matrix` needs the whole width.
pub(super) fn dense(matrix: &[Vec<Option<f64>>]) -> bool {
    extent(matrix).1 >= DENSE
}

/// A matrix of fractions as coloured cells with their numbers in per cent.
pub(super) fn heat_map(data: &ReportData, matrix: &[Vec<Option<f64>>]) -> Markup {
    let (rows, columns) = extent(matrix);
    html! {
        div.scroll { table.heat.dense[dense(matrix)] {
            thead { tr {
                th.corner scope="col" { "after \\ test" }
                @for j in 0..columns { th scope="col" title=(name(data, j)) { (j) } }
            } }
            tbody { @for i in 0..rows { tr {
                th scope="row" { (name(data, i)) }
                @for j in 0..columns { (cell(entry(matrix, i, j), i == j)) }
            } } }
        } }
    }
}

/// One cell; `own` frames the experience that was just trained.
fn cell(value: Option<f64>, own: bool) -> Markup {
    let depth = value.unwrap_or(0.0).clamp(0.0, 1.0);
    html! {
        // One hue of growing opacity lies well on a light and on a dark page.
        td.deep[depth > 0.7].missing[value.is_none()].own[own]
            style=[value.map(|_| format!("background:rgb(29 79 145 / {depth:.2})"))] {
            (percent(value))
        }
    }
}

/// Forgetting as Avalanche defines it: the accuracy just after an experience was trained, minus
/// the accuracy at the end.
pub(super) fn forgetting(data: &ReportData, matrix: &[Vec<Option<f64>>]) -> Markup {
    let rows = extent(matrix).0;
    html! {
        table.rows {
            thead { tr {
                th scope="col" { "experience" }
                th.number scope="col" { "when trained" }
                th.number scope="col" { "at the end" }
                th.number scope="col" { "forgotten" }
                th {}
            } }
            tbody { @for j in 0..rows.saturating_sub(1) {
                @let (first, last) = (entry(matrix, j, j), entry(matrix, rows - 1, j));
                @let lost = first.zip(last).and_then(|(first, last)| drawable(first - last));
                tr {
                    th scope="row" { (name(data, j)) }
                    td.number { (percent(first)) }
                    td.number { (percent(last)) }
                    td.number { (percent(lost)) }
                    td.meter { @if let Some(lost) = lost {
                        span.gain[lost < 0.0] style=(bar(lost)) {}
                    } }
                }
            } }
        }
    }
}

fn bar(lost: f64) -> String {
    format!("width:{:.1}%", 100.0 * lost.abs().min(1.0))
}
