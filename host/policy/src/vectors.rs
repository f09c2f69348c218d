//! Decision vectors: observations with the decisions that every implementation of a policy must make of them, as one
//! JSON file.
//!
//! ```json
//! {"vectors": [
//!   {"name": "twice the target", "params": {"metric": "load", "target": 0.5},
//!    "observation": {"set": "web", "tick": 1, …}, "expect": {"capacity": 4, "reasons": ["above-target"]}},
//!   {"name": "a quiet hour", "params": {…},
//!    "ticks": [{"observation": {…}, "expect": {"capacity": 4}}, {"observation": {…}, "expect": {"capacity": 3}}]},
//!   {"name": "no target", "params": {"metric": "load"}, "expect": {"invalid": [""]}}
//! ]}
//! ```
//!
//! * `state` (base64) is what the first tick begins with; from there the policy's own state goes from tick to tick.
//! * `expect` compares what it names and nothing else: `capacity`, `standby`, `victims`, `wake_after_ms`, `reasons`
//!   (their codes, in order), `state` (base64); or `refused`, a text that the policy's own error contains; or, without
//!   an observation, `invalid`: the paths of all problems that the parameters have, in any order.
//! * Unknown fields are errors.

use std::fmt;
use std::sync::Arc;

use regatta_core::decision::{FailureKind, PolicyFailure, PolicyRun};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;

use crate::compiled::CompiledPolicy;
use crate::error::ParamsError;

mod read;

pub use read::{VectorsError, parse};

/// One vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// What it is about; one of a kind within a file.
    pub name: String,
    /// The parameters, as JSON text.
    pub params: String,
    /// What must come of them.
    pub check: Check,
}

/// What a vector asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// The parameters have problems at exactly these places (JSON pointers, sorted, each once).
    Invalid(Vec<String>),
    /// The parameters are valid, and these ticks, one after the other, are decided so.
    Ticks {
        /// What the first tick begins with.
        state: Vec<u8>,
        /// At least one.
        ticks: Vec<Tick>,
    },
}

/// One tick of a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Tick {
    /// What the policy sees.
    pub observation: Arc<Observation>,
    /// What must come of it.
    pub expect: Expect,
}

/// How a tick must be decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// With a decision that has all this; what is none is not compared.
    Decision {
        /// Instances in service.
        capacity: Option<u32>,
        /// Instances in standby; the inner none is "no wish".
        standby: Option<Option<u32>>,
        /// Ids, best first.
        victims: Option<Vec<u32>>,
        /// Milliseconds; the inner none is "no wish".
        wake_after_ms: Option<Option<u64>>,
        /// Codes of the reasons, most important first.
        reasons: Option<Vec<String>>,
        /// The new state.
        state: Option<Vec<u8>>,
    },
    /// With an error of the policy's own that contains this text.
    Refused(String),
}

/// A difference between what a vector expects and what a policy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Name of the vector.
    pub vector: String,
    /// Which of its ticks, from 1; none when it is about the parameters.
    pub tick: Option<usize>,
    /// What differs: `capacity`, `reasons`, `params` …
    pub what: &'static str,
    /// What the vector says.
    pub expected: String,
    /// What the policy did.
    pub found: String,
    /// How it failed, when it gave no decision or could not look at its parameters.
    pub failure: Option<FailureKind>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.vector)?;
        if let Some(tick) = self.tick {
            write!(f, ", tick {tick}")?;
        }
        write!(f, ": {} is {}, expected {}", self.what, self.found, self.expected)
    }
}

/// Runs one vector; empty when the policy does all that it asks for. After a tick without a decision the ticks behind
/// it are not run.
#[must_use]
pub fn check(policy: &CompiledPolicy, vector: &Vector, limits: &PolicyLimits) -> Vec<Mismatch> {
    let mut found = Found { vector, tick: None, failure: None, mismatches: Vec::new() };
    let problems = match policy.validate(&vector.params, limits) {
        Ok(()) => Vec::new(),
        Err(ParamsError::Problems(problems)) => problems,
        Err(ParamsError::Failed(failed)) => {
            found.failure = Some(failed.failure.kind);
            found.differs("params", "an answer", failed.to_string());
            return found.mismatches;
        }
    };
    match &vector.check {
        Check::Invalid(expected) => {
            let mut paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
            paths.sort_unstable();
            paths.dedup();
            if paths != *expected {
                found.differs("params", format!("invalid at {expected:?}"), format!("invalid at {paths:?}"));
            }
        }
        Check::Ticks { .. } if !problems.is_empty() => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            found.differs("params", "valid", format!("invalid: {}", problems.join("; ")));
        }
        Check::Ticks { state, ticks } => {
            let mut state = state.clone();
            for (number, tick) in (1..).zip(ticks) {
                found.tick = Some(number);
                let call = policy.decide(&tick.observation, &vector.params, &state, limits);
                found.failure = call.run.result.as_ref().err().map(|failure| failure.kind);
                found.compare(&tick.expect, &call.run, call.state.as_deref());
                match call.state {
                    Some(new) => state = new,
                    None if matches!(tick.expect, Expect::Refused(_)) => {}
                    None => break,
                }
            }
        }
    }
    found.mismatches
}

struct Found<'a> {
    vector: &'a Vector,
    tick: Option<usize>,
    failure: Option<FailureKind>,
    mismatches: Vec<Mismatch>,
}

impl Found<'_> {
    fn differs(&mut self, what: &'static str, expected: impl Into<String>, found: impl Into<String>) {
        self.mismatches.push(Mismatch {
            vector: self.vector.name.clone(),
            tick: self.tick,
            what,
            expected: expected.into(),
            found: found.into(),
            failure: self.failure,
        });
    }

    fn same<T: PartialEq + fmt::Debug>(&mut self, what: &'static str, expected: Option<&T>, found: &T) {
        if let Some(expected) = expected.filter(|&expected| expected != found) {
            self.differs(what, format!("{expected:?}"), format!("{found:?}"));
        }
    }

    fn compare(&mut self, expect: &Expect, run: &PolicyRun, new_state: Option<&[u8]>) {
        let shown = |failure: &PolicyFailure| {
            let log: String = run.log_tail().iter().map(|line| format!("\n{line}")).collect();
            format!("{}: {}{log}", failure.kind.as_str(), failure.message)
        };
        match (expect, &run.result) {
            (
                Expect::Decision { capacity, standby, victims, wake_after_ms, reasons, state },
                Ok(decision),
            ) => {
                let codes = decision.reasons.iter().map(|reason| reason.code.to_string()).collect();
                self.same("capacity", capacity.as_ref(), &decision.capacity);
                self.same("standby", standby.as_ref(), &decision.standby);
                self.same("victims", victims.as_ref(), &decision.victims);
                self.same("wake_after_ms", wake_after_ms.as_ref(), &decision.wake_after_ms);
                self.same("reasons", reasons.as_ref(), &codes);
                self.same("state", state.as_ref(), &new_state.unwrap_or_default().to_vec());
            }
            (Expect::Decision { .. }, Err(failure)) => self.differs("outcome", "a decision", shown(failure)),
            (Expect::Refused(text), Err(failure))
                if failure.kind == FailureKind::Refused && failure.message.contains(text) => {}
            (Expect::Refused(text), Err(failure)) => {
                self.differs("outcome", format!("refused: {text}"), shown(failure));
            }
            (Expect::Refused(text), Ok(decision)) => {
                let found = format!("a decision for {}", decision.capacity);
                self.differs("outcome", format!("refused: {text}"), found);
            }
        }
    }
}
