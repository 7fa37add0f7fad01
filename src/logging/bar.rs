//! The progress bar.

use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// Columns of the figures beside name and bar, and some that stay free: a terminal that echoes `^C`
/// behind a full line begins a new one.
const FIGURES: usize = 53;
/// The narrowest bar worth drawing, and the widest.
const BAR: std::ops::RangeInclusive<usize> = 8..=40;

/// Between two drawings: indicatif's own limit begins anew with each bar, and short epochs would flicker.
const PAUSE: Duration = Duration::from_millis(50);

/// A bar that is drawn now and then while it is stepped on.
pub(super) struct Bar {
    bar: ProgressBar,
    drawn: Instant,
    steps: u64,
}

impl Bar {
    /// A bar of `length` steps called `name`.
    pub fn new(name: String, length: u64) -> Self {
        Bar {
            bar: bar(name, length),
            drawn: Instant::now(),
            steps: 0,
        }
    }

    /// Redraws it by itself, too, so that the time left goes on when steps are slow.
    pub fn ticking(self) -> Self {
        self.bar.enable_steady_tick(4 * PAUSE);
        self
    }

    /// One step more. If it is time to draw, `message` says what stands behind the figures.
    pub fn step(&mut self, message: impl FnOnce() -> String) {
        self.steps += 1;
        if self.drawn.elapsed() >= PAUSE {
            self.bar.set_message(message());
            self.bar.inc(std::mem::take(&mut self.steps));
            self.drawn = Instant::now();
        }
    }

    /// Does `work` with the bar out of the way.
    pub fn suspend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.bar.suspend(work)
    }

    /// Removes it.
    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// A bar of `length` steps on standard error: share, count, speed, time left, and what is set as
/// its message. It stays on one line: on a narrow terminal only name, share and time left are shown.
fn bar(name: String, length: u64) -> ProgressBar {
    let columns = usize::from(Term::stderr().size().1);
    let length_of_name = name.chars().count();
    let rest = columns.saturating_sub(length_of_name + FIGURES);
    let template = if rest >= *BAR.start() {
        let width = rest.min(*BAR.end());
        format!(
            "{{prefix}} {{percent:>3}}%|{{bar:{width}}}| {{pos}}/{{len}} [{{eta}}, {{speed}}{{msg}}]"
        )
    } else {
        let room = columns.saturating_sub(14).clamp(1, length_of_name.max(1));
        format!("{{prefix:{room}!}} {{percent:>3}}% {{eta:>4}}")
    };
    let style = ProgressStyle::with_template(&template)
        .expect("the templates are constants that parse")
        .progress_chars("█▉▊▋▌▍▎▏ ")
        .with_key(
            "speed",
            |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // The writer is a string in memory: it cannot fail.
                let _ = write!(out, "{}", speed(state.per_sec()));
            },
        );
    ProgressBar::new(length).with_style(style).with_prefix(name)
}

/// Steps a second, or seconds a step where a step takes longer than that.
fn speed(per_second: f64) -> String {
    match per_second {
        _ if per_second >= 10.0 => format!("{per_second:.0} it/s"),
        _ if per_second >= 1.0 => format!("{per_second:.1} it/s"),
        _ if per_second > 0.0 => format!("{:.1} s/it", 1.0 / per_second),
        _ => "? it/s".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_has_two_figures_at_least() {
        let found = [12_345.6, 9.87, 0.25, 0.0, f64::NAN].map(speed);
        assert_eq!(
            found,
            ["12346 it/s", "9.9 it/s", "4.0 s/it", "? it/s", "? it/s"]
        );
    }

    #[test]
    fn steps_between_two_drawings_are_counted() {
        let mut bar = Bar::new("test".to_string(), 40);
        for step in 1..=30 {
            if step % 10 == 0 {
                std::thread::sleep(PAUSE);
            }
            bar.step(String::new);
            assert_eq!(bar.bar.position() + bar.steps, step);
        }
        assert_eq!(bar.bar.position(), 30, "the last step was drawn");
    }
}
