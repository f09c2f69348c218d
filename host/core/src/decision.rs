//! What a policy wants, and how its run went.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use regatta_util::Said;

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
    pub code: Said,
    /// A sentence for people.
    pub text: Said,
    /// What it rests on: name and value.
    pub evidence: Vec<(Said, Said)>,
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
    pub message: Said,
}

impl PolicyFailure {
    /// What the policy did, for people.
    #[must_use]
    pub fn told(&self) -> String {
        format!("returned no decision ({}): {}", self.kind.as_str(), self.message)
    }
}

/// One run of one policy in one tick, with all that a replay needs beside the
/// observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRun {
    /// Its place in the set; empty for a run outside of a set.
    #[serde(default)]
    pub slot: String,
    /// Name of the policy, as its manifest gives it.
    pub name: Said,
    /// Its version.
    pub version: Said,
    /// SHA-256 of the module, lower-case hex.
    pub digest: Digest,
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

/// Lines of a failed run's log that people are shown, the last ones, and characters of each.
const LOG_SHOWN: usize = 16;
const LOG_SHOWN_CHARS: usize = 240;

impl PolicyRun {
    /// The end of its log when it failed; empty when it did not.
    #[must_use]
    pub fn log_tail(&self) -> Vec<String> {
        self.result.as_ref().err().map(|failure| log_tail(&self.log, failure)).unwrap_or_default()
    }
}

/// The end of the log of a call that failed, for people to read: at most 16 lines, cut to a readable length. Empty when all that it says is the failure's message already.
#[must_use]
pub fn log_tail(log: &[LogLine], failure: &PolicyFailure) -> Vec<String> {
    if log.iter().all(|line| line.message == failure.message) {
        return Vec::new();
    }
    let left_out = log.len().saturating_sub(LOG_SHOWN);
    let mut lines = Vec::new();
    if left_out > 0 {
        lines.push(format!("({left_out} earlier lines are in the output of -o json)"));
    }
    lines.extend(log[left_out..].iter().map(|line| {
        let mut chars = line.message.trim_end().chars();
        let shown: String = chars.by_ref().take(LOG_SHOWN_CHARS).collect();
        let cut = if chars.next().is_some() { "…" } else { "" };
        format!("{}: {shown}{cut}", line.level.as_str())
    }));
    lines
}

/// One line that a policy logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: LogLevel,
    /// The text.
    pub message: Said,
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

impl LogLevel {
    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(log: &[&str]) -> PolicyRun {
        PolicyRun {
            slot: String::new(),
            name: "p".into(),
            version: "1".into(),
            digest: Digest::default(),
            params: "{}".into(),
            state_in: String::new(),
            result: Err(PolicyFailure { kind: FailureKind::Trap, message: "boom".into() }),
            fuel: 0,
            duration_us: 0,
            log: log.iter().map(|&line| LogLine { level: LogLevel::Error, message: line.into() }).collect(),
        }
    }

    #[test]
    fn the_end_of_a_log_is_bounded_escaped_and_not_told_twice() {
        assert_eq!(run(&[]).log_tail(), Vec::<String>::new());
        assert_eq!(run(&["boom"]).log_tail(), Vec::<String>::new(), "the failure says it");
        assert_eq!(run(&["in f()", "boom"]).log_tail(), ["error: in f()", "error: boom"]);
        assert_eq!(run(&["\x1b[2J\ny"]).log_tail(), [r"error: \u{1b}[2J\ny"]);
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let tail = run(&many).log_tail();
        assert_eq!((tail.len(), tail[0].as_str()), (17, "(84 earlier lines are in the output of -o json)"));
        assert_eq!(tail[16], "error: 99");
        assert!(run(&[&"x".repeat(10_000)]).log_tail()[0].len() < 300);
    }
}
