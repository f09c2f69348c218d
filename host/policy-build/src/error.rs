//! Why a policy was not built.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::language::Language;

/// A build that failed.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A program of the language is not there.
    #[error("`{program}`, which builds {}, is not installed; to get it: {hint}", language.title())]
    Missing {
        /// The language.
        language: Language,
        /// The program.
        program: String,
        /// A command, or where to get it.
        hint: String,
    },
    /// A program cannot be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program failed; what is wrong it said itself.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// Read, write or make.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The text does not assemble; the message shows the place.
    #[error("{message}")]
    Wat {
        /// With file, line and column.
        message: String,
    },
    /// The tools said that all is well, and made something else.
    #[error("{} is not a WebAssembly module", path.display())]
    NotWasm {
        /// What was made.
        path: PathBuf,
    },
}

impl BuildError {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
