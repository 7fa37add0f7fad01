//! What the program says on standard error besides its results: warnings of the library, and what is
//! wrong with a command line.

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Prints warnings, one line each.
struct Warnings;

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target().starts_with("unforget")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("warning: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Lets the library's warnings through to standard error.
pub fn show_warnings() {
    // Only a second call could fail, and the first one is as good.
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// No more warnings: the run is to be quiet.
pub fn hide_warnings() {
    log::set_max_level(LevelFilter::Off);
}

/// Ends the program: with the help that was asked for, or with one line that says what is wrong and
/// exit code 2.
pub fn end_usage(error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    let text = error.to_string();
    let what: Vec<&str> = (text.lines().map(str::trim))
        .take_while(|line| !line.is_empty())
        .collect();
    eprintln!(
        "{}; `unforget --help` and `unforget train --help` list what there is",
        what.join(" ")
    );
    std::process::exit(2)
}
