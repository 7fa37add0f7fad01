//! `unforget reproduce`: the paper's tables, cell by cell, with an honest comparison.

mod cells;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::checkpoint::write_atomically;
use crate::logging::Console;
use crate::{Error, Result};

use super::config::{Config, DataSource};
use super::grid::{self, GridOptions, Job};
use super::record::Record;
pub use cells::{CELLS, Cell, PaperMethod, Published};
pub(super) use table::mean_std;
use table::{Measured, markdown, text};

/// What to reproduce, and how.
#[derive(Clone, Debug)]
pub struct ReproduceOptions {
    /// Names of cells, or beginnings of names up to a slash; none: all cells of the MNIST family.
    pub cells: Vec<String>,
    /// Seeds 0, 1, … of each cell.
    pub seeds: u64,
    /// Where the samples come from.
    pub data: DataSource,
    /// The folder with the data set's files; `None`: where [`crate::data`] looks by itself.
    pub data_dir: Option<PathBuf>,
    /// A file for the table of all cells in Markdown.
    pub markdown: Option<PathBuf>,
    /// How the runs are carried out.
    pub grid: GridOptions,
}

/// Carries out all runs of the cells that have no record yet and prints the table; once all are done,
/// writes it to `table.md` beside the records.
///
/// # Errors
/// [`Error::Config`] for the name of a cell that is not in the tables, and those of
/// [`train`](super::train) and of the files.
pub fn reproduce(options: &ReproduceOptions, interrupt: &Arc<AtomicBool>) -> Result<()> {
    let cells = select(&options.cells)?;
    let mut jobs = Vec::new();
    for seed in 0..options.seeds {
        for cell in &cells {
            jobs.push(job(cell, seed, options)?);
        }
    }
    let done = grid::run(&jobs, &options.grid, interrupt)?;
    let records: Vec<Record> = done.into_iter().flatten().collect();
    let measured = measure(&cells, &records);
    let console = Console {
        quiet: options.grid.quiet,
    };
    console.line(format_args!("\n{}", text(&measured)));
    if records.len() < jobs.len() {
        return Ok(()); // Another shard, or a later call, completes the table.
    }
    // The file has all cells: what was not run says so.
    let every: Vec<Cell> = CELLS.to_vec();
    let page = markdown(&measure(&every, &records), &records, options);
    write_atomically(&options.grid.out.join("table.md"), page.as_bytes())?;
    if let Some(path) = &options.markdown {
        write_atomically(path, page.as_bytes())?;
    }
    Ok(())
}

/// The cells that a user's words mean, in the order of the tables.
///
/// # Errors
/// [`Error::Config`] for a word that is no cell and no beginning of one.
pub fn select(words: &[String]) -> Result<Vec<Cell>> {
    if words.is_empty() {
        return Ok(CELLS
            .iter()
            .filter(|cell| cell.is_mnist())
            .copied()
            .collect());
    }
    let is = |cell: &Cell, word: &str| {
        let name = cell.name();
        let rest = name.strip_prefix(word.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for word in words {
        if !CELLS.iter().any(|cell| is(cell, word)) {
            let wanted = "a cell such as r-mnist/derpp/500, or the beginning of some such as r-mnist \
                          (`unforget reproduce --list` has them all)";
            return Err(Error::config("CELL", wanted, word));
        }
    }
    let chosen = |cell: &&Cell| words.iter().any(|word| is(cell, word));
    Ok(CELLS.iter().filter(chosen).copied().collect())
}

fn job(cell: &Cell, seed: u64, options: &ReproduceOptions) -> Result<Job> {
    let config = Config {
        data: Some(options.data),
        data_dir: options.data_dir.clone(),
        eval_mb_size: 1000,
        ..cell.config(seed)
    };
    Ok(Job {
        name: format!("{}/seed-{seed}", cell.name()),
        config: config.resolve()?,
    })
}

/// The numbers of the paper beside those of the records, in the order of `cells`.
fn measure(cells: &[Cell], records: &[Record]) -> Vec<Measured> {
    let mut all = Vec::new();
    for cell in cells {
        let prefix = format!("{}/seed-", cell.name());
        let runs = records.iter().filter(|r| r.name.starts_with(&prefix));
        let runs: Vec<&Record> = runs.collect();
        let row = |setting, paper, of: fn(&Record) -> Option<f64>| Measured {
            cell: *cell,
            setting,
            paper,
            ours: runs.iter().filter_map(|r| of(r)).collect(),
            diverged: runs.iter().filter(|r| r.diverged.is_some()).count(),
            seconds: runs.iter().map(|r| r.seconds).sum::<f64>() / runs.len().max(1) as f64,
        };
        let class = match (cell.task, cell.benchmark) {
            (Some(_), _) => "Class-IL",
            (None, "mnist-360") => "General CL",
            (None, _) => "Domain-IL",
        };
        all.push(row(class, cell.class, |r| r.accuracy));
        if let Some(task) = cell.task {
            all.push(row("Task-IL", task, |r| r.accuracy_task));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
        let cells = select(&words).unwrap_or_default();
        cells.iter().map(Cell::name).collect()
    }

    #[test]
    fn every_cell_has_its_own_name_and_a_possible_configuration() {
        let mut all: Vec<String> = CELLS.iter().map(Cell::name).collect();
        // Five benchmarks of 11 cells and Tiny-ImageNet: joint, SGD, three methods by three sizes.
        assert_eq!(all.len(), 6 * 11);
        for cell in CELLS {
            assert!(cell.lr > 0.0 && cell.class.mean > 0.0, "{}", cell.name());
            assert_eq!(cell.buffer > 0, cell.replay > 0, "{}", cell.name());
            let config = cell.config(3).resolve().unwrap();
            assert_eq!((config.seed, config.benchmark_seed), (3, Some(3)));
            assert_eq!(config.benchmark.name(), cell.benchmark);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 66);
    }

    #[test]
    fn words_choose_whole_parts_of_names() {
        assert_eq!(names(&["r-mnist/derpp/500"]), ["r-mnist/derpp/500"]);
        assert_eq!(names(&["r-mnist/der/"]).len(), 3, "der is not derpp");
        assert_eq!(names(&["p-mnist", "p-mnist/er"]).len(), 11, "no cell twice");
        assert_eq!(names(&["r-mnist/der/50"]), [""; 0]);
        assert!(select(&["r-mnist/dre".into()]).is_err());
        assert_eq!(names(&[]).len(), 44);
    }
}
