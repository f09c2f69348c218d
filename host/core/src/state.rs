//! What the daemon remembers across restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::decision::PolicyFailure;
use crate::digest::Digest;
use crate::event::PolicyRef;
use crate::guard::GuardMemory;
use crate::manifest::ScaleSet;
use crate::metrics::MetricWish;
use crate::node::Placement;
use crate::phase::{IllegalTransition, InstanceEvent, Phase, step};
use crate::plan::RepairMemory;
use crate::protection::Protection;
use crate::record::InstanceChange;
use crate::requested::Requested;
use crate::set_process::SetProcess;
use crate::sizing::Sizing;
use crate::time::SetClock;
use crate::upgrade::Upgrade;
use regatta_util::Said;

/// A scale set as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetState {
    /// The manifest in force.
    pub set: ScaleSet,
    /// Counts the manifests of this set, from 1.
    pub generation: u64,
    /// When the manifest in force replaced another, on the set's own clock; none while it is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_ms: Option<u64>,
    /// Capacity in force.
    pub desired: u32,
    /// The first instance id that was never used.
    pub next_instance_id: u32,
    /// Number of the last tick.
    pub last_tick: u64,
    /// Being deleted: everything goes, then the set itself.
    pub deleting: bool,
    /// The policies that decide, in the order of the manifest.
    pub policies: Vec<PolicySlot>,
    /// Policies that are judged beside them and never applied.
    #[serde(default)]
    pub shadows: Vec<ShadowPolicy>,
    /// Activations so far; the next one has this number plus one.
    pub activations: u64,
    /// Launches that failed since the last instance came into service.
    pub launch_failures_in_a_row: u32,
    /// No launch before this moment on the set's own clock, [`SetClock::lived_ms`]; 0 for none.
    pub launches_resume_ms: u64,
    /// How many times in a row a new instance died soon after it was launched, though it had been in service.
    #[serde(default)]
    pub early_deaths: u32,
    /// What the last launch that failed, or the last early death, came to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub launch_failure: String,
    /// When the last early death was counted, on the set's own clock.
    #[serde(default)]
    pub early_death_ms: u64,
    /// Digests of the golden image, as imported.
    pub image: ImageDigests,
    /// Tells this set from an earlier one of the same name; drawn at random when it is created.
    #[serde(default)]
    pub incarnation: u64,
    /// Counts the owners of this set, from 1: each daemon that takes it over has the next one.
    #[serde(default)]
    pub epoch: u64,
    /// Its clocks at the last commit.
    #[serde(default)]
    pub clock: SetClock,
    /// What the guards remember.
    #[serde(default)]
    pub guard_memory: GuardMemory,
    /// What repair remembers.
    #[serde(default, skip_serializing_if = "RepairMemory::is_empty")]
    pub repair: RepairMemory,
    /// What it does not do by itself, because an operator suspended it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub suspended: BTreeSet<SetProcess>,
    /// The manifests that live instances were made from, by generation: SHA-256 of each as JSON.
    #[serde(default)]
    pub manifests: BTreeMap<u64, Digest>,
    /// What instances of each of these generations start from; not of those that an earlier version applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<u64, ImageDigests>,
    /// The upgrade that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
    /// What operators said about its size.
    #[serde(default, skip_serializing_if = "Sizing::is_empty")]
    pub sizing: Sizing,
}

/// A place among the policies of a set, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySlot {
    /// Name of the place, as the manifest gives it.
    pub name: String,
    /// The policy that decides.
    pub active: PolicyActivation,
    /// The one before it, for a rollback.
    pub previous: Option<PolicyActivation>,
    /// Those before that one, the latest first: what further rollbacks go back to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<PolicyActivation>,
    /// The one that acts in its stead within bounds, on trial.
    pub canary: Option<CanaryPolicy>,
}

/// Policies before the previous one that a slot keeps ready.
const EARLIER_MAX: usize = 7;

impl PolicySlot {
    /// Another policy takes over; the active one becomes the previous one.
    pub fn take_over(&mut self, to: PolicyActivation) {
        let from = std::mem::replace(&mut self.active, to);
        if let Some(before) = self.previous.replace(from) {
            self.earlier.insert(0, before);
            self.earlier.truncate(EARLIER_MAX);
        }
        self.canary = None;
    }

    /// The policies that a rollback can go back to, the latest first.
    pub fn past(&self) -> impl Iterator<Item = &PolicyActivation> {
        self.previous.iter().chain(&self.earlier)
    }

    /// Goes back to the policy at `index` of [`past`](Self::past), which is active as `to` now. What came after it is
    /// forgotten, so that the next rollback goes further back.
    pub fn go_back(&mut self, index: usize, to: PolicyActivation) {
        self.active = to;
        let mut rest = self.past().skip(index + 1).cloned().collect::<Vec<_>>().into_iter();
        self.previous = rest.next();
        self.earlier = rest.collect();
        self.canary = None;
    }
}

/// A policy on trial: it acts, but never far from what the active one wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryPolicy {
    /// The policy.
    pub activation: PolicyActivation,
    /// How many instances it may be away from the active one.
    pub within: u32,
}

/// A policy that is judged and never applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowPolicy {
    /// The place that it would take.
    pub slot: String,
    /// The policy.
    pub activation: PolicyActivation,
    /// Why it returned no decision when it was last asked, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<PolicyFailure>,
}

impl SetState {
    /// The place of that name among the policies.
    #[must_use]
    pub fn slot(&self, name: &str) -> Option<&PolicySlot> {
        self.policies.iter().find(|slot| slot.name == name)
    }

    /// Every policy that the set may still need: active, previous, on trial, judged.
    pub fn activations_kept(&self) -> impl Iterator<Item = &PolicyActivation> {
        let slots = self.policies.iter().flat_map(|slot| {
            std::iter::once(&slot.active)
                .chain(slot.past())
                .chain(slot.canary.as_ref().map(|canary| &canary.activation))
        });
        slots.chain(self.shadows.iter().map(|shadow| &shadow.activation))
    }
}

impl SetState {
    /// As [`Self::activations_kept`], to be changed.
    pub fn activations_kept_mut(&mut self) -> impl Iterator<Item = &mut PolicyActivation> {
        let slots = self.policies.iter_mut().flat_map(|slot| {
            std::iter::once(&mut slot.active)
                .chain(&mut slot.previous)
                .chain(&mut slot.earlier)
                .chain(slot.canary.as_mut().map(|canary| &mut canary.activation))
        });
        slots.chain(self.shadows.iter_mut().map(|shadow| &mut shadow.activation))
    }
}

/// A policy that is or was active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyActivation {
    /// Counts the activations of this set, from 1; a state computed under an
    /// older one is dropped.
    pub number: u64,
    /// SHA-256 of the module; its bytes are in the store under this key.
    pub digest: Digest,
    /// Name, as the module describes itself.
    pub name: Said,
    /// Version, likewise.
    pub version: Said,
    /// Where it came from: the manifest's module, or the file of a swap.
    pub source: Said,
    /// Parameters, as JSON text.
    pub params: String,
    /// Version of the state's shape.
    pub state_version: u32,
    /// State for the next decision, base64.
    pub state: String,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// The metrics that it asks for, with its parameters.
    #[serde(default)]
    pub wishes: Vec<MetricWish>,
}

impl PolicyActivation {
    /// Whether the state that `other` left has the shape that this one reads.
    #[must_use]
    pub fn reads_state_of(&self, other: &Self) -> bool {
        self.name == other.name && self.state_version == other.state_version
    }
}

/// Digests of what an instance starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDigests {
    /// Golden disk.
    pub disk: Option<Digest>,
    /// Kernel.
    pub kernel: Option<Digest>,
    /// Initial RAM disk.
    pub initramfs: Option<Digest>,
    /// Firmware.
    pub firmware: Option<Digest>,
    /// Shared disks, in the manifest's order.
    #[serde(default)]
    pub shared_disks: Vec<Digest>,
    /// Kernel command line of a named image; none takes the manifest's.
    pub cmdline: Option<String>,
}

/// The unique id of an instance: no other one of any set and any time has it.
#[must_use]
pub fn instance_uid(incarnation: u64, id: u32) -> String {
    format!("{incarnation:016x}-{id}")
}

/// An instance as it is stored. Written before anything is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Ordinal within the set.
    pub id: u32,
    /// Unique over all sets and times: the set's incarnation and the ordinal. Empty when an earlier version made it.
    #[serde(default)]
    pub uid: String,
    /// Where it is.
    #[serde(default)]
    pub placement: Placement,
    /// Epoch of the owner that created it.
    #[serde(default)]
    pub epoch: u64,
    /// Phase of its life.
    #[serde(rename = "state")]
    pub phase: Phase,
    /// When it entered that phase, Unix milliseconds.
    #[serde(rename = "state_since_ms")]
    pub phase_since_ms: u64,
    /// The same moment on the set's own clock, [`SetClock::lived_ms`].
    #[serde(default)]
    pub phase_since_lived_ms: u64,
    /// When it was first wanted, Unix milliseconds.
    pub created_ms: u64,
    /// The same moment on the set's own clock.
    #[serde(default)]
    pub created_lived_ms: u64,
    /// Since when its guest boots, on the set's own clock: since it was wanted, or since its last reboot.
    #[serde(default)]
    pub boot_since_lived_ms: u64,
    /// Generation of the manifest that it is made from.
    pub generation: u64,
    /// Address of the guest; none until its node has given it one.
    pub address: Option<Ipv4Addr>,
    /// What it is protected from.
    #[serde(rename = "protected")]
    pub protection: Protection,
    /// A repair made or restarted it, and it has not shown yet that this helped.
    #[serde(default)]
    pub repaired: bool,
    /// What is asked for it and not done yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Requested>,
    /// How many restarts of its guest its node was told.
    #[serde(default)]
    pub restarts: u32,
    /// Was in service at least once.
    pub served: bool,
    /// Its VMM process, once known.
    pub vmm: Option<VmmProcessId>,
    /// What there is to say about its phase.
    pub detail: Option<Said>,
    /// In which ways its VMM is not contained, because the host does not allow them: `own-user`, `cgroup`, … With ` (requested)` at the end:
    /// the VMM was asked, and nobody can see whether it complied.
    #[serde(default)]
    pub not_contained: Vec<String>,
    /// When its guest last rebooted itself, Unix milliseconds; 0 for never.
    #[serde(default)]
    pub rebooted_ms: u64,
    /// How far its VMM's events have been taken in, bytes.
    #[serde(default)]
    pub events_read_bytes: u64,
    /// How it came to run: `cold`, `restored (copy)`, `restored (on-demand)`, or `cold: ` and why not restored.
    /// None before, and when an earlier version started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
}

/// A moment on both clocks of a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock, Unix milliseconds: what people read.
    pub wall_ms: u64,
    /// [`SetClock::lived_ms`]: what durations are measured on.
    pub lived_ms: u64,
}

impl InstanceRecord {
    /// An instance that is wanted and of which nothing exists yet.
    #[must_use]
    pub fn pending(id: u32, at: Moment, generation: u64) -> Self {
        Self {
            id,
            uid: String::new(),
            placement: Placement::default(),
            epoch: 0,
            phase: Phase::Pending,
            phase_since_ms: at.wall_ms,
            phase_since_lived_ms: at.lived_ms,
            created_ms: at.wall_ms,
            created_lived_ms: at.lived_ms,
            boot_since_lived_ms: at.lived_ms,
            generation,
            address: None,
            protection: Protection::None,
            repaired: false,
            requested: None,
            restarts: 0,
            served: false,
            vmm: None,
            detail: None,
            not_contained: Vec::new(),
            rebooted_ms: 0,
            events_read_bytes: 0,
            start: None,
        }
    }

    /// Lets an event meet the phase. None when it is old news.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event means nothing in this phase; the
    /// record stays as it is.
    pub fn meet(
        &mut self,
        event: InstanceEvent,
        at: Moment,
        detail: Option<Said>,
    ) -> Result<Option<InstanceChange>, IllegalTransition> {
        let from = self.phase;
        let to = step(from, event)?;
        if to == from {
            return Ok(None);
        }
        self.phase = to;
        self.phase_since_ms = at.wall_ms;
        self.phase_since_lived_ms = at.lived_ms;
        self.served |= to == Phase::InService;
        if matches!(event, InstanceEvent::GuestRebooted | InstanceEvent::Restarted) {
            self.rebooted_ms = at.wall_ms;
            self.boot_since_lived_ms = at.lived_ms;
        }
        self.detail.clone_from(&detail);
        Ok(Some(InstanceChange { id: self.id, at_ms: at.wall_ms, event, from, to, detail }))
    }
}

/// A process, told apart from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmProcessId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start_time_ticks: u64,
}

impl PolicyActivation {
    /// What events say of it.
    #[must_use]
    pub fn as_ref_in(&self, slot: &str) -> PolicyRef {
        PolicyRef {
            slot: slot.to_owned(),
            name: self.name.clone(),
            version: self.version.clone(),
            digest: self.digest.clone(),
            source: self.source.clone(),
            activation: self.number,
            params: self.params.clone(),
        }
    }
}
