//! Network namespaces for tests: what is in them, and what can be put there.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use rtnetlink::LinkVeth;

use super::super::links::{Links, make_tap};
use super::super::space::Namespace;

/// Longer than anything here takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace that lives at least as long as this.
#[derive(Clone)]
pub(super) struct Space(Namespace);

impl Space {
    pub(super) fn of(namespace: Namespace) -> Self {
        Self(namespace)
    }

    /// A new one with its loopback up.
    pub(super) fn new() -> Self {
        let made = std::thread::spawn(Namespace::enter_new).join().expect("thread");
        let space = Self(made.expect("namespace"));
        space.with_links(async |links| {
            let lo = links.index("lo").await.expect("lo");
            links.change("lo", lo, |link| link.up()).await.expect("up");
        });
        space
    }

    /// The first one of a test; `None`, with a line that says why, where there can be none.
    pub(super) fn new_or_skip() -> Option<Self> {
        if let Err(error) = std::thread::spawn(Namespace::enter_new).join().expect("thread") {
            eprintln!("skipped: no network namespace can be made here ({error})");
            return None;
        }
        let space = Self::new();
        if let Err(error) = space.run(|| make_tap("probe").map(drop)) {
            eprintln!("skipped: no tap can be made here ({error})");
            return None;
        }
        if Command::new("nft").arg("--version").output().is_err() {
            eprintln!("skipped: there is no nft here (apt-get install nftables)");
            return None;
        }
        Some(space)
    }

    /// Runs in a thread that is in this namespace.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.run(work).expect("a thread in the namespace")
    }

    pub(super) fn with_links<T: Send>(&self, work: impl AsyncFnOnce(&Links) -> T + Send) -> T {
        let done = self.0.run_async(|| async { Ok(work(&Links::connect()?).await) });
        done.expect("netlink")
    }

    pub(super) fn links(&self) -> Vec<String> {
        let listed = self.with_links(async |links| links.list().await.expect("listed"));
        listed.into_iter().map(|link| link.name).collect()
    }

    /// Names of all nftables tables.
    pub(super) fn tables(&self) -> Vec<String> {
        self.nft(&["list", "tables"]).lines().map(str::to_owned).collect()
    }

    /// What `nft` prints.
    pub(super) fn nft(&self, args: &[&str]) -> String {
        let output = self.run(|| Command::new("nft").args(args).output().expect("nft"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub(super) fn forward_packets(&self) {
        self.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("ip_forward"));
    }

    /// A cable to another namespace: interface `name` here with `address`, and `name` there with `other_address`, both in a /24.
    pub(super) fn cable(&self, name: &str, address: Ipv4Addr, other: &Space, other_address: Ipv4Addr) {
        self.with_links(async |links| {
            links.add(name, LinkVeth::new(name, "far").build()).await.expect("veth");
            let far = links.index("far").await.expect("far");
            let fd = other.0.fd().as_raw_fd();
            links.change("far", far, |link| link.name(name).setns_by_fd(fd)).await.expect("moved");
        });
        for (space, address) in [(self, address), (other, other_address)] {
            space.with_links(async |links| {
                let index = links.index(name).await.expect("index");
                links.address(index, address, 24).await.expect("address");
                links.change(name, index, |link| link.up()).await.expect("up");
            });
        }
    }

    pub(super) fn default_route(&self, name: &str, gateway: Ipv4Addr) {
        self.with_links(async |links| {
            let index = links.index(name).await.expect("index");
            links.default_route(gateway, index).await.expect("route");
        });
    }
}

/// Waits until `check` holds.
pub(super) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
