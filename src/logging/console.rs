//! What the person in front of the terminal sees.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::training::{Plugin, State};

/// Lines on standard output, unless the run is quiet.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Whether nothing is printed.
    pub quiet: bool,
}

impl Console {
    /// Prints a line. A closed pipe (`unforget | head`) is no reason to stop a training.
    pub fn line(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Whether a progress bar makes sense: somebody looks at a terminal.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }
}

/// A bar for each epoch, on standard error: steps a second, the loss, the time left.
#[derive(Default)]
pub struct ProgressBars {
    bar: Option<ProgressBar>,
}

impl ProgressBars {
    /// The loss is refreshed every so many steps; the bar itself redraws at most 20 times a second.
    const EVERY: u64 = 16;
}

impl Plugin for ProgressBars {
    fn before_training_epoch(&mut self, s: &mut State) -> Result<()> {
        let bar = ProgressBar::new(s.iterations_per_epoch as u64);
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {pos}/{len}  {per_sec}  loss {msg}  ETA {eta}",
        )
        .expect("the template is a constant that parses");
        bar.set_style(style.with_key(
            "per_sec",
            |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                // The writer is a string in memory: it cannot fail.
                let _ = write!(w, "{:.0} it/s", state.per_sec());
            },
        ));
        let experience = s.experience.as_ref().map_or(0, |e| e.current_experience());
        bar.set_prefix(format!(
            "experience {experience}, epoch {}/{}",
            s.clock.train_exp_epochs + 1,
            s.train_epochs
        ));
        bar.enable_steady_tick(Duration::from_millis(200));
        self.bar = Some(bar);
        Ok(())
    }

    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if let Some(bar) = &self.bar {
            if s.clock.train_iterations.is_multiple_of(Self::EVERY) {
                bar.set_message(format!("{:.4}", s.loss.total));
            }
            bar.inc(1);
        }
        Ok(())
    }

    fn after_training_epoch(&mut self, _: &mut State) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        Ok(())
    }
}

/// A fraction in per cent with two decimals; a dash where there is none.
pub fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".into(), |f| format!("{:.2} %", 100.0 * f))
}

/// The accuracy matrix in per cent, a row for each training.
pub fn matrix_text(rows: &[Vec<f64>]) -> String {
    let mut text = String::from("after \\ test");
    for j in 0..rows.first().map_or(0, Vec::len) {
        let _ = write!(text, "{j:>8}");
    }
    for (i, row) in rows.iter().enumerate() {
        let _ = write!(text, "\n{i:>12}");
        for value in row {
            let _ = write!(text, "{:>8.2}", 100.0 * value);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_in_per_cent_and_columns_line_up() {
        let text = matrix_text(&[vec![1.0, 0.0], vec![0.125, 0.5]]);
        let wanted = "\
after \\ test       0       1
           0  100.00    0.00
           1   12.50   50.00";
        assert_eq!(text, wanted);
        assert_eq!(
            (percent(None), percent(Some(0.5))),
            ("-".into(), "50.00 %".into())
        );
    }
}
