//! The report of a finished run: one HTML file that opens without a network.
//!
//! [`ReportData`] is plain data, filled by whoever ran the experiment; [`render`] turns it into a
//! page and [`write()`] puts the page on disk. Style sheet and charts are inside the file, there is
//! no script, and a content security policy forbids the browser every request. Colours follow the
//! reader's light or dark setting.
//!
//! A number that is missing, NaN or infinite is shown as "n/a" in tables and as a gap in charts.

mod charts;
mod page;
mod scale;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::Result;
use crate::checkpoint::write_atomically;

/// Everything that a report shows.
///
/// Every list may be empty, of another length than its neighbours (a run that was cut) or hold
/// NaN: the page then says so where the figure would stand. All text is escaped.
///
/// ```
/// use unforget::report::{ReportData, render};
///
/// let data = ReportData {
///     title: "DER++ on Split-MNIST".into(),
///     accuracy: vec![vec![Some(0.99), Some(0.0)], vec![Some(0.91), Some(0.97)]],
///     ..ReportData::default()
/// };
/// assert!(render(&data).contains("91.0"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReportData {
    /// The headline, and the title of the browser's tab.
    pub title: String,
    /// One line below the headline.
    pub subtitle: String,
    /// The options of the run: (name, value).
    pub settings: Vec<(String, String)>,
    /// The results in words and figures: ("final accuracy (class-incremental)", "83.2 %").
    pub summary: Vec<(String, String)>,
    /// Class-incremental accuracy as a fraction, `[after experience i][test experience j]`.
    pub accuracy: Vec<Vec<Option<f64>>>,
    /// Task-incremental accuracy (only the classes of the test experience compete), likewise.
    pub accuracy_task: Vec<Vec<Option<f64>>>,
    /// What each experience is called: "0: classes 5, 6". Missing names become the index.
    pub experience_names: Vec<String>,
    /// The loss and its terms, in order of the steps.
    pub losses: Vec<LossPoint>,
    /// What the replay buffer holds after experience i: (class, stored samples).
    pub buffer: Vec<Vec<(u32, usize)>>,
}

/// The loss of one training step and the terms it is the sum of, each already weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossPoint {
    /// The optimiser's step, counted over the whole run.
    pub step: u64,
    /// The experience that was trained.
    pub experience: usize,
    /// The total.
    pub loss: f64,
    /// Cross-entropy of the current experience's samples.
    pub current: f64,
    /// Distance between the stored and the present logits of the replayed samples (DER's alpha
    /// term); 0 without replay.
    pub logits: f64,
    /// Cross-entropy of the replayed samples (DER++'s beta term); 0 without replay.
    pub replay: f64,
}

/// The report as an HTML page.
pub fn render(data: &ReportData) -> String {
    page::page(data).into_string()
}

/// Writes the report to `path`.
///
/// The page goes to a temporary file in the same folder, which then takes the name `path`: a
/// reader sees the old report or the new one, never half of one.
///
/// # Errors
///
/// [`Error::Io`](crate::Error::Io) naming `path` if the folder is missing, full or not writable.
pub fn write(path: &Path, data: &ReportData) -> Result<()> {
    write_atomically(path, render(data).as_bytes())
}
