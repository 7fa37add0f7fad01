//! `unforget sweep`: a user's own grid of configurations.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use crate::checkpoint::write_atomically;
use crate::logging::Console;
use crate::{Error, Result};

use super::config::Config;
use super::grid::{self, GridOptions, Job};
use super::record::Record;
use super::reproduce::mean_std;

/// What a grid file says.
///
/// ```
/// use unforget::experiment::sweep::Grid;
///
/// let grid: Grid = Grid::parse(
///     "grid.toml".as_ref(),
///     r#"
///     seeds = [0, 1, 2]
///     [base]
///     mode = "paper"
///     [grid]
///     alpha = [0.2, 0.5]
///     lr = [0.03, 0.1]
///     "#,
/// )?;
/// assert_eq!(grid.points()?.len(), 4);
/// # Ok::<(), unforget::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// The seeds of each point.
    #[serde(default = "first_seed")]
    seeds: Vec<u64>,
    /// Options that all runs share, as in a `config.toml`.
    #[serde(default)]
    base: toml::Table,
    /// The values of each option that varies; every combination is a point.
    grid: toml::Table,
}

fn first_seed() -> Vec<u64> {
    vec![0]
}

/// A combination of values, with the name that they give it.
type Point = (String, toml::Table);

impl Grid {
    /// Reads a grid file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is not such a file.
    pub fn read(path: &Path) -> Result<Grid> {
        let text = fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
        Self::parse(path, &text)
    }

    /// As [`read`](Self::read), of the text of the file.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn parse(path: &Path, text: &str) -> Result<Grid> {
        toml::from_str(text).map_err(|e| {
            Error::format(
                path,
                "seeds = [..], a table [base] of options and a table [grid] of lists of values",
                e.message(),
                "see the example in `unforget sweep --help`",
            )
        })
    }

    /// Every combination of the values, the last option varying fastest.
    ///
    /// # Errors
    /// [`Error::Config`] if the values of an option are no list, or an empty one.
    pub fn points(&self) -> Result<Vec<(String, toml::Table)>> {
        let mut points: Vec<Point> = vec![(String::new(), toml::Table::new())];
        for (option, values) in &self.grid {
            let values = values.as_array().filter(|list| !list.is_empty());
            let Some(values) = values else {
                let name = format!("[grid] {option}");
                return Err(Error::config(name, "a list of values", &self.grid[option]));
            };
            let extended = points.iter().flat_map(|(name, table)| {
                values.iter().map(move |value| {
                    let comma = if name.is_empty() { "" } else { "," };
                    let name = format!("{name}{comma}{option}={}", word(value));
                    let mut table = table.clone();
                    table.insert(option.clone(), value.clone());
                    (name, table)
                })
            });
            points = extended.collect();
        }
        Ok(points)
    }
}

/// A value as a part of a file's name.
fn word(value: &toml::Value) -> String {
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_string);
    let safe = |c: char| {
        if c.is_alphanumeric() || "._+-".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.chars().map(safe).collect()
}

/// Carries out all runs of the grid that have no record yet. Once all are done, whichever shard they
/// came from, writes `table.csv`, `table.md` and `plot.svg`.
///
/// # Errors
/// [`Error::Config`] for an impossible point, naming the option, and those of
/// [`train`](super::train) and of the files.
pub fn sweep(grid: &Grid, options: &GridOptions, interrupt: &Arc<AtomicBool>) -> Result<()> {
    let points = grid.points()?;
    let mut jobs = Vec::new();
    for &seed in &grid.seeds {
        for (name, table) in &points {
            let mut own = table.clone();
            let number = i64::try_from(seed).unwrap_or(i64::MAX);
            own.insert("seed".into(), toml::Value::Integer(number));
            jobs.push(Job {
                name: format!("{name}/seed-{seed}"),
                config: Config::from_layers([grid.base.clone(), own])?,
            });
        }
    }
    let records = grid::run(&jobs, options, interrupt)?;
    let rows: Vec<Row> = points
        .iter()
        .enumerate()
        .map(|(i, (name, table))| {
            let runs = records.iter().skip(i).step_by(points.len()).flatten();
            Row::new(name, table, &runs.collect::<Vec<_>>())
        })
        .collect();
    let console = Console {
        quiet: options.quiet,
    };
    console.line(format_args!("\n{}", markdown(&rows)));
    if records.iter().any(Option::is_none) {
        return Ok(()); // Another shard, or a later call, completes the table.
    }
    for (file, text) in [
        ("table.csv", csv(&rows)),
        ("table.md", markdown(&rows)),
        ("plot.svg", plot(&rows)),
    ] {
        write_atomically(&options.out.join(file), text.as_bytes())?;
    }
    Ok(())
}

/// A point of the grid with what its runs came to.
struct Row {
    name: String,
    values: Vec<(String, String)>,
    runs: usize,
    accuracy: Option<(f64, f64)>,
    accuracy_task: Option<(f64, f64)>,
    forgetting: Option<(f64, f64)>,
    seconds: Option<(f64, f64)>,
}

impl Row {
    fn new(name: &str, table: &toml::Table, runs: &[&Record]) -> Self {
        let of = |value: fn(&Record) -> Option<f64>| {
            mean_std(&runs.iter().filter_map(|r| value(r)).collect::<Vec<_>>())
        };
        let values = table.iter();
        Row {
            name: name.to_string(),
            values: values.map(|(k, v)| (k.clone(), word(v))).collect(),
            runs: runs.len(),
            accuracy: of(|r| r.accuracy),
            accuracy_task: of(|r| r.accuracy_task),
            forgetting: of(|r| r.forgetting),
            seconds: of(|r| Some(r.seconds)),
        }
    }

    fn figures(&self) -> [(&'static str, Option<(f64, f64)>); 4] {
        [
            ("accuracy", self.accuracy),
            ("accuracy-task", self.accuracy_task),
            ("forgetting", self.forgetting),
            ("seconds", self.seconds),
        ]
    }
}

fn csv(rows: &[Row]) -> String {
    let mut out = String::new();
    let Some(first) = rows.first() else {
        return out;
    };
    first.values.iter().for_each(|(option, _)| {
        let _ = write!(out, "{option},");
    });
    out.push_str("runs");
    for (name, _) in first.figures() {
        let _ = write!(out, ",{name},{name}-std");
    }
    out.push('\n');
    for row in rows {
        row.values.iter().for_each(|(_, value)| {
            let _ = write!(out, "{value},");
        });
        let _ = write!(out, "{}", row.runs);
        for (_, figure) in row.figures() {
            let _ = match figure {
                Some((mean, std)) => write!(out, ",{mean:.4},{std:.4}"),
                None => write!(out, ",,"),
            };
        }
        out.push('\n');
    }
    out
}

fn markdown(rows: &[Row]) -> String {
    let mut out = String::from("| point | runs | accuracy | Task-IL | forgetting | seconds |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for row in rows {
        let _ = write!(out, "| {} | {} |", row.name, row.runs);
        for (_, figure) in row.figures() {
            let _ = match figure {
                Some((mean, std)) => write!(out, " {mean:.2} ± {std:.2} |"),
                None => write!(out, " - |"),
            };
        }
        out.push('\n');
    }
    out
}

/// A line for each point: a dot at the mean accuracy, a bar of one standard deviation to each side.
fn plot(rows: &[Row]) -> String {
    const LINE: f64 = 22.0;
    const LEFT: f64 = 320.0;
    const WIDTH: f64 = 400.0;
    let ends = |sign: f64| {
        rows.iter()
            .filter_map(move |r| r.accuracy.map(|(m, s)| m + sign * s))
    };
    let low = ends(-1.0).fold(100.0, f64::min).clamp(0.0, 100.0).floor();
    let high = ends(1.0).fold(low + 1.0, f64::max).ceil();
    let x = |value: f64| LEFT + WIDTH * (value - low) / (high - low);
    let height = LINE * (rows.len() + 2) as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 40.0
    );
    for tick in 0..=4 {
        let value = low + (high - low) * f64::from(tick) / 4.0;
        let (at, bottom) = (x(value), height - LINE);
        let _ = writeln!(
            out,
            "<line x1=\"{at:.1}\" y1=\"0\" x2=\"{at:.1}\" y2=\"{bottom:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.1} %</text>",
            height - 6.0
        );
    }
    for (i, row) in rows.iter().enumerate() {
        let y = LINE * (i as f64 + 0.8);
        // Names hold letters, digits and a few signs only: nothing to escape.
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 10.0,
            y + 4.0,
            row.name
        );
        if let Some((mean, std)) = row.accuracy {
            let _ = writeln!(
                out,
                "<line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#0072b2\" \
                 stroke-width=\"2\"/><circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#0072b2\"/>",
                x(mean - std),
                x(mean + std),
                x(mean)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Grid> {
        Grid::parse("grid.toml".as_ref(), text)
    }

    #[test]
    fn points_are_all_combinations() {
        let grid = parse("[grid]\nlr = [0.1, 0.2]\nstrategy = [\"der\", \"replay\"]").unwrap();
        let names: Vec<_> = grid.points().unwrap().into_iter().map(|p| p.0).collect();
        let wanted = [
            "lr=0.1,strategy=der",
            "lr=0.1,strategy=replay",
            "lr=0.2,strategy=der",
            "lr=0.2,strategy=replay",
        ];
        assert_eq!(
            (names, grid.seeds),
            (wanted.map(String::from).to_vec(), vec![0])
        );
    }

    #[test]
    fn mistakes_in_a_grid_file_are_named() {
        for (text, part) in [
            ("[base]\nlr = 0.1", "grid"),
            ("[grid]\nlr = 0.1", "[grid] lr"),
            ("[grid]\nlr = []", "[grid] lr"),
            ("seed = [1]\n[grid]\nlr = [1.0]", "seed"),
        ] {
            let error = parse(text).and_then(|grid| grid.points()).unwrap_err();
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let options = GridOptions {
            out: folder.path().to_path_buf(),
            jobs: 1,
            shard: Default::default(),
            quiet: true,
        };
        let grid = parse("[grid]\nlearning-rate = [0.1]").unwrap();
        let error = sweep(&grid, &options, &Arc::default()).unwrap_err();
        assert!(error.to_string().contains("learning-rate"), "{error}");
    }

    #[test]
    fn a_sweep_leaves_a_table_and_a_plot_of_all_shards() {
        let folder = tempfile::tempdir().unwrap();
        let grid = parse(
            "seeds = [0, 1]\n[base]\nn-experiences = 2\ntrain-mb-size = 500\n[grid]\nlr = [0.01, 0.1]",
        )
        .unwrap();
        for part in ["1/2", "2/2"] {
            let options = GridOptions {
                out: folder.path().to_path_buf(),
                jobs: 1,
                shard: part.parse().unwrap(),
                quiet: true,
            };
            sweep(&grid, &options, &Arc::default()).unwrap();
        }
        let csv = fs::read_to_string(folder.path().join("table.csv")).unwrap();
        let lines: Vec<_> = csv.lines().collect();
        assert!(
            lines[0].starts_with("lr,runs,accuracy,accuracy-std,"),
            "{csv}"
        );
        assert!(
            lines[1].starts_with("0.01,2,") && lines[2].starts_with("0.1,2,"),
            "{csv}"
        );
        let plot = fs::read_to_string(folder.path().join("plot.svg")).unwrap();
        assert_eq!(plot.matches("<circle").count(), 2, "{plot}");
        assert!(!plot.contains("NaN"));
    }
}
