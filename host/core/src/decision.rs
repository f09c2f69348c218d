//! What a policy wants, and how its run went.

use serde::{Deserialize, Serialize};

/// What a policy wants of its scale set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Instances in service.
    pub capacity: u32,
    /// Instances in standby; none leaves the set's own setting.
    pub standby: Option<u32>,
    /// Ids of the instances to remove first on a scale-in, best first.
    pub victims: Vec<u32>,
    /// Wish for an earlier next tick.
    pub wake_after_ms: Option<u64>,
    /// Why, most important first.
    pub reasons: Vec<Reason>,
}

/// One reason of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable machine code, for example `above-target`.
    pub code: String,
    /// A sentence for people.
    pub text: String,
    /// What it rests on: name and value.
    pub evidence: Vec<(String, String)>,
}

/// Why a policy gave no decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The module trapped (panic, unreachable, out-of-bounds access…).
    Trap,
    /// It used up its fuel.
    OutOfFuel,
    /// It ran past its wall-clock deadline.
    Deadline,
    /// It asked for more memory or table than it may have.
    Memory,
    /// Its stack overflowed.
    StackOverflow,
    /// Its outcome breaks the contract (too large, ids that do not exist…).
    Output,
    /// It returned an error of its own.
    Refused,
    /// The host could not run it.
    Host,
}

impl FailureKind {
    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::OutOfFuel => "out-of-fuel",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::StackOverflow => "stack-overflow",
            Self::Output => "output",
            Self::Refused => "refused",
            Self::Host => "host",
        }
    }
}

/// A policy that gave no decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFailure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// What happened, for people.
    pub message: String,
}

/// One run of one policy in one tick, with all that a replay needs beside the
/// observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRun {
    /// Its place in the set; empty for a run outside of a set.
    #[serde(default)]
    pub slot: String,
    /// Name of the policy, as its manifest gives it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the module, lower-case hex.
    pub digest: String,
    /// Parameters, as JSON text.
    pub params: String,
    /// State that it was given, base64.
    pub state_in: String,
    /// Decision or failure.
    pub result: Result<Decision, PolicyFailure>,
    /// Fuel used: the same in every run of the same module on the same input.
    pub fuel: u64,
    /// Wall-clock time of the whole call.
    pub duration_us: u64,
    /// What it logged, oldest first, capped.
    pub log: Vec<LogLine>,
}

/// One line that a policy logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: LogLevel,
    /// The text.
    pub message: String,
}

/// Level of a [`LogLine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Finest.
    Trace,
    /// For the author.
    Debug,
    /// For the operator.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}
