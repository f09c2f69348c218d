//! Seeded faults: each breaks one promise of the core in one line, so that the simulation test can show that it would notice.
//!
//! Without the feature `mutants` every mark is `false` at compile time and nothing of this is left.

macro_rules! mutants {
    ($($(#[doc = $doc:literal])* $mutant:ident,)*) => {
        /// A seeded fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])* $mutant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mutant,)*];
        }
    };
}

mutants! {
    /// A tick acts before the store has answered.
    ActBeforeCommit,
    /// A commit does not say what it expects to find.
    CommitUnguarded,
    /// A decision for an older activation is taken although the tick it was asked in is over.
    LateDecisionApplied,
    /// An instance that drains counts as drained at once.
    ForgetDrain,
    /// What drains still gets connections.
    DrainingIsEndpoint,
    /// A warming instance counts twice.
    WarmingCountsTwice,
    /// A metric without a value reads as zero.
    MissingIsZero,
    /// The id of the last instance is given to the next one.
    ReuseId,
    /// The number of a tick is used twice.
    ReuseTick,
    /// A VMM that cannot be asked counts as ended.
    StopOnSilence,
    /// What an instance shows while it warms up counts.
    WarmingShows,
    /// The daemon does not know that it was away.
    ForgetAbsence,
    /// A set may move as far as it likes.
    NoRateLimit,
    /// Protection from scale-in is not looked at.
    IgnoreProtection,
    /// Protection from all actions of the set is not more than that from scale-in.
    IgnoreFullProtection,
    /// What operators ask for single instances is not carried out.
    ForgetRequest,
    /// An instance that is restarted is taken for one that goes.
    RestartLoses,
    /// A set removes instances although that is suspended.
    SuspendedTerminates,
    /// A set creates instances although that is suspended.
    SuspendedLaunches,
    /// Failed launches do not make the next ones wait.
    NoBackoff,
    /// Boot time-outs are measured on the wall clock.
    BootTimeoutOnWallClock,
    /// The grace of an unhealthy instance is not waited for.
    RepairAtOnce,
    /// Drain time-outs are measured on the wall clock.
    DrainOnWallClock,
    /// Two instances get one address.
    DoubleAddress,
    /// The node is not told that its owner knows of an instance's end.
    DropForget,
    /// What a shadow said is applied.
    ApplyShadow,
    /// A policy that failed counts as one that wants the minimum.
    ScaleInOnFailure,
    /// The record does not say what the nodes had capacity for.
    LoseFacts,
    /// The record names another manifest than the one it was decided by.
    WrongManifest,
    /// The agent gives no capacity back.
    LeakCapacity,
    /// An instance is removed from the store before its node has removed it.
    RemoveBeforeCleaned,
    /// A removal that was cut off by a restart is not finished.
    ForgetTermination,
    /// The agent launches again what it was told of before.
    LaunchTwice,
    /// The agent stops what it has not heard of since its start.
    StopUnheardOf,
    /// Instances of an older generation are made after another manifest was applied.
    OldGeneration,
    /// A canary may go as far as it likes.
    CanaryUnbounded,
    /// The set's limits do not bind.
    IgnoreLimits,
    /// A store that fails leaves the machine waiting.
    StuckAfterFailure,
    /// A command is answered before it is stored.
    ReplyBeforeCommit,
    /// A set may change as soon as it has changed.
    NoCooldown,
    /// An upgrade goes on whatever becomes of the new instances.
    UpgradeIgnoresHealth,
    /// An upgrade does not wait at its checkpoints.
    UpgradeForgetsBake,
    /// An upgrade takes instances out of service whatever that leaves.
    UpgradeIgnoresFloor,
    /// An upgrade replaces what is up to date.
    UpgradeReplacesAll,
    /// An upgrade that was paused goes on.
    UpgradeIgnoresPause,
    /// A rollback that is due is forgotten.
    ForgetRollback,
    /// A tick does not know that its size is held.
    ForgetHold,
    /// A policy that only wants more passes a hold.
    HoldLetsScaleOutThrough,
    /// A frozen set still scales in.
    FreezeLetsScaleInThrough,
    /// A frozen set still replaces what is unhealthy.
    FreezeLetsRepairThrough,
    /// Schedules run on the set's own clock.
    ScheduleOnLivedClock,
    /// The capacity of a schedule entry is gone to in every tick.
    ScheduleBeginsAgain,
    /// What an operator said for a while counts for ever.
    TermNeverEnds,
}

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Switches one on for this thread, or all off.
    pub fn set(mutant: Option<Mutant>) {
        ON.set(mutant);
    }

    /// Whether this one is on.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use switch::{is, set};

/// Whether this one is on: never in this build.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}
