//! One call into a fresh instance, under limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regatta_core::decision::{FailureKind, LogLine, PolicyFailure, PolicyRun};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use wasmtime::{Store, Trap};

use crate::bindings::regatta::policy::types;
use crate::bindings::{Policy, PolicyPre};
use crate::compiled::CompiledPolicy;
use crate::engine::{EPOCH_MS, Engine};
use crate::gate::{Lane, Permit};
use crate::guest::{Guest, MetricWish};
use crate::text::capped;
use crate::{observe, outcome};

/// Bytes of a failure's message.
const MESSAGE_BYTES: usize = 1024;

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
}

/// Where the time of a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
        let wishes = self.wishes(params);
        let tick = observe::tick(observation, &wishes);
        let mut times = CallTimes { observe: start.elapsed(), ..CallTimes::default() };

        let started = Instant::now();
        let session = Session::start(
            &self.engine,
            &self.pre,
            self.lane(),
            Some(Arc::clone(observation)),
            wishes,
            limits,
        );
        times.instantiate = started.elapsed();
        let (result, fuel, log) = match session {
            Err(failure) => (Err(failure), 0, Vec::new()),
            Ok(mut session) => {
                let called = Instant::now();
                let outcome = session.decide(&tick, params, state);
                times.guest = called.elapsed();
                let checked = outcome.and_then(|outcome| outcome::check(outcome, observation, limits));
                let (fuel, log) = session.finish();
                (checked, fuel, log)
            }
        };
        times.total = start.elapsed();
        self.ran(fuel, result.as_ref().err());
        let (result, state_out) = match result {
            Ok((decision, state)) => (Ok(decision), Some(state)),
            Err(failure) => (Err(failure), None),
        };
        let manifest = self.manifest();
        let run = PolicyRun {
            slot: String::new(),
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            digest: self.digest().to_owned(),
            params: params.to_owned(),
            state_in: BASE64_STANDARD.encode(state),
            result,
            fuel,
            duration_us: u64::try_from(times.total.as_micros()).unwrap_or(u64::MAX),
            log,
        };
        Call { run, state: state_out, times }
    }
}

/// A fresh instance with its limits.
pub(crate) struct Session<'a> {
    store: Store<Guest>,
    policy: Policy,
    fuel: u64,
    // Last, so that the store has given its slots back when the next call enters.
    _permit: Permit<'a>,
}

impl<'a> Session<'a> {
    pub(crate) fn start(
        engine: &'a Engine,
        pre: &PolicyPre<Guest>,
        lane: Lane,
        observation: Option<Arc<Observation>>,
        wishes: Vec<MetricWish>,
        limits: &PolicyLimits,
    ) -> Result<Self, PolicyFailure> {
        let permit = engine.enter(lane);
        let mut store = Store::new(&engine.inner.engine, Guest::new(observation, wishes, limits));
        store.limiter(|guest| &mut guest.limiter);
        store.set_fuel(limits.fuel).map_err(|error| failed(FailureKind::Host, format!("{error:#}")))?;
        // One more, as the present epoch is already under way.
        store.set_epoch_deadline(limits.deadline_ms.div_ceil(EPOCH_MS).saturating_add(1).min(1 << 32));
        // What one import or the result may bring over at most, so that a list of
        // 4 billion strings is refused before memory is taken for it. Lifted values
        // are larger than their text; the exact check comes after.
        store.set_hostcall_fuel(usize::try_from(limits.output_bytes.saturating_mul(4)).unwrap_or(usize::MAX));
        match pre.instantiate(&mut store) {
            Ok(policy) => Ok(Self { store, policy, fuel: limits.fuel, _permit: permit }),
            Err(error) => Err(failure(&error, store.data(), Phase::Start)),
        }
    }

    pub(crate) fn describe(&mut self) -> Result<types::Manifest, PolicyFailure> {
        let answer = self.policy.regatta_policy_scaling().call_describe(&mut self.store);
        answer.map_err(|error| failure(&error, self.store.data(), Phase::Call))
    }

    pub(crate) fn validate(
        &mut self,
        params: &str,
    ) -> Result<Result<(), Vec<types::Problem>>, PolicyFailure> {
        let answer = self.policy.regatta_policy_scaling().call_validate(&mut self.store, params);
        answer.map_err(|error| failure(&error, self.store.data(), Phase::Call))
    }

    fn decide(
        &mut self,
        tick: &types::Tick,
        params: &str,
        state: &[u8],
    ) -> Result<types::Outcome, PolicyFailure> {
        let answer = self.policy.regatta_policy_scaling().call_decide(&mut self.store, tick, params, state);
        match answer {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(message)) => Err(failed(FailureKind::Refused, message)),
            Err(error) => Err(failure(&error, self.store.data(), Phase::Call)),
        }
    }

    fn finish(mut self) -> (u64, Vec<LogLine>) {
        let left = self.store.get_fuel().unwrap_or(0);
        (self.fuel.saturating_sub(left), self.store.data_mut().take_log())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Call,
}

fn failed(kind: FailureKind, message: String) -> PolicyFailure {
    PolicyFailure { kind, message: capped(message, MESSAGE_BYTES) }
}

/// What a trap says, without the words that the kind of failure says already.
fn told(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").map_or_else(|| text.clone(), str::to_owned)
}

/// What an error of wasmtime means.
fn failure(error: &wasmtime::Error, guest: &Guest, phase: Phase) -> PolicyFailure {
    let Some(&trap) = error.downcast_ref::<Trap>() else {
        if guest.limiter.refused {
            return failed(FailureKind::Memory, "it asked for more memory than it may have".to_owned());
        }
        let kind = match phase {
            // The pool is full, or memory cannot be had.
            Phase::Start => FailureKind::Host,
            // What came back cannot be read: text that is not UTF-8, lists without end.
            Phase::Call => FailureKind::Output,
        };
        return failed(kind, error.root_cause().to_string());
    };
    let (kind, what) = match trap {
        Trap::OutOfFuel => (FailureKind::OutOfFuel, "it used up its fuel".to_owned()),
        Trap::Interrupt => (FailureKind::Deadline, "it ran past its deadline".to_owned()),
        Trap::StackOverflow => (FailureKind::StackOverflow, "its stack overflowed".to_owned()),
        Trap::AllocationTooLarge => (FailureKind::Memory, told(trap)),
        Trap::ListOutOfBounds
        | Trap::StringOutOfBounds
        | Trap::InvalidChar
        | Trap::InvalidDiscriminant
        | Trap::UnalignedPointer => (FailureKind::Output, told(trap)),
        // Most languages answer a refused allocation with a trap of their own.
        _ if guest.limiter.refused => {
            (FailureKind::Memory, "it asked for more memory than it may have".to_owned())
        }
        Trap::UnreachableCodeReached => {
            (FailureKind::Trap, guest.last_error().map_or_else(|| told(trap), str::to_owned))
        }
        _ => (FailureKind::Trap, told(trap)),
    };
    failed(kind, what)
}
