//! What reaches the machine of a set, and what it wants done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::agent::{Report, Want};
use crate::batch::{Batch, Revision};
use crate::decision::PolicyRun;
use crate::digest::Digest;
use crate::event::Actor;
use crate::manifest::{LoadBalancer, PolicyLimits, ScaleSet};
use crate::metrics::Reading;
use crate::observation::Observation;
use crate::phase::InstanceEvent;
use crate::protection::Protection;
use crate::record::{NodeCapacity, TickRecord};
use crate::set_process::SetProcess;
use crate::state::{ImageDigests, PolicyActivation};

use super::{RollBack, UpgradeAction};

/// Tells the shell which caller a reply is for.
pub type Token = u64;

/// What reaches the machine of a set.
#[derive(Debug, Clone)]
pub enum Input {
    /// An agent has told all that it found after its start; ticks begin.
    InventoryComplete,
    /// A tick is due.
    Tick(Box<TickFacts>),
    /// The policies that act have answered.
    Decided {
        /// The tick that they were asked in.
        tick: u64,
        /// One answer for each ask, in its order.
        answers: Vec<Answer>,
    },
    /// A shadow has answered.
    Shadow {
        /// The tick that it was asked in.
        tick: u64,
        /// What it says.
        answer: Box<Answer>,
    },
    /// A batch is stored, or not.
    Committed(Result<Revision, CommitError>),
    /// States of policies were migrated, in the order asked for: base64, or why not.
    Migrated(Vec<Result<String, String>>),
    /// The load balancer listens as it was told, or why not.
    Listening(Result<(), String>),
    /// What became of an instance.
    Report {
        /// Which.
        id: u32,
        /// What.
        report: Report,
    },
    /// Probes found something out about an instance.
    Probed {
        /// Which.
        id: u32,
        /// What: the first answer, healthy, unhealthy.
        event: InstanceEvent,
        /// What the last probe came to, when that says why.
        detail: Option<String>,
    },
    /// The daemon was stopped for a while (SIGSTOP, a suspended machine) and runs again.
    Resumed,
    /// Values of guests' metrics.
    Scraped(Vec<Scrape>),
    /// How it is with the set's golden snapshot.
    Snapshot(SnapshotStatus),
    /// What an operator wants.
    Command {
        /// For the reply.
        token: Token,
        /// Who.
        actor: Actor,
        /// What.
        command: Command,
    },
}

/// What is measured when a tick begins.
#[derive(Debug, Clone, Default)]
pub struct TickFacts {
    /// Readings of VMM processes.
    pub processes: Vec<ProcessReading>,
    /// What the load balancer counts; none without one.
    pub traffic: Option<TrafficReading>,
    /// The last probes of instances that are still booting, for people.
    pub last_probes: BTreeMap<u32, String>,
    /// Instances that the host could not probe the last time.
    pub not_probed: BTreeSet<u32>,
    /// What each node has capacity for.
    pub nodes: Vec<NodeCapacity>,
}

/// Counters of one VMM process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessReading {
    /// Of which instance.
    pub id: u32,
    /// CPU time since its start.
    pub cpu_time_ns: Option<u64>,
    /// Resident memory.
    pub rss_bytes: Option<u64>,
}

/// Counters of the load balancers in front of the set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrafficReading {
    /// Connections accepted since the listener was made.
    pub accepted: u64,
    /// Connections refused since then, because as many were open as may be.
    pub refused: u64,
    /// Connections of clients that are open now, those that wait for an endpoint included.
    pub active: u32,
    /// Connections that wait for an endpoint now.
    pub waiting: u32,
    /// Connections that got no endpoint in time, since the listener was made.
    pub unserved: u64,
    /// Open connections of each instance that has an endpoint, also of those that drain. One that is not here has none.
    pub open: BTreeMap<u32, u32>,
}

/// One scrape of one guest.
#[derive(Debug, Clone, PartialEq)]
pub struct Scrape {
    /// Of which instance.
    pub id: u32,
    /// When it was complete, on the monotonic clock of [`crate::time::Time`].
    pub at_mono_ms: u64,
    /// One reading per metric of the manifest, in its order.
    pub values: Vec<Reading>,
}

/// Why a batch is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError {
    /// Somebody else changed the set meanwhile: what the machine knows of it is outdated.
    Conflict(String),
    /// The store cannot be written.
    Failed(String),
}

/// How it is with the golden snapshot that instances of a set start from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// None is wanted, or none was looked for yet.
    #[default]
    Off,
    /// It is being made.
    Making {
        /// Why it failed before, if it did.
        failed: Option<String>,
    },
    /// It can be started from.
    Ready {
        /// What it takes on disk.
        disk_bytes: u64,
    },
    /// It could not be made.
    Failed {
        /// Why.
        why: String,
    },
}

/// What an operator wants.
#[derive(Debug, Clone)]
pub enum Command {
    /// Another manifest, already checked.
    Update(Box<Update>),
    /// Another capacity.
    Scale {
        /// The capacity.
        capacity: u32,
    },
    /// Policies shall not change the size for a while.
    Hold {
        /// Another capacity first; none keeps the present one.
        capacity: Option<u32>,
        /// For how long, milliseconds; none until [`Command::Resume`].
        for_ms: Option<u64>,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// Policies decide the size again.
    Resume,
    /// Other limits than those of the manifest; replaces what an operator put in their place before.
    Limits {
        /// Least capacity; none takes the manifest's.
        min: Option<u32>,
        /// Greatest capacity; none takes the manifest's.
        max: Option<u32>,
        /// For how long, milliseconds; none until [`Command::ClearLimits`].
        for_ms: Option<u64>,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// The manifest's limits again.
    ClearLimits,
    /// Nothing that serves shall be removed for a while.
    Freeze {
        /// For how long, milliseconds; none until [`Command::Thaw`].
        for_ms: Option<u64>,
        /// Why, for people; may be empty.
        reason: String,
    },
    /// What serves may be removed again.
    Thaw,
    /// Protection of an instance.
    Protect {
        /// Which.
        id: u32,
        /// From what.
        protection: Protection,
    },
    /// Something for one instance.
    Instance {
        /// Which.
        id: u32,
        /// What.
        action: InstanceAction,
    },
    /// What the set shall not do by itself, or do again.
    Processes {
        /// To suspend.
        suspend: BTreeSet<SetProcess>,
        /// To resume.
        resume: BTreeSet<SetProcess>,
    },
    /// Another policy takes over. A slot that is not named is the only one, in all commands.
    Swap {
        /// Which slot.
        slot: Option<String>,
        /// The policy.
        policy: Box<NewPolicy>,
    },
    /// An earlier policy again.
    Rollback {
        /// Which slot.
        slot: Option<String>,
        /// Number of the activation to go back to; none for the previous one.
        to: Option<u64>,
    },
    /// Another policy is judged beside the active one.
    Shadow {
        /// Which slot.
        slot: Option<String>,
        /// The policy.
        policy: Box<NewPolicy>,
    },
    /// Another policy acts, within bounds.
    Canary {
        /// Which slot.
        slot: Option<String>,
        /// The policy.
        policy: Box<NewPolicy>,
        /// How many instances it may be away from the active one.
        within: u32,
    },
    /// A shadow or canary takes over; none for the only one.
    Promote {
        /// Number of its activation.
        number: Option<u64>,
    },
    /// A shadow or canary goes.
    Drop {
        /// Number of its activation.
        number: u64,
    },
    /// Something about an upgrade of its instances.
    Upgrade(UpgradeAction),
    /// The end of the set.
    Delete,
}

/// What an operator wants of one instance. Protection does not hold it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceAction {
    /// It drains and goes; another takes its place.
    Replace,
    /// It drains, and its guest is restarted.
    Restart,
    /// It drains and goes.
    Delete {
        /// The capacity goes down by one as well.
        shrink: bool,
    },
}

/// Another manifest with what it names.
#[derive(Debug, Clone)]
pub struct Update {
    /// The manifest.
    pub set: ScaleSet,
    /// What its instances start from.
    pub image: ImageDigests,
    /// Its policies, in its order; none keeps the one that has that slot.
    pub policies: Vec<Option<NewPolicy>>,
    /// It takes an upgrade back, as [`Effect::RollBack`] asked for.
    pub rolls_back: bool,
}

/// A policy that may take a slot: compiled, checked and rehearsed.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// As it will be stored; its number is given when it takes its slot. Its state is what it built in the rehearsal.
    pub activation: PolicyActivation,
    /// How that state came to be, for people.
    pub state_origin: String,
}

/// Why a command was not carried out; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// Not in the present state.
    Conflict(String),
    /// There is no such thing.
    NotFound(String),
    /// The store cannot be written.
    Store(String),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// It was carried out.
    Ok,
    /// Another manifest is in force; the shadows and canaries that ended with it, for people.
    Applied(Vec<String>),
    /// Another policy is active.
    Switched(Box<Switched>),
    /// A policy stands beside the active one, or no longer does.
    Placed(Box<Placed>),
}

/// A switch from one policy to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Switched {
    /// The slot.
    pub slot: String,
    /// The policy before.
    pub from: PolicyActivation,
    /// The active policy.
    pub to: PolicyActivation,
    /// The last tick that the old one decided.
    pub after_tick: u64,
    /// How the state of the new one came to be, for people.
    pub state_origin: String,
    /// Shadows and canaries that ended with it, for people.
    pub ended: Vec<String>,
}

/// A policy beside the active one.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The slot that it would take.
    pub slot: String,
    /// The policy.
    pub activation: PolicyActivation,
    /// The last tick before.
    pub after_tick: u64,
    /// Shadows and canaries that ended with it, for people.
    pub ended: Vec<String>,
}

/// One decision to be asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The slot.
    pub slot: String,
    /// The policy; its module is known by its digest.
    pub activation: PolicyActivation,
    /// What the decision may cost.
    pub limits: PolicyLimits,
}

/// One decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Number of the activation that was asked.
    pub number: u64,
    /// How it went.
    pub run: PolicyRun,
    /// The state that it leaves, base64; none when it stays.
    pub state: Option<String>,
}

/// A state of a policy to be taken over by another version of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// SHA-256 of the module that takes over.
    pub digest: Digest,
    /// Version of the state.
    pub from_version: u32,
    /// The state, base64.
    pub state: String,
    /// What the migration may cost.
    pub limits: PolicyLimits,
}

/// What the machine of a set wants done, in this order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Ask the policies that act; answered by [`Input::Decided`].
    Ask {
        /// What they see.
        observation: Arc<Observation>,
        /// Who is asked.
        asks: Vec<Ask>,
    },
    /// Ask a policy that is only judged; answered by [`Input::Shadow`].
    AskShadow {
        /// What it sees.
        observation: Arc<Observation>,
        /// Who is asked.
        ask: Ask,
    },
    /// Migrate states; answered by [`Input::Migrated`].
    Migrate(Vec<Migration>),
    /// Listen like this, or not at all; answered by [`Input::Listening`].
    Listen(Option<LoadBalancer>),
    /// Store this; answered by [`Input::Committed`].
    Commit(Box<Batch>),
    /// Tell the node of an instance what is wanted of it.
    Want(Want),
    /// Tell the node that its owner knows of an instance's end.
    Forget {
        /// Which.
        id: u32,
    },
    /// Look after the golden snapshot: there shall be one of this manifest, or none. Told once a tick, and answered each time
    /// by [`Input::Snapshot`]: until then launches that need one wait.
    Snapshot(Option<Arc<ScaleSet>>),
    /// Answer an operator.
    Reply {
        /// Whom.
        token: Token,
        /// What came of the command.
        result: Result<Done, CommandError>,
    },
    /// A tick is stored.
    Ticked(Arc<TickRecord>),
    /// Apply this: an upgrade has failed. Told at each tick until it is done, by [`Command::Update`].
    RollBack(Box<RollBack>),
    /// The manifest in force is another one.
    Updated,
    /// What the store has of the set is not what the machine believes: read it again and start anew.
    Reload(String),
    /// The set is gone.
    Ended,
}
