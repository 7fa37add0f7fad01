//! The command line: arguments to a configuration, a run, and an exit code.
//!
//! 0: done; 1: the run could not be carried out, one line on standard error says why and what to
//! do; 2: the command line itself is wrong; 130: ended by Ctrl-C.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
