//! `unforget` and its commands.

mod bench;
mod data;
mod grid;
mod messages;
mod options;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Parser, Subcommand};
use unforget::experiment::{self, Config, RunFolder};
use unforget::{Error, Result};

use options::{EvalOptions, TrainOptions};

const ABOUT: &str =
    "Continual learning in pure Rust: Dark Experience Replay (DER, DER++) and its siblings";

const LONG_ABOUT: &str = "\
Continual learning in pure Rust: Dark Experience Replay (DER, DER++) and its siblings.

A network learns a stream of experiences one after the other and is tested on all of them after \
each. Without a command, `unforget` does what `unforget train` does: with no options, DER++ on \
Split-MNIST with the tenth of MNIST that is inside the program.";

const EXAMPLES: &str = "\
Examples:
  unforget                                       DER++ on the embedded Split-MNIST
  unforget train --strategy naive --seed 1       plain fine-tuning, the lower bound
  unforget data get mnist                        download the full MNIST
  unforget train --data full --out runs/full     DER++ on all of it
  unforget train --config runs/full/config.toml  the same run again
  unforget train --resume runs/full              go on with a run that was cut
  unforget eval --model runs/full                test its final weights";

#[derive(Parser)]
#[command(
    name = "unforget", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES,
    args_conflicts_with_subcommands = true, allow_negative_numbers = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: TrainOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Train on a stream of experiences and leave a run folder [the default command]
    #[command(allow_negative_numbers = true)]
    Train(Box<TrainOptions>),
    /// Test a saved model
    #[command(allow_negative_numbers = true)]
    Eval(Box<EvalOptions>),
    /// Reproduce the tables of the DER paper
    Reproduce(grid::ReproduceArgs),
    /// Run a grid of configurations
    Sweep(grid::SweepArgs),
    /// Measure the engine's speed on this machine
    Bench(bench::BenchOptions),
    /// List, find or download data sets
    Data {
        #[command(subcommand)]
        command: data::Command,
    },
}

/// Carries out the command line and says how it went.
pub fn main() -> ExitCode {
    messages::show_warnings();
    let cli = Cli::try_parse().unwrap_or_else(|error| messages::end_usage(&error));
    let done = match cli.command {
        None => train(&cli.train),
        Some(Command::Train(options)) => train(&options),
        Some(Command::Eval(options)) => eval(&options),
        Some(Command::Reproduce(args)) => grid::reproduce(&args),
        Some(Command::Sweep(args)) => grid::sweep(&args),
        Some(Command::Bench(options)) => bench::run(&options),
        Some(Command::Data { command }) => data::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever an underlying message looks like.
            let text = error
                .to_string()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            eprintln!("error: {text}");
            ExitCode::from(if matches!(error, Error::Interrupted(_)) {
                130
            } else {
                1
            })
        }
    }
}

fn train(options: &TrainOptions) -> Result<()> {
    if let Some(folder) = &options.resume {
        return resume(options, &RunFolder::open(folder));
    }
    let mut layers = file(options.config.as_deref())?;
    layers.push(options.to_table());
    let config = Config::from_layers(layers)?;
    if config.quiet {
        messages::hide_warnings();
    }
    experiment::train(&config, &interrupt()?)?;
    Ok(())
}

/// Goes on with the run in `folder`, whose configuration decides everything that has an influence
/// on the result.
fn resume(options: &TrainOptions, folder: &RunFolder) -> Result<()> {
    let given = options.to_table();
    let free = ["threads", "num-workers", "prefetch-factor", "quiet"];
    if let Some(option) = (given.keys()).find(|name| !free.contains(&name.as_str())) {
        return Err(Error::config(
            format!("--{option}"),
            "only --threads, --num-workers, --prefetch-factor and --quiet together with --resume",
            "another option (it would change the run)",
        ));
    }
    let config = Config::from_layers([Config::read_table(&folder.config())?, given])?;
    experiment::resume(&config, folder, &interrupt()?)?;
    Ok(())
}

fn eval(options: &EvalOptions) -> Result<()> {
    let mut layers = Vec::new();
    let mut model: PathBuf = options.model.clone();
    if model.is_dir() {
        let folder = RunFolder::open(&model);
        layers.push(Config::read_table(&folder.config())?);
        model = folder.model();
    }
    layers.extend(file(options.config.as_deref())?);
    layers.push(options.to_table());
    let config = Config::from_layers(layers)?;
    experiment::evaluate(&config, &model, options.save_logits.as_deref())?;
    Ok(())
}

/// Prints a line; a closed pipe is no error.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn file(path: Option<&Path>) -> Result<Vec<toml::Table>> {
    path.map(Config::read_table).into_iter().collect()
}

/// A flag that Ctrl-C raises; the second Ctrl-C ends the program at once.
fn interrupt() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if std::io::stderr().is_terminal() {
            // Over the progress bar and the echo of the key.
            eprint!("\r\x1b[2K");
        }
        eprintln!("stopping after this step; Ctrl-C again to stop at once");
    })
    .map_err(|e| Error::Device(format!("cannot listen for Ctrl-C: {e}")))?;
    Ok(flag)
}
