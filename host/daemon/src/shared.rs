//! What all sets of a daemon share.

use std::sync::Arc;
use std::time::Duration;

use regatta_core::batch::{Batch, Revision};
use regatta_core::event::Event;
use regatta_metrics::Exposition;
use regatta_policy_host::Engine;
use regatta_store::{RedbStore, Store, StoreError, Writer};
use regatta_traffic::Listeners;
use tokio::sync::Notify;

use crate::copies::Copies;
use crate::node::Node;
use crate::paths::DataDirs;
use crate::recordings::Recordings;
use crate::set::Watchdog;

/// What all sets of a daemon share.
pub(crate) struct Shared {
    /// Layout of the data directory.
    pub dirs: DataDirs,
    /// The file of the store.
    pub file: Arc<RedbStore>,
    /// Its copies.
    pub copies: Copies,
    /// Reads.
    pub store: Arc<dyn Store>,
    /// Writes; batches of many sets share a transaction.
    pub writer: Writer,
    /// Compiles and runs policies.
    pub policies: Engine,
    /// This host and what runs on it.
    pub(crate) node: Arc<Node>,
    /// Imported recordings.
    pub(crate) recordings: Recordings,
    /// Listening sockets that outlive this daemon.
    pub(crate) listeners: Arc<Listeners>,
    /// How long connections may take to finish when the daemon stops.
    pub(crate) shutdown_grace: Duration,
    /// The daemon's own metrics.
    pub exposition: Exposition,
    /// What an operator should know of VMMs that would run as root.
    pub(crate) root_vmms: Option<String>,
    /// Looks whether the sets' loops turn.
    pub(crate) watchdog: Watchdog,
    /// Rung on SIGHUP: what is read from files is read again.
    pub(crate) reload: Notify,
    /// Rung when events were written.
    pub events: Notify,
}

impl Shared {
    /// Stores a batch, and writes its events to the log: each once, when it is stored.
    pub(crate) async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let events = batch.history.events.clone();
        let revision = self.writer.commit(batch).await?;
        events.iter().for_each(log);
        Ok(revision)
    }
}

fn log(Event { set, kind, text, actor, .. }: &Event) {
    let (text, actor) = (text.as_str(), actor.as_str());
    if kind.is_trouble() {
        tracing::warn!(set, text, actor, "{kind}");
    } else {
        tracing::info!(set, text, actor, "{kind}");
    }
}
