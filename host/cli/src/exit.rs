//! How a command ends when it does not end well.

use regatta_util::chain;
use std::io;

use regatta_api::ClientError;
use regatta_api::paths::NoDataDir;
use regatta_api::types::{ApiError, ErrorCode, Problem};
use serde_json::json;

use super::Io;
use super::args::Output;
use super::render::{RED, plain};

/// Exit codes, as `--help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Ok.
    Ok = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// The input has problems.
    Invalid = 3,
    /// Not found.
    NotFound = 4,
    /// The daemon cannot be reached.
    Unreachable = 5,
    /// Not possible in the present state.
    Conflict = 6,
    /// Timed out waiting.
    TimedOut = 7,
    /// Differences found.
    Differs = 8,
}

/// Why a command stops early.
#[derive(Debug)]
pub(super) enum Stop {
    /// Nobody reads any more, or everything was said: no more words.
    Quiet(Exit),
    /// It failed.
    Failure(Failure),
}

/// A failure, ready to print.
#[derive(Debug)]
pub(super) struct Failure {
    /// How the process ends.
    pub(super) exit: Exit,
    /// Stable, for programs.
    pub(super) code: &'static str,
    /// The whole chain in one line.
    pub(super) message: String,
    /// Problems of the input.
    pub(super) problems: Vec<Problem>,
}

pub(super) type Outcome<T = ()> = Result<T, Stop>;

impl From<NoDataDir> for Stop {
    fn from(error: NoDataDir) -> Self {
        usage(error.to_string())
    }
}

impl Failure {
    pub(super) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), problems: Vec::new() }
    }

    /// Prints it on standard error, in the form that was asked for.
    pub(super) fn print(&self, output: Output, io: &mut Io<'_>) -> io::Result<()> {
        match output {
            Output::Json => {
                let mut error = json!({ "code": self.code, "message": self.message });
                if !self.problems.is_empty() {
                    error["problems"] = json!(self.problems);
                }
                writeln!(io.err, "{error}")
            }
            Output::Table => {
                for problem in &self.problems {
                    writeln!(io.err, "{}\n", plain(problem.rendered.trim_end()))?;
                }
                let label = io.paint_err(RED, "error:");
                writeln!(io.err, "{label} {}", plain(&self.message))
            }
        }
    }
}

/// Stops for wrong usage that clap cannot see.
pub(super) fn usage(message: impl Into<String>) -> Stop {
    Stop::Failure(Failure::new(Exit::Usage, "usage", message))
}

/// Stops for input that has a problem this side can see.
pub(super) fn invalid(message: impl Into<String>) -> Stop {
    Stop::Failure(Failure::new(Exit::Invalid, "invalid", message))
}

/// Stops for a failure of this side.
pub(super) fn failed(what: impl std::fmt::Display, source: impl std::fmt::Display) -> Stop {
    Stop::Failure(Failure::new(Exit::Failed, "failed", format!("{what}: {source}")))
}

/// Stops for a request that was accepted and did not last.
pub(super) fn conflict(message: impl Into<String>) -> Stop {
    Stop::Failure(Failure::new(Exit::Conflict, "conflict", message))
}

/// Stops for a wait that took too long.
pub(super) fn timed_out(message: impl Into<String>) -> Stop {
    Stop::Failure(Failure::new(Exit::TimedOut, "timed-out", message))
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match error.code {
            ErrorCode::NotFound => Exit::NotFound,
            ErrorCode::Invalid => Exit::Invalid,
            ErrorCode::Conflict => Exit::Conflict,
            ErrorCode::Forbidden | ErrorCode::BadRequest | ErrorCode::Unavailable | ErrorCode::Internal => {
                Exit::Failed
            }
        };
        Self { exit, code: error.code.as_str(), message: error.message, problems: error.problems }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let (exit, code) = match &error {
            ClientError::Api(_) => (Exit::Failed, ""),
            ClientError::Unreachable { .. } => (Exit::Unreachable, "unreachable"),
            ClientError::Denied { .. } => (Exit::Unreachable, "denied"),
            ClientError::NotRegatta { .. } => (Exit::Unreachable, "not-regatta"),
            ClientError::VersionMismatch { .. } => (Exit::Failed, "version-mismatch"),
            ClientError::TimedOut { .. } => (Exit::TimedOut, "timed-out"),
            ClientError::Broken { .. } => (Exit::Failed, "broken"),
            ClientError::Setup(_) => (Exit::Failed, "failed"),
        };
        match error {
            ClientError::Api(error) => error.into(),
            error => Self::new(exit, code, chain(&error)),
        }
    }
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<io::Error> for Stop {
    /// An error of writing what was asked for.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Quiet(Exit::Ok),
            _ => failed("cannot write the output", error),
        }
    }
}
