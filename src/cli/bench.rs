//! `unforget bench`: how fast the engine is on this machine.

use clap::Args;
use unforget::experiment::bench::{self, Measurement};
use unforget::{Error, Result};

use super::say;

/// The options of `unforget bench`.
#[derive(Args)]
pub struct BenchOptions {
    /// What to measure: products in GFLOP/s, training steps of DER++ in steps/s [default: all]
    #[arg(value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(bench::NAMES))]
    names: Vec<String>,
    /// Threads to measure with
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Measures what is asked for, line by line. A precision that this CPU lacks is measured as it is computed
/// here, in f32; a warning says so.
pub fn run(options: &BenchOptions) -> Result<()> {
    let all = || bench::NAMES.map(String::from).to_vec();
    let names = if options.names.is_empty() {
        all()
    } else {
        options.names.clone()
    };
    for name in &names {
        let measured = bench::run(name, options.threads)?;
        if options.json {
            let line = serde_json::to_string(&measured);
            say(line.map_err(|e| Error::Device(format!("cannot write JSON: {e}")))?);
        } else {
            say(line(&measured));
        }
    }
    Ok(())
}

fn line(m: &Measurement) -> String {
    let threads = if m.threads == 1 { "thread" } else { "threads" };
    let step = m
        .seconds_per_step
        .map_or(String::new(), |s| format!(", {:.3} ms a step", 1e3 * s));
    format!(
        "{:21} {:9.1} {:7} on {} {threads}: {:.0} % of {:.1}{step}",
        m.name, m.value, m.unit, m.threads, m.percent, m.ceiling
    )
}
