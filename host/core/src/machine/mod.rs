//! The machine of one set: everything that decides about it. Inputs in, effects out; no async, no clock, no I/O.
//!
//! Inputs change what the machine *knows* (an instance has booted, a probe fails); only a tick and a command *act*, and only
//! after what they are about to do is stored. While the machine waits for policies or for the store it is *busy*: what reaches
//! it meanwhile is taken in afterward, so that a tick is planned and stored on one and the same state.
//!
//! ```text
//!            tick          answers          stored
//!   Idle ─────────► Deciding ────► Committing ────► Idle    wants, endpoints, replies
//!     └── command ─► (Listening ─► Migrating ─►) ┘ └─ failed: nothing of it happens; the next tick is the retry
//! ```

mod act;
mod backoff;
mod boot;
mod commands;
mod create;
#[cfg(test)]
mod generation_tests;
mod input;
mod instance;
mod manifests;
mod observe;
#[cfg(test)]
mod properties;
mod recordable;
mod recover;
mod report;
mod shadows;
#[cfg(test)]
mod size_tests;
mod slots;
#[cfg(test)]
mod slots_tests;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod tick;
#[cfg(test)]
mod tick_tests;
#[cfg(test)]
mod told_tests;
#[cfg(test)]
mod upgrade_tests;
mod upgrades;
mod want;
mod warm;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::agent::Watch;
use crate::batch::Revision;
use crate::digest::Digest;
use crate::event::Event;
use crate::manifest::ScaleSet;
use crate::metrics::{CounterRate, SetWindows};
use crate::observation::LastDecision;
use crate::phase::Phase;
use crate::record::{InstanceChange, TickRecord};
use crate::state::{InstanceRecord, Moment, SetState};
use crate::time::{SetClock, Time};
use regatta_util::Said;

pub use self::commands::UpgradeAction;
pub use self::create::{NewSet, create};
pub use self::input::{
    Answer, Ask, Command, CommandError, CommitError, Done, Effect, Input, InstanceAction, Migration,
    NewPolicy, Placed, ProcessReading, Scrape, SnapshotStatus, Switched, TickFacts, Token, TrafficReading,
    Update,
};
pub use self::manifests::manifest_blob;
pub use self::slots::SHADOWS_MAX;
pub use self::status::{Endpoint, fails_open};
pub use self::upgrades::{Models, RollBack};

use self::commands::Pending;
use self::instance::Instance;
use self::shadows::Shadows;
use self::tick::{Frozen, Intent};

/// Changes that may wait for a record while the store cannot be written.
const CHANGES_MAX: usize = 10_000;

/// What a machine begins with: what is stored of its set.
#[derive(Debug, Clone)]
pub struct Start {
    /// The set.
    pub state: SetState,
    /// As of which commit.
    pub revision: Revision,
    /// Its instances.
    pub instances: Vec<InstanceRecord>,
    /// The manifests that instances of older generations were made from, as far as they are stored.
    pub manifests: BTreeMap<u64, Arc<ScaleSet>>,
    /// What the last tick decided.
    pub last: Option<Arc<TickRecord>>,
    /// Whether the load balancer listens already.
    pub listening: bool,
    /// Why nothing can be launched, if so.
    pub image_problem: Option<String>,
}

/// The machine of one set.
#[derive(Debug)]
pub struct SetMachine {
    /// As stored, but for the clock, the states of shadows, and launch failures.
    state: SetState,
    revision: Revision,
    clock: SetClock,
    /// When the daemon last came back after it was away, on the set's own clock.
    resumed_ms: Option<u64>,
    now: Time,
    /// SHA-256 of the manifest in force.
    manifest_digest: Digest,
    manifest: Arc<ScaleSet>,
    watch: Arc<Watch>,
    /// By generation, those of live instances and the one in force.
    manifests: BTreeMap<u64, Arc<ScaleSet>>,
    models: Models,
    instances: BTreeMap<u32, Instance>,
    /// Those whose record differs from what is stored, and those that are gone.
    unstored: BTreeSet<u32>,
    windows: SetWindows,
    connection_rate: CounterRate,
    /// Connections that the load balancer had refused when a tick last looked.
    refused: Option<u64>,
    /// Connections that had got no endpoint in time when a tick last looked.
    unserved: Option<u64>,
    /// Since the last record.
    changes: Vec<InstanceChange>,
    operator: Vec<Said>,
    /// Events that wait for a tick to store them.
    told: Vec<Event>,
    last: Option<Arc<TickRecord>>,
    last_decision: Option<LastDecision>,
    shadows: Shadows,
    snapshot: SnapshotStatus,
    image_problem: Option<String>,
    listening: bool,
    listen_error: Option<String>,
    store_error: Option<String>,
    busy: Busy,
    deferred: VecDeque<Input>,
}

/// What the machine waits for.
#[derive(Debug)]
enum Busy {
    Idle,
    /// An agent tells what it found.
    Inventory,
    /// The policies of this tick.
    Deciding(Box<Frozen>),
    /// The store, for a tick.
    Storing(Box<Intent>),
    /// Whatever a command needs.
    Command(Box<Pending>),
    /// Nothing any more: the set is gone, or what is known of it is outdated. Commands are answered like this.
    Ended(CommandError),
}

impl SetMachine {
    /// A machine that waits for the inventory of its instances.
    #[must_use]
    pub fn new(start: Start, now: Time) -> Self {
        let Start { mut state, revision, instances, mut manifests, last, listening, image_problem } = start;
        state.epoch += 1;
        let mut clock = state.clock;
        if clock.steady_ms == 0 {
            clock.steady_ms = now.wall_ms;
        }
        let manifest = Arc::new(state.set.clone());
        manifests.insert(state.generation, Arc::clone(&manifest));
        let mut windows = SetWindows::new(observe::specs_of(&state));
        if let Some(last) = &last {
            windows.restore(&last.observation);
        }
        let gone = instances.iter().filter(|record| record.phase == Phase::Gone);
        Self {
            unstored: gone.map(|record| record.id).collect(),
            // As it is stored, which an earlier version may have done with fewer fields.
            manifest_digest: match state.manifests.get(&state.generation) {
                Some(digest) => digest.clone(),
                None => manifest_blob(&manifest).0,
            },
            watch: Arc::new(Watch::of(&manifest)),
            manifest,
            models: Models::of(&state, &manifests),
            manifests,
            instances: instances.into_iter().map(|record| (record.id, Instance::new(record))).collect(),
            windows,
            connection_rate: CounterRate::default(),
            refused: None,
            unserved: None,
            changes: Vec::new(),
            operator: Vec::new(),
            told: Vec::new(),
            resumed_ms: last.is_some().then_some(clock.lived_ms),
            last_decision: last.as_deref().map(crate::tick::last_decision),
            last,
            shadows: Shadows::default(),
            snapshot: SnapshotStatus::Off,
            image_problem,
            listening,
            listen_error: None,
            store_error: None,
            busy: Busy::Inventory,
            deferred: VecDeque::new(),
            state,
            revision,
            clock,
            now,
        }
    }

    /// Takes an input in.
    pub fn on(&mut self, now: Time, input: Input) -> Vec<Effect> {
        self.clock.advance(now.mono_ms.saturating_sub(self.now.mono_ms), now.wall_ms);
        self.now = Time { mono_ms: now.mono_ms.max(self.now.mono_ms), ..now };
        let mut effects = Vec::new();
        self.take(input, &mut effects);
        while matches!(self.busy, Busy::Idle)
            && let Some(input) = self.deferred.pop_front()
        {
            self.take(input, &mut effects);
        }
        effects
    }

    /// Whether it waits for something: a tick that is due now is skipped, a command waits.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !matches!(self.busy, Busy::Idle)
    }

    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) {
        if let Busy::Ended(error) = &self.busy {
            if let Input::Command { token, .. } = input {
                effects.push(Effect::Reply { token, result: Err(error.clone()) });
            }
            return;
        }
        match input {
            // What the machine waits for.
            Input::InventoryComplete => self.on_inventory_complete(effects),
            Input::Decided { tick, answers } => self.on_decided(tick, answers, effects),
            Input::Committed(result) => self.on_committed(result, effects),
            Input::Migrated(states) => self.on_migrated(states, effects),
            Input::Listening(result) => self.on_listening(result, effects),
            // What changes nothing that a tick under way rests on: its observation is frozen.
            Input::Resumed => self.on_resumed(),
            Input::Scraped(scrapes) => scrapes.iter().for_each(|scrape| self.on_scrape(scrape)),
            Input::Tick(facts) if !self.is_busy() => self.on_tick(*facts, effects),
            // A tick that comes while the one before is under way: the next one sees everything.
            Input::Tick(_) => {}
            Input::Report { id, report } if matches!(self.busy, Busy::Inventory) => {
                self.on_report(id, report)
            }
            later if self.is_busy() => self.deferred.push_back(later),
            Input::Report { id, report } => self.on_report(id, report),
            Input::Probed { id, event, detail } => self.on_probed(id, event, detail),
            Input::Shadow { tick, answer } => self.on_shadow(tick, *answer),
            Input::Snapshot(status) => self.on_snapshot(status),
            Input::Command { token, actor, command } => self.on_command(token, actor, command, effects),
        }
    }

    /// The end of this machine, which `last` tells. Commands that still wait are answered with `error`.
    fn end(&mut self, error: CommandError, last: Effect, effects: &mut Vec<Effect>) {
        for input in std::mem::take(&mut self.deferred) {
            if let Input::Command { token, .. } = input {
                effects.push(Effect::Reply { token, result: Err(error.clone()) });
            }
        }
        self.busy = Busy::Ended(error);
        effects.push(last);
    }

    fn moment(&self) -> Moment {
        Moment { wall_ms: self.now.wall_ms, lived_ms: self.clock.lived_ms }
    }

    /// A moment of the set's own clock on the clock that policies see.
    fn steady_of(&self, lived_ms: u64) -> u64 {
        self.clock.steady_ms.saturating_sub(self.clock.lived_ms.saturating_sub(lived_ms))
    }
}
