//! The life of an instance as a state machine. Policies see less of it: [`Phase::state`] says what.
//!
//! ```text
//!            launch          booted         first probe       healthy
//!  pending ─────────► creating ────► booting ────► initializing ────► in-service ◄──────┐
//!     │                  │              │                │              │   │  │        │ healthy
//!     │    launch failed │  boot timed out / exited      │      drain   │   │  └────► unhealthy
//!     │                  ▼              ▼                ▼              │   │ unhealthy   │
//!     │                failed ◄─────────┴────────────────┴──── exited ──┼───┴─────────────┤
//!     │                  │                                              ▼                 │
//!     │                  │                                          draining ◄── drain ───┘
//!     │ terminate        │ terminate                                    │ terminate / exited
//!     └──────────────────┴──────────────► terminating ◄─────────────────┘
//!                                              │ cleaned
//!                                              ▼
//!                                             gone
//! ```
//!
//! A node that refuses an instance leaves it `refused`, from where it is terminated like a `failed` one.
//! One that drains in order to be restarted is `booting` again after that.
//! A guest that panics is `failed` as if its VMM had exited; one that reboots itself is `booting` again.
//! `standby` sits beside `in-service`: an instance enters it from there and comes back.
//! Every state but `gone` may be terminated; `gone` absorbs everything.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::instance_state::InstanceState;

/// Where an instance is in its life, as the host knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Wanted, and written down; nothing exists yet.
    Pending,
    /// Directory, overlay and VMM process are being made.
    Creating,
    /// The VMM runs the guest; no probe has answered yet.
    Booting,
    /// A probe has answered, not yet often enough to be trusted.
    Initializing,
    /// Healthy and receiving traffic.
    InService,
    /// Healthy but taken out of traffic on purpose.
    Standby,
    /// Was in service; its probes fail.
    Unhealthy,
    /// Receives no new connections; finishes those it has.
    Draining,
    /// Is being stopped and removed.
    Terminating,
    /// Launch failed or the VMM ended unasked; kept until it is removed.
    Failed,
    /// Its node refused to run it; nothing of it exists.
    Refused,
    /// Nothing of it is left.
    Gone,
}

/// All states, in the order of their declaration.
pub const PHASES: [Phase; 12] = [
    Phase::Pending,
    Phase::Creating,
    Phase::Booting,
    Phase::Initializing,
    Phase::InService,
    Phase::Standby,
    Phase::Unhealthy,
    Phase::Draining,
    Phase::Terminating,
    Phase::Failed,
    Phase::Refused,
    Phase::Gone,
];

impl Phase {
    /// The name that users read and write, for example `in-service`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Creating => "creating",
            Self::Booting => "booting",
            Self::Initializing => "initializing",
            Self::InService => "in-service",
            Self::Standby => "standby",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Terminating => "terminating",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }

    /// What policies see of it: the state of the contract.
    #[must_use]
    pub fn state(self) -> InstanceState {
        match self {
            Self::Pending => InstanceState::Pending,
            Self::Creating => InstanceState::Creating,
            Self::Booting => InstanceState::Booting,
            Self::Initializing => InstanceState::Initializing,
            Self::InService => InstanceState::InService,
            Self::Standby => InstanceState::Standby,
            Self::Unhealthy => InstanceState::Unhealthy,
            Self::Draining => InstanceState::Draining,
            Self::Terminating => InstanceState::Terminating,
            Self::Failed | Self::Refused => InstanceState::Failed,
            Self::Gone => InstanceState::Gone,
        }
    }

    /// On its way into service.
    #[must_use]
    pub fn is_warming(self) -> bool {
        matches!(self, Self::Pending | Self::Creating | Self::Booting | Self::Initializing)
    }

    /// Counts towards the capacity that a decision asked for.
    ///
    /// An unhealthy instance counts until a repair removes it, so that a fault
    /// which hits all instances at once cannot double the fleet.
    #[must_use]
    pub fn counts_as_capacity(self) -> bool {
        self.is_warming() || matches!(self, Self::InService | Self::Unhealthy)
    }

    /// Its guest may answer probes and scrapes.
    #[must_use]
    pub fn may_answer(self) -> bool {
        matches!(
            self,
            Self::Booting
                | Self::Initializing
                | Self::InService
                | Self::Standby
                | Self::Unhealthy
                | Self::Draining
        )
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What can happen to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceEvent {
    /// Its node has begun to make it.
    LaunchStarted,
    /// Its node has no capacity for it, or no address.
    Refused,
    /// `vm.boot` returned.
    Booted,
    /// A probe answered for the first time.
    FirstProbeAnswered,
    /// The probes passed often enough in a row.
    BecameHealthy,
    /// The probes failed often enough in a row.
    BecameUnhealthy,
    /// It could not be made.
    LaunchFailed,
    /// It was not healthy within its boot time-out.
    BootTimedOut,
    /// The VMM process ended, unasked; a guest that powers itself off ends it too.
    VmmExited,
    /// The guest's kernel panicked; its VMM runs on.
    GuestPanicked,
    /// The guest rebooted itself, within the same VMM.
    GuestRebooted,
    /// Its guest was restarted, as it should be.
    Restarted,
    /// The plan takes it out of traffic for good.
    DrainRequested,
    /// The plan takes it out of traffic for now.
    StandbyRequested,
    /// The plan brings it back from standby.
    ServiceRequested,
    /// The plan removes it.
    TerminateRequested,
    /// Process, overlay and directory are gone.
    Cleaned,
}

/// All events, in the order of their declaration.
pub const INSTANCE_EVENTS: [InstanceEvent; 17] = [
    InstanceEvent::LaunchStarted,
    InstanceEvent::Refused,
    InstanceEvent::Booted,
    InstanceEvent::FirstProbeAnswered,
    InstanceEvent::BecameHealthy,
    InstanceEvent::BecameUnhealthy,
    InstanceEvent::LaunchFailed,
    InstanceEvent::BootTimedOut,
    InstanceEvent::VmmExited,
    InstanceEvent::GuestPanicked,
    InstanceEvent::GuestRebooted,
    InstanceEvent::Restarted,
    InstanceEvent::DrainRequested,
    InstanceEvent::StandbyRequested,
    InstanceEvent::ServiceRequested,
    InstanceEvent::TerminateRequested,
    InstanceEvent::Cleaned,
];

/// An event that means nothing in the state that it met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an instance that is {state} cannot take the event {event:?}")]
pub struct IllegalTransition {
    /// The state that the event met.
    pub state: Phase,
    /// The event.
    pub event: InstanceEvent,
}

/// The state that follows when `event` meets `state`.
///
/// # Errors
/// [`IllegalTransition`] when the table has no such edge. Late news is legal: a
/// probe result or an exit that arrives for an instance that is already on its
/// way out leaves the state as it is.
pub fn step(state: Phase, event: InstanceEvent) -> Result<Phase, IllegalTransition> {
    use InstanceEvent as E;
    use Phase as S;
    let next = match (state, event) {
        (S::Gone, _) => S::Gone,

        (S::Pending, E::LaunchStarted) => S::Creating,
        (S::Pending, E::Refused) => S::Refused,
        (S::Creating, E::Booted) => S::Booting,
        (S::Booting, E::FirstProbeAnswered) => S::Initializing,
        (S::Booting | S::Initializing | S::Unhealthy, E::BecameHealthy) => S::InService,
        (S::InService, E::BecameUnhealthy) => S::Unhealthy,

        (S::Pending | S::Creating, E::LaunchFailed) => S::Failed,
        (S::Booting | S::Initializing, E::BootTimedOut) => S::Failed,
        (
            S::Creating | S::Booting | S::Initializing | S::InService | S::Standby | S::Unhealthy,
            E::VmmExited,
        ) => S::Failed,
        (S::Booting | S::Initializing | S::InService | S::Standby | S::Unhealthy, E::GuestPanicked) => S::Failed,
        (S::Draining, E::VmmExited | E::GuestPanicked) => S::Terminating,

        (S::Initializing | S::InService | S::Standby | S::Unhealthy, E::GuestRebooted) => S::Booting,

        (
            S::Initializing | S::InService | S::Standby | S::Unhealthy | S::Draining,
            E::Restarted,
        ) => S::Booting,

        (S::InService | S::Unhealthy, E::DrainRequested) => S::Draining,
        (S::InService, E::StandbyRequested) => S::Standby,
        (S::Standby, E::ServiceRequested) => S::InService,

        (S::Terminating, E::Cleaned) => S::Gone,
        (_, E::TerminateRequested) => S::Terminating,

        // Late or repeated news: true when it was sent, without meaning now.
        (
            S::Initializing
            | S::InService
            | S::Standby
            | S::Unhealthy
            | S::Draining
            | S::Terminating
            | S::Failed,
            E::FirstProbeAnswered,
        )
        | (S::InService | S::Standby | S::Draining | S::Terminating | S::Failed, E::BecameHealthy)
        | (
            S::Booting
            | S::Initializing
            | S::Unhealthy
            | S::Standby
            | S::Draining
            | S::Terminating
            | S::Failed,
            E::BecameUnhealthy,
        )
        | (
            S::Terminating | S::Failed,
            E::VmmExited | E::GuestPanicked | E::GuestRebooted | E::LaunchFailed | E::Booted,
        )
        // One that drains was to go anyway: its connections are lost, its time runs.
        | (S::Booting | S::Terminating | S::Failed, E::Restarted)
        | (S::Booting | S::Draining, E::GuestRebooted)
        | (S::InService | S::Unhealthy | S::Draining | S::Terminating | S::Failed, E::BootTimedOut)
        | (S::Draining | S::Terminating, E::DrainRequested) => state,

        _ => return Err(IllegalTransition { state, event }),
    };
    Ok(next)
}
