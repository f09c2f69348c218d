//! Regatta's pure core: what a scale set is, what a policy may see and want, and
//! the functions that lead from one to the other.
//!
//! No I/O, no clock, no async, no randomness: time and seeds are arguments. The
//! daemon, the replayer and the tests run these same functions.

pub mod admission;
pub mod agent;
pub mod back_off;
pub mod balancer;
pub mod batch;
pub mod canary;
pub mod catalogue;
pub mod cloud_init;
pub mod combine;
pub mod compare;
pub mod copies;
pub mod decision;
pub mod digest;
pub mod drift;
pub mod event;
pub mod explain;
pub mod guard;
pub mod instance_model;
pub mod instance_state;
pub mod machine;
pub mod manifest;
pub mod metric;
pub mod metrics;
pub mod mutant;
pub mod narrate;
pub mod node;
pub mod observation;
pub mod orphan;
pub mod phase;
pub mod plan;
pub mod protection;
pub mod record;
pub mod recovery;
pub mod replay;
pub mod requested;
pub mod set_process;
pub mod settle;
pub mod sizing;
pub mod state;
pub mod template;
pub mod tick;
pub mod time;
pub mod upgrade;
