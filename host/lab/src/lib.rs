//! Deterministic simulation test: the real set machine, agent, planner, guards and built-in policies in seeded worlds, under
//! virtual time, with faults between any two steps and invariants after each.
//!
//! ```text
//!   seed ─► World ─► one event ─► SetMachine / Agent ─► effects ─► store, node, load balancer, policies (models)
//!             ▲                                                          │
//!             └── events in virtual time ◄───────────────────────────────┘     invariants look at every commit, order, end
//! ```
//!
//! The same seed gives the same run, byte for byte. A world has a wild part, in which everything may fail, and a calm part, in
//! which nothing does any more and every set has to settle on what is wanted of it.

mod chaos;
mod clock;
mod daemon;
mod dice;
mod event;
mod guest;
pub mod invariants;
mod lb;
pub mod native;
mod node;
mod operator;
mod policy;
pub mod run;
pub mod scenario;
mod shell;
mod store;
mod story;
mod world;

pub use run::{Outcome, Settings, run};
