//! The page: its head, and the sections in the order they are read.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::charts::{self, Failure};
use super::scale::{colour, extent, has_values};
use super::{ReportData, tables};

const STYLE: &str = include_str!("style.css");
/// Nothing may be fetched and nothing may run; inline styles colour the cells.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// A matrix under the name of its setting.
type Named<'a> = (&'static str, &'a [Vec<Option<f64>>]);

pub(super) fn page(data: &ReportData) -> Markup {
    let matrices: Vec<Named> = [
        ("Class-incremental", &data.accuracy),
        ("Task-incremental", &data.accuracy_task),
    ]
    .into_iter()
    .filter(|(_, matrix)| has_values(matrix))
    .map(|(name, matrix)| (name, matrix.as_slice()))
    .collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (data.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (data.title) }
                p { (data.subtitle) }
                @if !data.summary.is_empty() { (tables::summary(data)) }
                (accuracy(data, &matrices))
                (losses(data))
                (forgetting(data, &matrices))
                (buffer(data))
                @if !data.settings.is_empty() {
                    h2 { "Settings" }
                    (tables::settings(data))
                }
                footer { "Written by unforget " (env!("CARGO_PKG_VERSION")) "." }
            }
        }
    }
}

fn accuracy(data: &ReportData, matrices: &[Named]) -> Markup {
    let wide = matrices.iter().any(|(_, matrix)| tables::dense(matrix));
    html! {
        h2 { "Accuracy" }
        @if matrices.is_empty() { p { "No accuracy was recorded." } } @else {
            p { "In per cent. A row is the state of the model after an experience, a column the "
                "test set of an experience; the framed cells are those just trained. "
                "Class-incremental: all classes compete. Task-incremental: only the classes of "
                "the tested experience do." }
            div.pair[!wide] { @for (name, matrix) in matrices {
                section { h3 { (name) } (tables::heat_map(data, matrix)) }
            } }
            h2 { "Learning curves" }
            p { "Accuracy in per cent of each test experience from its training on; the thick "
                "line is the mean of those trained so far." }
            div.pair { @for (name, matrix) in matrices {
                section { h3 { (name) } (chart(name, charts::accuracy(matrix))) }
            } }
            @let columns = matrices.iter().map(|(_, matrix)| extent(matrix).1).max();
            ul.legend {
                (key(None, "mean"))
                @for j in 0..columns.unwrap_or(0) { (key(Some(j), &tables::name(data, j))) }
            }
        }
    }
}

fn losses(data: &ReportData) -> Markup {
    let terms = charts::terms(&data.losses);
    html! {
        h2 { "Loss" }
        @if data.losses.is_empty() { p { "No loss was recorded." } } @else {
            p { "Means over neighbouring steps, each term as weighted in the total. A vertical "
                "line marks the first step of an experience, whose number stands beside it." }
            (chart("Loss over steps", charts::losses(&data.losses, &terms)))
            ul.legend { @for term in &terms { (key(term.colour, term.name)) } }
        }
    }
}

fn forgetting(data: &ReportData, matrices: &[Named]) -> Markup {
    let enough: Vec<_> = matrices.iter().filter(|(_, m)| extent(m).0 > 1).collect();
    html! {
        h2 { "Forgetting" }
        @if enough.is_empty() { p { "Forgetting needs at least two experiences." } } @else {
            p { "Accuracy in per cent just after training an experience, minus accuracy at the "
                "end. Negative: later experiences helped." }
            div.pair { @for (name, matrix) in enough {
                section { h3 { (name) } div.scroll { (tables::forgetting(data, matrix)) } }
            } }
        }
    }
}

fn buffer(data: &ReportData) -> Markup {
    let classes = charts::classes(&data.buffer);
    html! {
        h2 { "Replay buffer" }
        @if classes.is_empty() { p { "Nothing was stored for replay." } } @else {
            p { "Stored samples by class." }
            (chart("Stored samples by class", charts::buffer(data)))
            ul.legend { @for (index, class) in classes.iter().enumerate() {
                (key(Some(index), &format!("class {class}")))
            } }
        }
    }
}

/// A drawn chart with a name for those who cannot see it.
fn chart(label: &str, drawn: Result<String, Failure>) -> Markup {
    html! {
        @match drawn {
            Ok(svg) => figure role="img" aria-label=(label) { (PreEscaped(svg)) },
            Err(why) => p { "This chart could not be drawn: " (why) },
        }
    }
}

/// One entry of a legend; no index is the colour of the text.
fn key(index: Option<usize>, text: &str) -> Markup {
    let background = index.map(|index| {
        let (r, g, b) = colour(index);
        format!("background:rgb({r} {g} {b})")
    });
    html! { li { i.ink[index.is_none()] style=[background] {} (text) } }
}
