//! What all sets of a daemon share.

use std::sync::Arc;

use regatta_metrics::Exposition;
use regatta_policy_host::Engine;
use regatta_store::{Store, Writer};
use regatta_traffic::WatchRuntime;
use regatta_vmm::{ImageStore, SnapshotStore, VmmHost};
use tokio::sync::Notify;

use crate::addresses::AddressBook;
use crate::host_ledger::HostLedger;
use crate::paths::DataDirs;

/// No tick sooner after the last one than this, whatever a policy wishes.
pub(crate) const TICK_MIN_MS: u64 = 20;

/// What all sets of a daemon share.
pub(crate) struct Shared {
    /// Layout of the data directory.
    pub dirs: DataDirs,
    /// Reads.
    pub store: Arc<dyn Store>,
    /// Writes; batches of many sets share a transaction.
    pub writer: Writer,
    /// Compiles and runs policies.
    pub policies: Engine,
    /// Launches and adopts VMMs.
    pub vmms: Arc<VmmHost>,
    /// Golden images by digest.
    pub images: ImageStore,
    /// Snapshots that instances go on from.
    pub snapshots: SnapshotStore,
    /// The thread that probes and scrapes all instances.
    pub(crate) watching: WatchRuntime,
    /// Guest addresses in use.
    pub addresses: AddressBook,
    /// What instances take of the host.
    pub(crate) ledger: HostLedger,
    /// The daemon's own metrics.
    pub exposition: Exposition,
    /// Rung when events were written.
    pub events: Notify,
}
