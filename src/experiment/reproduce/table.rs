//! The comparison with the paper, as text and as Markdown.

use std::fmt::Write as _;

use super::{Cell, Published, ReproduceOptions};
use crate::experiment::config::DataSource;
use crate::experiment::record::Record;

/// A number of the paper and what was measured for it.
pub(super) struct Measured {
    pub cell: Cell,
    /// Class-IL, Task-IL, Domain-IL or General CL.
    pub setting: &'static str,
    pub paper: Published,
    /// One accuracy in per cent for each run that did not diverge.
    pub ours: Vec<f64>,
    /// Runs that diverged.
    pub diverged: usize,
    /// Mean seconds of a run.
    pub seconds: f64,
}

/// Mean, and standard deviation of a sample (n - 1); 0 for a single value.
pub(in crate::experiment) fn mean_std(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    let std = if values.len() > 1 {
        (squares / (n - 1.0)).sqrt()
    } else {
        0.0
    };
    (!values.is_empty()).then_some((mean, std))
}

impl Measured {
    fn published(&self) -> String {
        format!("{:.2} ± {:.2}", self.paper.mean, self.paper.std)
    }

    fn found(&self) -> String {
        match (mean_std(&self.ours), self.ours.len()) {
            (Some((mean, _)), 1) => format!("{mean:.2}"),
            (Some((mean, std)), _) => format!("{mean:.2} ± {std:.2}"),
            (None, _) if self.diverged > 0 => "diverged".into(),
            (None, _) => "not run here".into(),
        }
    }

    /// How many runs there are, and how many of them are in no mean because they diverged.
    fn runs(&self) -> String {
        let all = self.ours.len() + self.diverged;
        match self.diverged {
            0 => all.to_string(),
            n => format!("{all}, {n} diverged"),
        }
    }

    /// Whether our mean lies within the paper's mean ± max(2 of its standard deviations, 1 point).
    fn verdict(&self) -> String {
        let Some((mean, _)) = mean_std(&self.ours) else {
            return "-".into();
        };
        let band = (2.0 * self.paper.std).max(1.0);
        let off = mean - self.paper.mean;
        if off.abs() <= band {
            format!("within ({off:+.2})")
        } else {
            format!("OUTSIDE ({off:+.2}, band ±{band:.2})")
        }
    }
}

/// The table for the terminal.
pub(super) fn text(rows: &[Measured]) -> String {
    let mut out = format!(
        "{:<22} {:<10} {:>14} {:>14} {:>5}  verdict\n",
        "cell", "setting", "paper", "here", "runs"
    );
    for row in rows {
        let _ = writeln!(
            out,
            "{:<22} {:<10} {:>14} {:>14} {:>5}  {}",
            row.cell.name(),
            row.setting,
            row.published(),
            row.found(),
            row.runs(),
            row.verdict()
        );
    }
    out
}

/// The page for the repository: every cell, with what is needed to judge and to repeat it.
pub(super) fn markdown(
    rows: &[Measured],
    records: &[Record],
    options: &ReproduceOptions,
) -> String {
    let mut out = String::from(
        "# Reproducing the paper\n\n\
         Buzzega et al., \"Dark Experience for General Continual Learning: a Strong, Simple \
         Baseline\", NeurIPS 2020. Accuracy in per cent after the last task, mean over tasks; mean \
         and standard deviation over runs. \"Within\" means that our mean lies within the paper's \
         mean ± max(2 of its standard deviations, 1 point); in brackets our mean minus the \
         paper's. A run whose loss became infinite or NaN counts among the runs but in no mean. The \
         algorithm is `--mode paper`; hyper-parameters are the authors' best for each cell. This page \
         is written by the command below.\n\n",
    );
    let words = match options.cells.as_slice() {
        [] => String::new(),
        cells => format!("{} ", cells.join(" ")),
    };
    let _ = writeln!(
        out,
        "```\nunforget reproduce {words}--seeds {} --markdown REPRODUCIBILITY.md\n```\n",
        options.seeds
    );
    if options.data == DataSource::Embedded {
        out.push_str(
            "**Run on the tenth of MNIST inside the program, for trying the command only: these \
             numbers cannot be compared with the paper's.**\n\n",
        );
    }
    let mut commits: Vec<&str> = records.iter().filter_map(|r| r.commit.as_deref()).collect();
    commits.sort_unstable();
    commits.dedup();
    let seconds: f64 = records.iter().map(|r| r.seconds).sum();
    let _ = writeln!(
        out,
        "{} runs of one thread each, {:.0} minutes of computing in all, on {}, at {}.\n",
        records.len(),
        seconds / 60.0,
        machine(),
        match commits.as_slice() {
            [] => "an unknown commit".to_string(),
            commits => format!("commit {}", commits.join(", ")),
        }
    );
    let mut benchmark = "";
    for row in rows {
        if row.cell.benchmark != benchmark {
            benchmark = row.cell.benchmark;
            let _ = write!(
                out,
                "## {benchmark}\n\n| buffer | method | setting | paper | here | runs | verdict | \
                 seconds a run |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
            );
        }
        let last = rows
            .iter()
            .rfind(|other| other.cell.benchmark == benchmark)
            .is_some_and(|last| std::ptr::eq(last, row));
        let buffer = match row.cell.buffer {
            0 => "-".to_string(),
            buffer => buffer.to_string(),
        };
        let mark = if row.cell.is_recalled() { "†" } else { "" };
        let seconds = match row.ours.len() + row.diverged {
            0 => "-".to_string(),
            _ => format!("{:.1}", row.seconds),
        };
        let _ = writeln!(
            out,
            "| {buffer} | {} | {} | {}{mark} | {} | {} | {} | {seconds} |{}",
            row.cell.method.title(),
            row.setting,
            row.published(),
            row.found(),
            row.runs(),
            row.verdict(),
            if last { "\n" } else { "" }
        );
    }
    out.push_str(
        "† The published number could not be checked against the paper's own text when this table \
         was typed in; an independent re-implementation of the MNIST ones lands within about one and a half of \
         their standard deviations.\n",
    );
    out
}

/// The processor, as Linux names it.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':'));
    model.map_or("an unnamed processor".into(), |(_, name)| {
        name.trim().to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::reproduce::CELLS;

    fn row(paper: (f64, f64), ours: &[f64]) -> Measured {
        Measured {
            cell: CELLS[0],
            setting: "Class-IL",
            paper: Published {
                mean: paper.0,
                std: paper.1,
            },
            ours: ours.to_vec(),
            diverged: 0,
            seconds: 1.0,
        }
    }

    #[test]
    fn the_band_is_two_standard_deviations_or_a_point() {
        let verdict = |paper, ours| row(paper, ours).verdict();
        assert_eq!(verdict((90.0, 0.1), &[91.0]), "within (+1.00)");
        assert_eq!(
            verdict((90.0, 0.1), &[91.01]),
            "OUTSIDE (+1.01, band ±1.00)"
        );
        assert_eq!(verdict((90.0, 2.0), &[86.0]), "within (-4.00)");
        assert_eq!(
            verdict((90.0, 2.0), &[86.0, 85.0]),
            "OUTSIDE (-4.50, band ±4.00)"
        );
        assert!(verdict((90.0, 2.0), &[f64::NAN]).starts_with("OUTSIDE"));
        assert_eq!(verdict((90.0, 2.0), &[]), "-");
    }

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        assert_eq!(mean_std(&[1.0, 3.0]), Some((2.0, 2.0_f64.sqrt())));
        assert_eq!(row((1.0, 1.0), &[2.0]).found(), "2.00");
        assert_eq!(row((1.0, 1.0), &[1.0, 3.0]).found(), "2.00 ± 1.41");
        assert_eq!(row((1.0, 1.0), &[]).found(), "not run here");
        assert_eq!(mean_std(&[]), None);
    }

    #[test]
    fn a_run_that_diverged_is_named_and_in_no_mean() {
        let row = |ours: &[f64]| Measured {
            diverged: 1,
            ..row((1.0, 1.0), ours)
        };
        assert_eq!(
            (row(&[2.0]).found(), row(&[2.0]).runs()),
            ("2.00".into(), "2, 1 diverged".into())
        );
        assert_eq!(
            (row(&[]).found(), row(&[]).verdict()),
            ("diverged".into(), "-".into())
        );
    }
}
