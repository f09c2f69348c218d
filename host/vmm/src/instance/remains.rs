//! What dead instances leave behind, and its removal.

use super::dir::InstanceDir;
use super::error::DiscardError;
use super::launch::VmmHost;
use super::prepare::blocking;
use crate::net::NetworkError;
use regatta_util::Said;

impl VmmHost {
    /// Removes what is left of an instance whose VMM has ended: its network, its directory and its cgroup. With `failure`, its logs are kept first, with
    /// that text beside them. Nothing happens when nothing is left.
    ///
    /// # Errors
    /// A VMM still listens in the directory (nothing was touched then), or the system refused.
    pub async fn discard(&self, dir: &InstanceDir, failure: Option<&Said>) -> Result<(), DiscardError> {
        let (this, dir) = (self.clone(), dir.clone());
        let failure = failure.cloned();
        blocking(move || {
            let failed = |source| DiscardError::Dir { id: dir.id().to_owned(), source };
            dir.check_unused().map_err(failed)?;
            if let Some(failure) = failure {
                this.failed.keep(&dir, &failure);
            }
            if let Some(cgroups) = &this.cgroups {
                cgroups.forget(&dir.flat_name());
            }
            let network = this.network.tear_down(&dir);
            network.map_err(|source| DiscardError::Network { id: dir.id().to_owned(), source })?;
            dir.remove().map_err(failed)
        })
        .await
    }

    /// Removes from the host's network what is left of instances of this data directory that are not among `known`: interfaces, rules about
    /// them, and the table and the managed bridges that nobody uses any more. Returns what was removed, in words. Instances that this
    /// `VmmHost` is launching, or has launched, need not be named.
    ///
    /// # Errors
    /// The system refused.
    pub async fn sweep_network(&self, known: &[InstanceDir]) -> Result<Vec<String>, NetworkError> {
        let (network, known) = (self.network.clone(), known.to_vec());
        blocking(move || network.sweep(&known)).await
    }
}
