//! One call of a policy, wherever it runs: what it is asked, and what comes of that.

use std::sync::Arc;
use std::time::Instant;

use regatta_core::decision::{LogLine, PolicyFailure, log_tail};
use regatta_core::manifest::PolicyLimits;
use regatta_core::metrics::MetricWish;
use regatta_core::observation::Observation;
use serde::{Deserialize, Serialize};

use crate::bindings::regatta::policy::types;
use crate::call::CallTimes;
use crate::door::{Door, Session};
use crate::engine::Engine;
use crate::error::FailedCall;
use crate::gate::Lane;
use crate::observe;

/// What a policy is asked.
#[derive(Debug, Clone)]
pub(crate) enum Ask<'a> {
    Describe,
    Validate { params: &'a str },
    Migrate { from_version: u32, state: &'a [u8] },
    Decide { observation: Arc<Observation>, wishes: Vec<MetricWish>, params: &'a str, state: &'a [u8] },
}

/// What it says to that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Manifest(types::Manifest),
    Checked(Result<(), Vec<types::Problem>>),
    Migrated(Result<Vec<u8>, String>),
    Outcome(types::Outcome),
}

/// What one call left behind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) answer: Result<Answer, PolicyFailure>,
    pub(crate) fuel: u64,
    pub(crate) log: Vec<LogLine>,
    /// Linear memory that it had in the end, bytes; of one that failed to start, none.
    pub(crate) memory_bytes: u64,
    pub(crate) times: CallTimes,
}

impl Ran {
    /// Of a call that could not be made.
    pub(crate) fn failed(failure: PolicyFailure) -> Self {
        Self { answer: Err(failure), fuel: 0, log: Vec::new(), memory_bytes: 0, times: CallTimes::default() }
    }

    /// The answer, or the failure with the end of the log.
    pub(crate) fn told(self) -> Result<Answer, FailedCall> {
        let log = self.log;
        self.answer.map_err(|failure| FailedCall { log: log_tail(&log, &failure), failure })
    }
}

/// An instance that has answered. Tearing it down takes time that nobody needs to wait for.
pub(crate) struct Spent<'a> {
    _session: Option<Session<'a>>,
}

/// Asks a fresh instance.
pub(crate) fn run<'a>(
    engine: &'a Engine,
    door: &Door,
    lane: Lane,
    ask: Ask<'_>,
    limits: &PolicyLimits,
) -> (Ran, Spent<'a>) {
    let off_tick = || Session::start(engine, door, lane, None, Vec::new(), limits);
    match ask {
        Ask::Describe => ran(off_tick, |session| session.describe().map(Answer::Manifest)),
        Ask::Validate { params } => ran(off_tick, |session| session.validate(params).map(Answer::Checked)),
        Ask::Migrate { from_version, state } => {
            ran(off_tick, |session| session.migrate(from_version, state).map(Answer::Migrated))
        }
        Ask::Decide { observation, wishes, params, state } => {
            let start = Instant::now();
            let tick = observe::tick(&observation, &wishes);
            let observe = start.elapsed();
            let start = || Session::start(engine, door, lane, Some(observation), wishes, limits);
            let (mut ran, spent) =
                ran(start, |session| session.decide(&tick, params, state).map(Answer::Outcome));
            ran.times.observe = observe;
            (ran, spent)
        }
    }
}

fn ran<'a>(
    start: impl FnOnce() -> Result<Session<'a>, PolicyFailure>,
    call: impl FnOnce(&mut Session<'a>) -> Result<Answer, PolicyFailure>,
) -> (Ran, Spent<'a>) {
    let started = Instant::now();
    let session = start();
    let instantiate = started.elapsed();
    let mut session = match session {
        Ok(session) => session,
        Err(failure) => return (Ran::failed(failure), Spent { _session: None }),
    };
    let called = Instant::now();
    let answer = call(&mut session);
    let times = CallTimes { instantiate, guest: called.elapsed(), ..CallTimes::default() };
    let memory_bytes = session.memory_bytes();
    let (fuel, log) = session.finish();
    (Ran { answer, fuel, log, memory_bytes, times }, Spent { _session: Some(session) })
}
