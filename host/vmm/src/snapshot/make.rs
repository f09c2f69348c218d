//! Making a snapshot of a running instance, which ends with it.

use std::time::Duration;

use super::store::Parts;
use super::{GoldenSnapshot, RootFacts, SnapshotError, SnapshotKey, SnapshotStore};
use crate::instance::{
    LaunchSpec, StartFrom, StopHow, Vmm, VmmHost, blocking, planned_root, root_size_bytes,
};
use crate::process::VmmExit;

impl VmmHost {
    /// Makes a snapshot of an instance that was launched with [`StartFrom::BootForSnapshot`]: pauses its guest, has the VMM write it down
    /// within `within`, and ends the VMM. Its memory and its disk go into `store`; the rest of its directory is the caller's to remove,
    /// also after a failure ([`Vmm::stop`]).
    ///
    /// # Errors
    /// The VMM refused, could not be ended without force, or left something else than it should; or the file system refused.
    pub async fn snapshot(
        &self,
        vmm: &Vmm,
        spec: &LaunchSpec,
        key: &SnapshotKey,
        store: &SnapshotStore,
        within: Duration,
    ) -> Result<GoldenSnapshot, SnapshotError> {
        let id = || spec.id.clone();
        if !matches!(spec.start, StartFrom::BootForSnapshot) {
            return Err(SnapshotError::NotATemplate { id: id() });
        }
        let api = |source| SnapshotError::Api { id: id(), source };
        vmm.pause().await.map_err(api)?;
        let written = spec.dir.snapshot();
        vmm.client().snapshot(&written, within).await.map_err(api)?;
        // A hard stop of the VM: the VMM writes what it holds of the disk, and the paused guest does not notice.
        let stopped =
            vmm.end(Duration::ZERO).await.map_err(|source| SnapshotError::Stop { id: id(), source })?;
        if (stopped.how, stopped.exit) != (StopHow::Terminated, VmmExit::Code(0)) {
            return Err(SnapshotError::Forced { id: id() });
        }
        let root = planned_root(spec).zip(root_size_bytes(spec)).map(|(disk, virtual_size_bytes)| {
            (disk.path, RootFacts { format: disk.format, virtual_size_bytes })
        });
        let parts = Parts { written, root, vmm_version: self.binary.version().to_owned() };
        let (store, set, key) = (store.clone(), spec.dir.set().to_owned(), key.clone());
        blocking(move || store.take(&set, &key, parts)).await
    }
}
