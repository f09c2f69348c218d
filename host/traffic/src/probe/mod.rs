//! Health probes: a pure state machine that says when the next probe is due and
//! what a result means, and a thin runner that asks the instance.

mod runner;
mod state;

pub use runner::{ProbeReport, ProbeStatus, ProbeTarget, Prober};
pub use state::{ProbeEvent, ProbeFailure, ProbeOutcome, ProbePhase, ProbeState};
