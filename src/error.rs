//! Typed errors for everything that comes from outside the program.
//!
//! A caller's bug (shapes that do not fit, a [`Var`](crate::graph::Var) of another step) panics
//! where it is made, with the operation and both shapes in the message. Whatever comes from the
//! world (files, configuration, arguments, memory) is an [`enum@Error`]: it says what was wanted,
//! what was found, where, and what to do about it.

use std::path::{Path, PathBuf};

/// The result of everything that touches the world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on the world failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb phrase: "read", "create the folder".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own reason.
        #[source]
        source: std::io::Error,
    },
    /// A file was read but its content is not what its format promises.
    #[error("{}: expected {expected}, found {found}; {remedy}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the format asks for.
        expected: String,
        /// What the file holds instead.
        found: String,
        /// What the user can do.
        remedy: String,
    },
    /// A data set is not where it was looked for.
    #[error("{0}")]
    DataMissing(String),
    /// An argument or a configuration value lies outside what is possible.
    #[error("{name}: expected {expected}, found {found}")]
    Config {
        /// The option, under the name the user typed.
        name: String,
        /// The permitted values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// Values that cannot be trained on (NaN or infinity) reached the engine.
    #[error("{0}")]
    NonFinite(String),
    /// The requested device cannot be used.
    #[error("{0}")]
    Device(String),
    /// Saved weights do not fit the model they are loaded into.
    #[error("{0}")]
    StateDict(String),
    /// A checkpoint does not fit the run that is to go on from it.
    #[error("{0}")]
    Checkpoint(String),
    /// The run was interrupted by the user.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// An [`Error::Io`] for `path`; `action` is a verb phrase such as "read".
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Error::Io {
            action,
            path: path.as_ref().to_path_buf(),
            source,
        }
    }

    /// An [`Error::Format`] for `path`.
    pub fn format(
        path: impl AsRef<Path>,
        expected: impl ToString,
        found: impl ToString,
        remedy: impl ToString,
    ) -> Self {
        Error::Format {
            path: path.as_ref().to_path_buf(),
            expected: expected.to_string(),
            found: found.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// An [`Error::Config`]: option `name` should have been `expected` but is `found`.
    pub fn config(name: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Error::Config {
            name: name.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }
}
