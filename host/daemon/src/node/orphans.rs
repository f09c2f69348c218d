//! VMs and instance directories that no stored set knows: counted, and ended only by an operator's order.

use std::sync::Arc;
use std::time::Duration;

use regatta_core::admission::Demand;
use regatta_core::agent::Key;
use regatta_core::orphan::Why;
use regatta_core::recovery::{Birth, Candidate};
use regatta_vmm::{Adoption, InstanceDir, Stopped, VmmIdentity};
use serde::{Deserialize, Serialize};

use super::Node;
use regatta_util::chain;

/// A VM, or the directory of one, that no stored set knows.
#[derive(Debug, Clone)]
pub(crate) struct Orphan {
    pub dir: InstanceDir,
    /// Who it is and what it is made of, when that can be read.
    pub birth: Option<Birth>,
    /// Its VMM; none when nothing runs.
    pub process: Option<VmmIdentity>,
    pub why: Why,
    /// When it was found first, Unix milliseconds.
    pub since_ms: u64,
}

/// What its directory says of an orphan, for later daemons.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    since_ms: u64,
    why: Why,
}

impl Orphan {
    /// `SET/ID`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.dir.set(), self.dir.id())
    }

    /// Under which the node counts it. Directories without a number cannot meet those of instances: no set's name has a slash.
    fn key(&self) -> Key {
        match self.dir.id().parse() {
            Ok(id) => Key { set: self.dir.set().into(), id },
            Err(_) => Key { set: Arc::from(self.name()), id: 0 },
        }
    }
}

impl Node {
    /// Takes an orphan up: its directory says so from now on, and what it takes is given to nobody else. Returns whether it is
    /// one for the first time.
    pub(crate) async fn keep_orphan(
        &self,
        dir: InstanceDir,
        birth: Option<Birth>,
        process: Option<VmmIdentity>,
        why: Why,
        now_ms: u64,
    ) -> (Orphan, bool) {
        let noted: Option<Note> =
            dir.orphan().ok().flatten().and_then(|note| serde_json::from_str(&note).ok());
        let since_ms = noted.as_ref().map_or(now_ms, |note| note.since_ms.min(now_ms));
        let orphan = Orphan { dir, birth, process, why, since_ms };
        let note = serde_json::to_string(&Note { since_ms, why }).unwrap_or_default();
        if let Err(error) = orphan.dir.note_orphan(&note) {
            tracing::warn!(
                orphan = orphan.name(),
                error = chain(&error),
                "its directory does not say that it is one"
            );
        }
        if orphan.process.is_some() {
            let demand = self.demand_of_orphan(&orphan).await;
            let address = orphan.birth.as_ref().map(|birth| birth.identity.address);
            self.agent().keep_orphan(orphan.key(), address, demand);
        }
        (orphan, noted.is_none())
    }

    /// What an orphan takes, as its VMM says, or else its process.
    async fn demand_of_orphan(&self, orphan: &Orphan) -> Demand {
        let vmm = match self.vmms.adopt(&orphan.dir, orphan.process.as_ref()).await {
            Ok(Adoption::Adopted(adopted)) => adopted.vmm,
            Ok(_) => return Demand::default(),
            Err(error) => {
                tracing::warn!(orphan = orphan.name(), error = chain(&error), "what it takes cannot be told");
                return Demand::default();
            }
        };
        let (memory_bytes, vcpus) = match vmm.size().await {
            Ok(Some(size)) => size,
            _ => (vmm.rss_bytes().unwrap_or(0), 1),
        };
        Demand { memory_bytes, vcpus, ..Demand::default() }
    }

    /// What may become of an orphan. Blocking.
    pub(crate) fn candidate(&self, orphan: &Orphan) -> Candidate {
        let origin = match &orphan.birth {
            Some(birth) => self.origins.read(&birth.origin),
            None => Err("its directory does not say who it is".to_owned()),
        };
        Candidate {
            id: orphan.dir.id().to_owned(),
            identity: orphan.birth.as_ref().map(|birth| birth.identity.clone()),
            origin,
            runs: orphan.process.is_some(),
        }
    }

    /// An orphan's VMM has ended, or it is no longer one: what it took is free.
    pub(crate) fn give_orphan_back(&self, orphan: &Orphan) {
        self.agent().give_back(&orphan.key());
    }

    /// Ends an orphan and removes everything of it. Returns how it ended.
    ///
    /// # Errors
    /// Why it stays.
    pub(crate) async fn remove_orphan(&self, orphan: &Orphan, grace: Duration) -> Result<String, String> {
        let adoption =
            self.vmms.adopt(&orphan.dir, orphan.process.as_ref()).await.map_err(|why| chain(&why))?;
        let how = match adoption {
            Adoption::Adopted(adopted) => {
                let Stopped { how, .. } = adopted.vmm.stop(grace).await.map_err(|why| chain(&why))?;
                super::driver::told(how)
            }
            Adoption::Gone => {
                self.vmms.discard(&orphan.dir, None).await.map_err(|why| chain(&why))?;
                "nothing was running"
            }
            Adoption::Stranger { pid, why } => {
                return Err(format!("process {pid} is in its place: {why}"));
            }
        };
        self.give_orphan_back(orphan);
        Ok(how.to_owned())
    }
}
