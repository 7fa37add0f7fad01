//! `unforget reproduce` and `unforget sweep`.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use unforget::experiment::reproduce::{self, CELLS, ReproduceOptions};
use unforget::experiment::sweep::{self, Grid};
use unforget::experiment::{DataSource, GridOptions, Shard};
use unforget::{Error, Result};

use super::interrupt;

const SWEEP_EXAMPLE: &str = "\
A grid file:
  seeds = [0, 1, 2]
  [base]                     # options of `unforget train`, without the dashes in front
  benchmark = \"r-mnist\"
  mode = \"paper\"
  data = \"full\"
  [grid]                     # every combination is run with every seed
  alpha = [0.2, 0.5, 1.0]
  lr = [0.03, 0.1, 0.2]

As an array of Slurm jobs on a folder that all of them see:
  #SBATCH --array=1-8
  unforget sweep grid.toml --out results --jobs 1 --shard $SLURM_ARRAY_TASK_ID/8
Afterwards `unforget sweep grid.toml --out results` does what is missing and writes the table.";

const REPRODUCE_EXAMPLE: &str = "\
Examples:
  unforget reproduce --list                       every cell and its hyper-parameters
  unforget reproduce r-mnist/derpp/500 --seeds 2
  unforget reproduce r-mnist p-mnist --seeds 10   two tables
  unforget reproduce --seeds 10 --markdown REPRODUCIBILITY.md
Killed or interrupted, the same command goes on with the runs that have no record yet.";

#[derive(Args)]
#[command(next_help_heading = "Runs")]
struct RunsOptions {
    /// Runs side by side, each on one thread [default: one for each core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    jobs: usize,
    /// Do only this part of the runs: i of n, from 1
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Print nothing but errors
    #[arg(long)]
    quiet: bool,
}

impl RunsOptions {
    fn grid(&self, out: &std::path::Path) -> Result<GridOptions> {
        let shard = match &self.shard {
            Some(text) => text.parse()?,
            None => Shard::default(),
        };
        Ok(GridOptions {
            out: out.to_path_buf(),
            jobs: self.jobs,
            shard,
            quiet: self.quiet,
        })
    }
}

/// The options of `unforget reproduce`.
#[derive(Args)]
#[command(after_help = REPRODUCE_EXAMPLE)]
pub struct ReproduceArgs {
    /// Cells such as r-mnist/derpp/500, or beginnings of names [default: all of the MNIST family]
    #[arg(value_name = "CELL")]
    cells: Vec<String>,
    /// List all cells with their hyper-parameters and published numbers
    #[arg(long)]
    list: bool,
    /// Runs of each cell, with the seeds 0, 1, ...; the paper has 10
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Where samples come from; embedded is for trying, its numbers mean nothing
    #[arg(long, default_value = "full", value_parser = PossibleValuesParser::new(DataSource::NAMES))]
    data: String,
    /// The folder with the data set's files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The folder of records and tables, taken up where it was left
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    out: PathBuf,
    /// Also write the table of all cells to this file, in Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(flatten)]
    runs: RunsOptions,
}

/// The options of `unforget sweep`.
#[derive(Args)]
#[command(after_help = SWEEP_EXAMPLE)]
pub struct SweepArgs {
    /// The grid
    #[arg(value_name = "GRID.toml")]
    grid: PathBuf,
    /// The folder of records, table and plot, taken up where it was left [default: runs/NAME of GRID]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    runs: RunsOptions,
}

pub fn reproduce(args: &ReproduceArgs) -> Result<()> {
    if args.list {
        list();
        return Ok(());
    }
    let data = if args.data == DataSource::Embedded.name() {
        DataSource::Embedded
    } else {
        DataSource::Full
    };
    let options = ReproduceOptions {
        cells: args.cells.clone(),
        seeds: args.seeds,
        data,
        data_dir: args.data_dir.clone(),
        markdown: args.markdown.clone(),
        grid: args.runs.grid(&args.out)?,
    };
    reproduce::reproduce(&options, &interrupt()?)
}

pub fn sweep(args: &SweepArgs) -> Result<()> {
    let grid = Grid::read(&args.grid)?;
    let out = match (&args.out, args.grid.file_stem()) {
        (Some(out), _) => out.clone(),
        (None, Some(name)) => PathBuf::from("runs").join(name),
        (None, None) => {
            let found = args.grid.display();
            return Err(Error::config("GRID.toml", "the name of a file", found));
        }
    };
    sweep::sweep(&grid, &args.runs.grid(&out)?, &interrupt()?)
}

fn list() {
    for cell in CELLS {
        let weights = match (cell.alpha, cell.beta) {
            (0.0, 0.0) => String::new(),
            (alpha, 0.0) => format!(", alpha {alpha}"),
            (alpha, beta) => format!(", alpha {alpha}, beta {beta}"),
        };
        let replay = match cell.replay {
            0 => String::new(),
            n => format!(" + {n}"),
        };
        let task = cell.task.map_or(String::new(), |task| {
            format!("; Task-IL {:.2} ± {:.2}", task.mean, task.std)
        });
        super::say(format_args!(
            "{:<26} lr {}, batch {}{replay}, epochs {}{weights}: {:.2} ± {:.2}{task}",
            cell.name(),
            cell.lr,
            cell.batch,
            cell.epochs,
            cell.class.mean,
            cell.class.std
        ));
    }
}
