//! What the person in front of the terminal sees.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bar::Bar;
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

    /// Whether a progress bar makes sense: somebody looks at a terminal, and no pipe to another
    /// program stands between, whose lines would fall into the bar.
    pub fn shows_progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal() && std::io::stdout().is_terminal()
    }
}

/// A bar for each epoch, on standard error: steps a second, the loss, the time left. It vanishes
/// with the epoch.
pub struct ProgressBars {
    bar: Option<Bar>,
    interrupt: Arc<AtomicBool>,
}

impl ProgressBars {
    /// Bars that go away when `interrupt` is raised, before anything else is printed.
    pub fn new(interrupt: Arc<AtomicBool>) -> Self {
        ProgressBars {
            bar: None,
            interrupt,
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.end();
        }
    }
}

impl Plugin for ProgressBars {
    fn before_training_epoch(&mut self, s: &mut State) -> Result<()> {
        let experience = s.experience.as_ref().map_or(0, |e| e.current_experience());
        let (epoch, epochs) = (s.clock.train_exp_epochs + 1, s.train_epochs);
        let name = format!("exp {experience}, epoch {epoch}/{epochs}");
        let bar = Bar::new(name, s.iterations_per_epoch as u64);
        self.bar = Some(bar.ticking());
        Ok(())
    }

    fn after_training_iteration(&mut self, s: &mut State) -> Result<()> {
        if let Some(bar) = &mut self.bar {
            bar.step(|| format!(", loss {:.4}", s.loss().total));
        }
        if self.interrupt.load(Ordering::Relaxed) {
            self.end();
        }
        Ok(())
    }

    fn after_training_epoch(&mut self, _: &mut State) -> Result<()> {
        self.end();
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
