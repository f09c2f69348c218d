//! The network with real interfaces, rules and traffic, in namespaces that each test makes itself.

mod bridge;
mod crash;
mod frames;
mod guest;
mod hostile;
mod many;
mod refusals;
mod space;
mod traffic;

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use self::space::Space;
use super::{Attachment, HostNetwork, NetworkError};
use crate::instance::{BridgedNetwork, InstanceDir, IsolatedNetwork, NetworkSpec};

/// A host in a namespace of its own, with a data directory.
struct Host {
    space: Space,
    network: HostNetwork,
    data: tempfile::TempDir,
}

impl Host {
    /// `None`, with a line that says so, where the kernel refuses namespaces or taps, or `nft` is missing.
    fn new() -> Option<Self> {
        let space = Space::new_or_skip()?;
        let data = tempfile::tempdir().expect("temp dir");
        let network = space.run(|| HostNetwork::new(data.path()));
        Some(Self { space, network, data })
    }

    /// The same host after a restart of the daemon.
    fn restarted(&self) -> HostNetwork {
        self.space.run(|| HostNetwork::new(self.data.path()))
    }

    fn dir(&self, id: &str) -> InstanceDir {
        dir_in(self.data.path(), id)
    }

    fn set_up(&self, id: &str, spec: &NetworkSpec) -> Result<Attachment, NetworkError> {
        self.network.set_up(&self.dir(id), spec, None, &AtomicBool::new(false))
    }

    /// Sets up and forgets the attachment but for its namespace, as a launch does.
    fn attach(&self, id: &str, spec: &NetworkSpec) -> Option<Space> {
        let mut attachment = self.set_up(id, spec).expect("set up");
        let namespace = attachment.namespace.take().map(Space::of);
        attachment.keep();
        namespace
    }

    /// Everything that the host has beyond a bare one.
    fn leftovers(&self) -> Vec<String> {
        let mut found = self.space.links();
        found.retain(|name| name != "lo");
        found.extend(self.space.tables());
        found
    }
}

/// An instance's directory, which is made.
fn dir_in(data: &Path, id: &str) -> InstanceDir {
    let dir = InstanceDir::new(&data.join("i"), "set", id).expect("dir");
    std::fs::create_dir_all(dir.path()).expect("directory");
    dir
}

/// Instance number `number`, with the guest address that all have.
fn isolated(number: u8) -> IsolatedNetwork {
    IsolatedNetwork {
        address: Ipv4Addr::new(10, 77, 0, number),
        guest: Ipv4Addr::new(192, 168, 213, 2),
        prefix: 30,
        gateway: Ipv4Addr::new(192, 168, 213, 1),
        mac: format!("52:54:00:00:00:{number:02x}"),
        outbound: None,
        published: false,
    }
}

fn bridged(number: u8, managed: bool) -> BridgedNetwork {
    BridgedNetwork {
        bridge: "br-test".to_owned(),
        managed: managed.then_some((Ipv4Addr::new(10, 78, 0, 1), 24)),
        address: Ipv4Addr::new(10, 78, 0, number),
        mac: format!("52:54:00:00:01:{number:02x}"),
        peers: false,
    }
}
