//! Networks of instances on this host: made before the VMM starts, removed with the instance.
//!
//! Nothing is touched that is not ours: interfaces are known by their alias, the table in the host's namespace by its name.

mod bridged;
mod error;
mod isolated;
#[allow(clippy::disallowed_methods, reason = "/proc/sys and /dev/net/tun")]
mod links;
mod nft;
mod plan;
mod port_rules;
mod ports;
mod reach;
mod recorded;
mod rules;
#[allow(clippy::disallowed_methods, reason = "/proc/thread-self")]
mod space;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use error::NetworkError;
use tokio::sync::{Mutex, MutexGuard};

use self::links::Links;
use self::plan::{INNER_TAP, LinkRules, Names, Record};
use self::recorded::Recorded;
pub(crate) use self::space::Namespace;
use self::table::Table;
use crate::instance::{BridgedNetwork, InstanceDir, IsolatedNetwork, NETWORK, NetworkSpec};

/// The networks of the instances of one data directory. Clones share them.
///
/// Works in the network namespace of the thread that made it, whichever thread it is used on.
#[derive(Clone, Debug)]
pub struct HostNetwork(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    names: Names,
    outer: Option<Namespace>,
    /// Also held while a managed bridge is given a port, or is removed for want of one.
    table: Mutex<Table>,
}

impl HostNetwork {
    /// For the instances below `data`, an absolute path. Needs no permission, and changes nothing.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self(Arc::new(Inner {
            names: Names::new(data),
            outer: Namespace::current().ok(),
            table: Mutex::default(),
        }))
    }

    /// The tap that the VMM of an instance opens, and the guest's hardware address on it.
    pub(crate) fn device<'a>(&self, spec: &'a NetworkSpec) -> Option<(&'static str, &'a str)> {
        match spec {
            NetworkSpec::None | NetworkSpec::Host => None,
            NetworkSpec::Isolated(IsolatedNetwork { mac, .. })
            | NetworkSpec::Bridged(BridgedNetwork { mac, .. }) => Some((INNER_TAP, mac)),
        }
    }

    /// Makes an instance's network; user `owner` may open its tap. What an earlier try left behind is removed first. Blocking.
    ///
    /// # Errors
    /// The first step that failed; what was made is removed again.
    pub(crate) fn set_up(
        &self,
        dir: &InstanceDir,
        spec: &NetworkSpec,
        owner: Option<u32>,
        cancelled: &AtomicBool,
    ) -> Result<Attachment, NetworkError> {
        self.set_up_in_steps(dir, spec, owner, &mut Steps { cancelled, seen: &mut |_| Ok(()) })
    }

    fn set_up_in_steps(
        &self,
        dir: &InstanceDir,
        spec: &NetworkSpec,
        owner: Option<u32>,
        steps: &mut Steps<'_>,
    ) -> Result<Attachment, NetworkError> {
        let record = match spec {
            NetworkSpec::None => return Ok(Attachment { namespace: self.empty_namespace(), made: None }),
            NetworkSpec::Host => return Ok(Attachment { namespace: None, made: None }),
            NetworkSpec::Isolated(spec) => {
                plan::check_isolated(spec)?;
                Record::of_isolated(self.names(), spec)
            }
            NetworkSpec::Bridged(spec) => {
                plan::check_bridged(spec)?;
                Record::of_bridged(self.names(), spec)
            }
        };
        let alias = self.names().alias(dir)?;
        check_permission("make the network of an instance", true)?;
        write_record(dir, &record)?;
        let mut attachment =
            Attachment { namespace: None, made: Some((self.clone(), alias.clone(), record.clone())) };
        attachment.namespace = self.outer()?.run_async(|| async {
            match spec {
                NetworkSpec::None | NetworkSpec::Host => Ok(None),
                NetworkSpec::Isolated(spec) => {
                    self.make_isolated(spec, &record, &alias, owner, steps).await.map(Some)
                }
                NetworkSpec::Bridged(spec) => {
                    self.make_bridged(spec, &record, &alias, owner, steps).await.map(Some)
                }
            }
        })?;
        Ok(attachment)
    }

    /// For a VMM without a network device: a namespace with nothing in it. None where none can be made; the VMM shares the host's network
    /// then, and is recorded as not contained in this way.
    fn empty_namespace(&self) -> Option<Namespace> {
        let made = self.outer().ok()?.run(Namespace::enter_new).and_then(|made| made);
        made.inspect_err(|error| tracing::debug!(%error, "no network namespace for a VMM")).ok()
    }

    /// Removes an instance's network, as far as there is one. Blocking.
    ///
    /// # Errors
    /// The record in the instance's directory cannot be read, or the system refused. Call again.
    pub(crate) fn tear_down(&self, dir: &InstanceDir) -> Result<(), NetworkError> {
        let Some(record) = read_record(dir)? else {
            return Ok(());
        };
        self.remove(&self.names().alias(dir)?, &record)
    }

    fn remove(&self, alias: &str, record: &Record) -> Result<(), NetworkError> {
        self.outer()?.run_async(|| async {
            let mut table = self.table().await;
            let links = Links::connect()?;
            match links.find(&record.link).await? {
                Some(link) if link.alias.as_deref() == Some(alias) => {
                    links.remove(&link.name, link.index).await?
                }
                // Another instance's by now, with what the table says about it.
                Some(_) => return Ok(()),
                None => {}
            }
            if let Some(bridge) = &record.managed_bridge {
                self.remove_unused_bridge(&links, bridge).await?;
            }
            match &record.rules {
                _ if record.isolated => self.dismiss(&mut table, &links, &record.link).await,
                Some(LinkRules::Port(port)) => {
                    self.dismiss_port(&mut table, &links, &record.link, Some(port)).await
                }
                _ => self.dismiss_port(&mut table, &links, &record.link, None).await,
            }
        })
    }

    /// Removes what belongs to instances of this data directory that are not among `live`: interfaces, rules about them, and the table and
    /// the managed bridges that nobody uses any more. Rules that somebody else removed come back. Returns what was removed, in words. Blocking.
    ///
    /// # Errors
    /// The system refused. Call again.
    pub(crate) fn sweep(&self, live: &[InstanceDir]) -> Result<Vec<String>, NetworkError> {
        let recorded = Recorded::of(live);
        let live = live.iter().map(|dir| (dir.set().to_owned(), dir.id().to_owned())).collect();
        self.outer()?.run_async(|| async {
            let mut table = self.table().await;
            let links = Links::connect()?;
            let busy = table.users.keys().chain(table.ports.keys()).cloned().collect();
            let plan = plan::sweep(self.names(), &links.list().await?, &live, &busy);
            let mut removed = Vec::new();
            for link in &plan.remove {
                links.remove(&link.name, link.index).await?;
                removed.push(format!("interface {}", link.name));
            }
            // Without permission there can be no table of ours, and it could not be looked for.
            if check_permission("look for rules", false).is_ok() {
                let veths = recorded.veths(plan.veths, &table);
                removed.extend(self.sweep_table(&mut table, veths).await?);
                let ports = recorded.ports(plan.ports, &table);
                removed.extend(self.sweep_ports(&mut table, ports).await?);
            }
            Ok(removed)
        })
    }

    /// Makes sure that no interface has this name: a leftover of the same instance goes, anyone else's is an error.
    async fn free_name(&self, links: &Links, name: &str, alias: &str) -> Result<(), NetworkError> {
        match links.find(name).await? {
            None => Ok(()),
            Some(link) if link.alias.as_deref() == Some(alias) => links.remove(&link.name, link.index).await,
            Some(link) => Err(NetworkError::NameTaken { name: name.to_owned(), alias: link.alias }),
        }
    }

    fn names(&self) -> &Names {
        &self.0.names
    }

    async fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().await
    }

    fn outer(&self) -> Result<&Namespace, NetworkError> {
        self.0.outer.as_ref().ok_or_else(|| NetworkError::File {
            what: "open",
            path: PathBuf::from("/proc/thread-self/ns/net"),
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

/// Tells a set-up how far it came, and whether anyone still wants it.
struct Steps<'a> {
    cancelled: &'a AtomicBool,
    /// Tests cut a set-up off here.
    seen: &'a mut (dyn FnMut(&'static str) -> Result<(), NetworkError> + Send),
}

impl Steps<'_> {
    fn reached(&mut self, step: &'static str) -> Result<(), NetworkError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(NetworkError::Cancelled);
        }
        (self.seen)(step)
    }
}

/// The network of an instance that is being launched; removed when dropped, unless it is let go.
#[derive(Debug)]
pub(crate) struct Attachment {
    /// The namespace in which its VMM must start. It lives as long as that; let go of it then.
    pub(crate) namespace: Option<Namespace>,
    made: Option<(HostNetwork, String, Record)>,
}

impl Attachment {
    /// Leaves the network to its instance.
    pub(crate) fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some((network, alias, record)) = self.made.take()
            && let Err(error) = network.remove(&alias, &record)
        {
            tracing::warn!(%alias, %error, "network of a failed instance stays");
        }
    }
}

/// A plain answer in place of an `EPERM` from the middle of things.
fn check_permission(what: &str, namespaces: bool) -> Result<(), NetworkError> {
    use rustix::thread::CapabilitySet;
    let Ok(capabilities) = rustix::thread::capabilities(None) else {
        return Ok(());
    };
    let mut needs = Vec::new();
    if !capabilities.effective.contains(CapabilitySet::NET_ADMIN) {
        needs.push("CAP_NET_ADMIN");
    }
    if namespaces && !capabilities.effective.contains(CapabilitySet::SYS_ADMIN) {
        needs.push("CAP_SYS_ADMIN");
    }
    if needs.is_empty() { Ok(()) } else { Err(NetworkError::NotPermitted { what: what.to_owned(), needs }) }
}

fn write_record(dir: &InstanceDir, record: &Record) -> Result<(), NetworkError> {
    // Whole or not at all: half a record could not be acted on.
    Ok(dir.write_note_as(NETWORK, record)?)
}

fn read_record(dir: &InstanceDir) -> Result<Option<Record>, NetworkError> {
    Ok(dir.note_as(NETWORK)?)
}
