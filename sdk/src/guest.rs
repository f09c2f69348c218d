//! The guest's side of the exports: imports as the source of bulk data, and a
//! panic that says why before it traps.

use crate::bindings::regatta::policy::observe;
use crate::bindings::regatta::policy::types::{Manifest, Outcome as WitOutcome};
use crate::tick::Source;
use crate::{InstanceTable, MetricColumn, MetricWindow, Policy, Problem, Tick, TickData, log, run};

struct Imports;

impl Source for Imports {
    fn instances(&self) -> InstanceTable {
        observe::instances()
    }
    fn metric(&self, name: &str) -> MetricColumn {
        observe::metric(name)
    }
    fn window(&self, name: &str) -> MetricWindow {
        observe::window(name)
    }
}

/// On this target a panic has no message of its own: it is an `unreachable`.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| log::error(&info.to_string())));
}

/// The contract's version as the bytes of a custom section.
#[must_use]
pub const fn contract() -> [u8; crate::CONTRACT_VERSION.len()] {
    let text = crate::CONTRACT_VERSION.as_bytes();
    let mut bytes = [0; crate::CONTRACT_VERSION.len()];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = text[at];
        at += 1;
    }
    bytes
}

/// The export `describe`.
#[must_use]
pub fn describe<P: Policy>() -> Manifest {
    log_panics();
    run::describe::<P>()
}

/// The export `validate`.
///
/// # Errors
/// All problems of the parameters.
pub fn validate<P: Policy>(params: &str) -> Result<(), Vec<Problem>> {
    log_panics();
    run::validate::<P>(params)
}

/// The export `decide`.
///
/// # Errors
/// What the policy says when it has no outcome.
pub fn decide<P: Policy>(tick: TickData, params: &str, state: &[u8]) -> Result<WitOutcome, String> {
    log_panics();
    run::decide::<P>(&Tick::new(tick, &Imports), params, state)
}

/// The export `migrate`.
///
/// # Errors
/// What the policy says when it cannot read the state.
pub fn migrate<P: Policy>(from_version: u32, state: &[u8]) -> Result<Vec<u8>, String> {
    log_panics();
    run::migrate::<P>(from_version, state)
}
