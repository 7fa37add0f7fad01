//! `unforget data`: which data sets there are, where they are, and how to get them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use unforget::Result;
use unforget::data::download;
use unforget::data::locate::{self, Kind};

use super::say;

/// What to do about data sets.
#[derive(Subcommand)]
pub enum Command {
    /// List the data sets and where each was found
    List,
    /// Print the folder of a data set
    Path {
        /// The data set, as `unforget data list` names it
        #[arg(value_parser = kind)]
        name: Kind,
    },
    /// Download a data set, checking every file; an interrupted download is taken up again
    Get {
        /// The data set, as `unforget data list` names it
        #[arg(value_parser = kind)]
        name: Kind,
        /// The folder to put it into [default: this user's cache]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Fetch the files from this folder of a server instead of the published addresses
        #[arg(long, value_name = "URL")]
        base_url: Option<String>,
    },
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|k| k.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// Carries out a command.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::List => {
            say(format_args!(
                "{:<14} inside the program (a tenth of MNIST)",
                "mnist-tenth"
            ));
            for kind in Kind::ALL {
                let place = locate::locate(kind, None).map_or_else(
                    |_| format!("not here; {}", kind.remedy()),
                    |dir| dir.display().to_string(),
                );
                say(format_args!("{:<14} {place}", kind.name()));
            }
            Ok(())
        }
        Command::Path { name } => {
            say(locate::locate(name, None)?.display());
            Ok(())
        }
        Command::Get { name, to, base_url } => {
            let dest = match to {
                Some(dir) => dir,
                None => locate::cache_dir()?.join(name.name()),
            };
            get(name, &dest, base_url.as_deref())?;
            say(dest.display());
            Ok(())
        }
    }
}

fn get(kind: Kind, dest: &Path, base_url: Option<&str>) -> Result<()> {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}",
    );
    bar.set_style(style.expect("the template is a constant that parses"));
    let done = download::get(kind, dest, base_url, &mut |file, position, length| {
        if bar.message() != file {
            bar.reset();
            bar.set_message(file.to_string());
        }
        bar.set_length(length);
        bar.set_position(position);
    });
    bar.finish_and_clear();
    done
}
