//! The agent of a node: makes what owners want of its instances exist, within what the node has. Pure.
//!
//! Owners write what they want ([`Want`]); the agent compares it with what it has, admits or refuses by its own ledger, gives
//! the address, and orders launches and stops ([`Effect`]); it reports what became of them ([`Report`]). Wants may come late,
//! repeatedly or not at all: what nobody wants any more is kept, for absence is never an order to stop.

mod addresses;
mod ledger;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::{Demand, HostRoom};
use crate::manifest::{GuestMetric, Health, Network, ScaleSet};
use crate::mutant::{self, Mutant};
use crate::node::Placement;
use crate::phase::Phase;
use crate::record::NodeCapacity;
use crate::state::VmmProcessId;

pub use self::addresses::AddressBook;
pub use self::ledger::Ledger;

/// Who an instance is, on the node that runs it. Written into the instance's own directory before anything else, so that a
/// running VM can always be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of its set.
    pub set: String,
    /// Ordinal within the set.
    pub id: u32,
    /// Unique over all sets and times.
    pub uid: String,
    /// Epoch of the owner that created it.
    pub epoch: u64,
    /// Generation of the manifest that it is made from.
    pub generation: u64,
    /// When it was first wanted, Unix milliseconds.
    pub created_ms: u64,
    /// Where the host reaches the guest; 0.0.0.0 without a network.
    pub address: Ipv4Addr,
}

/// An instance, among all sets of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Name of the set.
    pub set: Arc<str>,
    /// Ordinal within the set.
    pub id: u32,
}

/// What the owner of an instance wants of it. Repeating a want changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// Ordinal within the set.
    pub id: u32,
    /// Unique over all sets and times.
    pub uid: String,
    /// Epoch of the owner that created it.
    pub epoch: u64,
    /// Generation of the manifest that it is made from.
    pub generation: u64,
    /// When it was first wanted, Unix milliseconds.
    pub created_ms: u64,
    /// Number of the restart of its guest that is wanted; the same number means the same restart. None when none is due.
    pub restart: Option<u32>,
    /// What is wanted.
    pub order: Order,
}

/// What is wanted of an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// It shall run. Only one that is still `Pending` is ever launched: of any other, what runs is kept and what does not run
    /// is reported.
    Run {
        /// As far as its owner knows.
        phase: Phase,
        /// The manifest that it is made from.
        manifest: Arc<ScaleSet>,
        /// What is asked of its guest while it runs.
        watch: Arc<Watch>,
    },
    /// It shall end, and everything of it shall go.
    Stop(StopOrder),
}

/// How an instance ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopOrder {
    /// How long its guest may take to shut down, milliseconds.
    pub grace_ms: u64,
    /// What was wrong with it: its logs are kept with this text.
    pub failure: Option<String>,
}

/// What is asked of a guest while it runs, from the manifest in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// How it is probed.
    pub health: Health,
    /// Which metrics are scraped.
    pub metrics: Vec<GuestMetric>,
    /// How often they are, milliseconds.
    pub scrape_interval_ms: u64,
}

impl Watch {
    /// What this manifest asks of every guest.
    #[must_use]
    pub fn of(set: &ScaleSet) -> Self {
        Self { health: set.health.clone(), metrics: set.metrics.clone(), scrape_interval_ms: set.tick_ms }
    }
}

/// What became of an instance, told to its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The node runs it, at this address.
    Admitted {
        /// Where the host reaches the guest; 0.0.0.0 without a network.
        address: Ipv4Addr,
    },
    /// The node does not run it.
    Refused {
        /// Why.
        why: String,
    },
    /// Its launch has begun.
    LaunchStarted,
    /// Its guest boots.
    Booted(Running),
    /// It could not be launched, and nothing of it runs.
    LaunchFailed {
        /// Why.
        why: String,
    },
    /// Its VMM ended unasked.
    Exited {
        /// How.
        why: String,
    },
    /// Its guest's kernel panicked.
    GuestPanicked,
    /// Its guest rebooted itself.
    GuestRebooted,
    /// Its guest could not be restarted; the next want is the retry.
    NotRestarted {
        /// Why.
        why: String,
    },
    /// How far its VMM's events have been taken in, bytes.
    EventsRead {
        /// Offset in the file of events.
        bytes: u64,
    },
    /// It cannot be removed yet; that is tried again.
    Stuck {
        /// Why.
        why: String,
    },
    /// Nothing of it is left.
    Cleaned {
        /// What there is to say about its end.
        note: Option<String>,
    },
    /// What the agent found when it was started again.
    Found(Found),
}

/// A guest that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Its VMM's process, when it is known.
    pub process: Option<VmmProcessId>,
    /// How it came to run, see [`crate::state::InstanceRecord::start`]; none when it is not known.
    pub start: Option<String>,
    /// In which ways its VMM is not contained.
    pub not_contained: Vec<String>,
}

/// What an agent that was started again found of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its guest runs.
    Running(Running),
    /// Its process is there and cannot be asked: it is just starting, or its socket is gone.
    Unreachable(Running),
    /// A VMM whose guest never came to run, or has ended.
    HalfMade,
    /// No process.
    Nothing,
}

impl Found {
    /// Whether there is a process.
    #[must_use]
    pub fn has_process(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

/// What an agent has of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    /// It was refused; nothing of it exists.
    Refused {
        /// Why.
        why: String,
    },
    /// It is being made, runs, or has ended and waits for the order to remove it.
    Held,
    /// It is being removed.
    Stopping,
    /// Nothing of it is left; kept until its owner knows.
    Cleaned {
        /// What there is to say about its end.
        note: Option<String>,
    },
}

/// What reaches an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// An owner wants this.
    Want {
        /// What.
        want: Want,
        /// What the instance takes of the node.
        demand: Demand,
        /// Disk space that is left, bytes.
        disk_left_bytes: u64,
    },
    /// The owner knows that nothing of the instance is left.
    Forget,
    /// What the agent, started again, found of an instance that its owner knows.
    Found {
        /// What.
        found: Found,
        /// Its address, when one is known.
        address: Option<Ipv4Addr>,
        /// What it takes of the node.
        demand: Demand,
    },
    /// What became of an instance.
    News(Report),
}

/// What an agent has done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the instance, then watch it.
    Launch {
        /// Who it is.
        identity: Identity,
        /// The manifest that it is made from.
        manifest: Arc<ScaleSet>,
    },
    /// End the instance, and remove everything of it. Also when nothing of it runs.
    Stop {
        /// Which.
        key: Key,
        /// How.
        order: StopOrder,
    },
    /// Restart its guest within its VMM. The end of that is in the VMM's events.
    Restart {
        /// Which.
        key: Key,
        /// Number of the restart.
        number: u32,
    },
    /// Probe and scrape it from now on, in the place of what was before.
    Watch {
        /// Which.
        key: Key,
        /// Where the host reaches the guest.
        address: Ipv4Addr,
        /// Where its probes begin.
        phase: Phase,
        /// What is asked.
        watch: Arc<Watch>,
        /// The network that it is made for.
        network: Network,
    },
    /// Neither probe nor scrape it any more.
    Unwatch {
        /// Which.
        key: Key,
    },
    /// Tell its owner.
    Report {
        /// Of which.
        key: Key,
        /// What.
        report: Report,
    },
}

/// The agent of one node.
#[derive(Debug, Clone)]
pub struct Agent {
    placement: Placement,
    ledger: Ledger,
    addresses: AddressBook,
    instances: BTreeMap<Key, Instance>,
}

/// An instance on its node.
#[derive(Debug, Clone)]
struct Instance {
    have: Have,
    address: Option<Ipv4Addr>,
    /// Its guest runs, as far as is known.
    runs: bool,
    /// The last want, if one came since the agent was started.
    want: Option<Want>,
    /// What is asked of it now.
    watched: Option<Arc<Watch>>,
    /// The last restart that was ordered.
    restarted: Option<u32>,
}

impl Agent {
    /// The agent of a node that has this for instances.
    #[must_use]
    pub fn new(placement: Placement, host: HostRoom) -> Self {
        Self {
            placement,
            ledger: Ledger::new(host),
            addresses: AddressBook::default(),
            instances: BTreeMap::new(),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// What the node has for more instances like this, up to `wanted`.
    #[must_use]
    pub fn capacity(
        &self,
        demand: Demand,
        network: &Network,
        wanted: u32,
        disk_left_bytes: u64,
    ) -> NodeCapacity {
        let (launches, shortage) = self.ledger.room(demand, wanted, disk_left_bytes);
        let addresses = self.addresses.left(network);
        let why = if addresses < launches {
            Some(NO_ADDRESS.to_owned())
        } else {
            shortage.map(|shortage| shortage.to_string())
        };
        NodeCapacity {
            placement: self.placement.clone(),
            launches: launches.min(addresses),
            why: why.map(Into::into),
        }
    }

    /// What the agent has of an instance.
    #[must_use]
    pub fn have(&self, key: &Key) -> Option<&Have> {
        self.instances.get(key).map(|instance| &instance.have)
    }

    /// Its instances that may have a VM: admitted or found, and not removed yet.
    pub fn held(&self) -> impl Iterator<Item = (&Key, Option<Ipv4Addr>)> {
        let held = self.instances.iter().filter(|(_, it)| matches!(it.have, Have::Held | Have::Stopping));
        held.map(|(key, instance)| (key, instance.address))
    }

    /// Forgets what has ended of a set, but for instances that its owner still knows: the owner that would have told may have
    /// lost its memory.
    pub fn forget_ended(&mut self, set: &str, known: impl Fn(u32) -> bool) {
        self.instances.retain(|key, instance| *key.set != *set || known(key.id) || !instance.has_ended());
    }

    /// Takes what an instance apart from those of owners needs, such as the template of a snapshot.
    ///
    /// # Errors
    /// Why the node cannot have it.
    pub fn take_apart(
        &mut self,
        key: Key,
        network: &Network,
        demand: Demand,
        disk_left_bytes: u64,
    ) -> Result<Ipv4Addr, String> {
        let address = self.take(&key, network, demand, disk_left_bytes)?;
        self.instances.insert(key, Instance { address: Some(address), ..Instance::held() });
        Ok(address)
    }

    /// Counts a VM that no owner knows, whatever the node has left: what it takes is given to nobody else until it is given
    /// back, or found again on behalf of an owner.
    pub fn keep_orphan(&mut self, key: Key, address: Option<Ipv4Addr>, demand: Demand) {
        self.ledger.claim(&key, demand);
        address.into_iter().for_each(|address| self.addresses.claim(address));
        self.instances.insert(key, Instance { address, runs: true, ..Instance::held() });
    }

    /// Gives back what [`Self::take_apart`] took or [`Self::keep_orphan`] counts.
    pub fn give_back(&mut self, key: &Key) {
        self.release(key);
        self.instances.remove(key);
    }

    fn take(
        &mut self,
        key: &Key,
        network: &Network,
        demand: Demand,
        disk_left_bytes: u64,
    ) -> Result<Ipv4Addr, String> {
        self.ledger.take(key, demand, disk_left_bytes).map_err(|shortage| shortage.to_string())?;
        self.addresses.take(network).ok_or_else(|| {
            self.ledger.release(key);
            NO_ADDRESS.to_owned()
        })
    }

    fn release(&mut self, key: &Key) {
        if !mutant::is(Mutant::LeakCapacity) {
            self.ledger.release(key);
        }
        if let Some(address) = self.instances.get_mut(key).and_then(|instance| instance.address.take()) {
            self.addresses.release(address);
        }
    }
}

/// Why a node without a free address refuses.
const NO_ADDRESS: &str = "no free address in the set's pool";
