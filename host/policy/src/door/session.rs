//! A fresh instance with its limits.

use std::sync::Arc;

use regatta_core::decision::{FailureKind, LogLine, PolicyFailure};
use regatta_core::manifest::PolicyLimits;
use regatta_core::metrics::MetricWish;
use regatta_core::observation::Observation;
use wasmtime::Store;

use super::{Door, component, json};
use crate::bindings::regatta::policy::types;
use crate::engine::{EPOCH_MS, Engine};
use crate::failure::{Phase, bad_output, failed, failure};
use crate::gate::{Lane, Permit};
use crate::guest::Guest;

/// Handles of resources that a component may hold at once.
const MAX_HANDLES: usize = 10_000;

/// One instance, for one call.
pub(crate) struct Session<'a> {
    store: Store<Guest>,
    instance: Instance,
    fuel: u64,
    output_bytes: usize,
    // Last, so that the store has given its slots back when the next call enters.
    _permit: Permit<'a>,
}

enum Instance {
    Component(component::Instance),
    Json(Box<json::Instance>),
}

impl<'a> Session<'a> {
    pub(crate) fn start(
        engine: &'a Engine,
        door: &Door,
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
        store.set_max_component_handles(MAX_HANDLES);
        let instance = match door {
            Door::Component(door) => door.instantiate(&mut store).map(Instance::Component),
            Door::Json(door) => door.instantiate(&mut store).map(Box::new).map(Instance::Json),
        };
        let instance = instance.map_err(|error| failure(&error, store.data(), Phase::Start))?;
        let output_bytes = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
        let mut session = Self { store, instance, fuel: limits.fuel, output_bytes, _permit: permit };
        if let Instance::Json(json) = &session.instance {
            json.initialize(&mut session.store)?;
        }
        Ok(session)
    }

    pub(crate) fn describe(&mut self) -> Result<types::Manifest, PolicyFailure> {
        match &self.instance {
            Instance::Component(component) => component.describe(&mut self.store),
            Instance::Json(json) => json.describe(&mut self.store, self.output_bytes),
        }
    }

    pub(crate) fn validate(
        &mut self,
        params: &str,
    ) -> Result<Result<(), Vec<types::Problem>>, PolicyFailure> {
        match &self.instance {
            Instance::Component(component) => component.validate(&mut self.store, params),
            Instance::Json(json) => json.validate(&mut self.store, self.output_bytes, params),
        }
    }

    /// The outer error is the host's view of what went wrong; a policy's own error is of the kind `Refused`.
    pub(crate) fn decide(
        &mut self,
        tick: &types::Tick,
        params: &str,
        state: &[u8],
    ) -> Result<types::Outcome, PolicyFailure> {
        let answer = match &self.instance {
            Instance::Component(component) => component.decide(&mut self.store, tick, params, state)?,
            Instance::Json(json) => json.decide(&mut self.store, self.output_bytes, tick, params, state)?,
        };
        answer.map_err(|message| failed(FailureKind::Refused, message))
    }

    /// The new state, or the policy's own error.
    pub(crate) fn migrate(
        &mut self,
        from_version: u32,
        state: &[u8],
    ) -> Result<Result<Vec<u8>, String>, PolicyFailure> {
        let answer = match &self.instance {
            Instance::Component(component) => component.migrate(&mut self.store, from_version, state)?,
            Instance::Json(json) => json.migrate(&mut self.store, self.output_bytes, from_version, state)?,
        };
        match &answer {
            Ok(state) if state.len() > self.output_bytes => Err(bad_output(format!(
                "its state has {} bytes, more than the {} that it may have",
                state.len(),
                self.output_bytes
            ))),
            _ => Ok(answer),
        }
    }

    /// Linear memory that it has, bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        u64::try_from(self.store.data().limiter.memory).unwrap_or(u64::MAX)
    }

    /// Fuel used, and what was logged.
    pub(crate) fn finish(&mut self) -> (u64, Vec<LogLine>) {
        let left = self.store.get_fuel().unwrap_or(0);
        (self.fuel.saturating_sub(left), self.store.data_mut().take_log())
    }
}
