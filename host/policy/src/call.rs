//! One call into a fresh instance, under limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regatta_core::decision::PolicyRun;
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use serde::{Deserialize, Serialize};

use crate::ask::{Answer, Ask};
use crate::compiled::CompiledPolicy;
use crate::failure::unfitting;
use crate::outcome;

/// One decision, and what it left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The run as it is recorded.
    pub run: PolicyRun,
    /// The state for the next decision; none when there was no decision, and then
    /// the old one stays.
    pub state: Option<Vec<u8>>,
    /// Where the time went.
    pub times: CallTimes,
    /// Linear memory that it had in the end, bytes; of one that failed to start, none.
    pub memory_bytes: u64,
}

/// Where the time of a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CallTimes {
    /// Folding the observation into the tick.
    pub observe: Duration,
    /// Making the instance.
    pub instantiate: Duration,
    /// Inside Wasm, with lowering of arguments and lifting of the result.
    pub guest: Duration,
    /// All of it, with checks of the outcome and tearing down.
    pub total: Duration,
}

impl CompiledPolicy {
    /// Lets the policy decide one tick, in a fresh instance. Whatever the guest does
    /// becomes part of the run: this neither fails nor panics.
    #[must_use]
    pub fn decide(
        &self,
        observation: &Arc<Observation>,
        params: &str,
        state: &[u8],
        limits: &PolicyLimits,
    ) -> Call {
        let start = Instant::now();
        let ask =
            Ask::Decide { observation: Arc::clone(observation), wishes: self.wishes(params), params, state };
        let ran = self.run(self.lane(), ask, limits);
        let result = ran.answer.and_then(|answer| match answer {
            Answer::Outcome(outcome) => outcome::check(outcome, observation, limits),
            _ => Err(unfitting()),
        });
        let (fuel, log, memory_bytes) = (ran.fuel, ran.log, ran.memory_bytes);
        let times = CallTimes { total: start.elapsed(), ..ran.times };
        self.ended(result.as_ref().err());
        let (result, state_out) = match result {
            Ok((decision, state)) => (Ok(decision), Some(state)),
            Err(failure) => (Err(failure), None),
        };
        let manifest = self.manifest();
        let run = PolicyRun {
            slot: String::new(),
            name: manifest.name.clone().into(),
            version: manifest.version.clone().into(),
            digest: self.digest().clone(),
            params: params.to_owned(),
            state_in: BASE64_STANDARD.encode(state),
            result,
            fuel,
            duration_us: u64::try_from(times.total.as_micros()).unwrap_or(u64::MAX),
            log,
        };
        Call { run, state: state_out, times, memory_bytes }
    }
}
