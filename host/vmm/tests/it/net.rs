//! Networks as part of launching, stopping, dying and being found again. Who reaches whom is tested beside the network's code.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use regatta_vmm::{
    Adoption, BridgedNetwork, IsolatedNetwork, LaunchError, LaunchSpec, Measure, NetworkError, NetworkSpec,
    Outbound,
};
use rustix::process::Signal;

use crate::support::{Data, eventually, signal};

/// Moves the test's thread into a network of its own, with a line that says so where that is impossible.
///
/// The runtime of a test runs on this thread, and threads that it starts inherit its namespace.
fn own_network() -> bool {
    #[expect(
        deprecated,
        reason = "its successor is unsafe because of descriptor tables, which are not unshared here"
    )]
    let moved = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
    if let Err(error) = moved {
        eprintln!("skipped: no network namespace can be made here ({error})");
        return false;
    }
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        eprintln!("skipped: /dev/net/tun cannot be used here ({error})");
        return false;
    }
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("skipped: there is no nft here (apt-get install nftables)");
        return false;
    }
    true
}

/// Interfaces in the namespace of this thread, or of a process.
fn interfaces(of: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(format!("/proc/{of}/net/dev")).expect("interfaces");
    let names = text.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// What this thread's namespace has beyond a bare one.
fn leftovers() -> Vec<String> {
    let mut found: Vec<String> = interfaces("thread-self").into_iter().filter(|name| name != "lo").collect();
    let tables = Command::new("nft").args(["list", "tables"]).output().expect("nft");
    assert!(tables.status.success());
    found.extend(String::from_utf8(tables.stdout).expect("text").lines().map(str::to_owned));
    found
}

fn isolated(data: &Data, id: &str, number: u8) -> LaunchSpec {
    let mut spec = data.spec(id);
    spec.network = NetworkSpec::Isolated(IsolatedNetwork {
        address: Ipv4Addr::new(10, 77, 0, number),
        guest: Ipv4Addr::new(192, 168, 213, 2),
        prefix: 30,
        gateway: Ipv4Addr::new(192, 168, 213, 1),
        mac: "52:54:00:12:34:56".to_owned(),
        outbound: None,
        published: false,
    });
    spec
}

#[tokio::test]
async fn a_vmm_runs_in_its_namespace_and_takes_the_network_with_it() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let vmm = data.host.launch(&isolated(&data, "a", 1)).await.expect("launched");
    let pid = vmm.identity().pid.to_string();
    let inside: Vec<String> = interfaces(&pid).into_iter().collect();
    assert_eq!(inside, ["lo", "rg-tap", "uplink"]);
    assert_eq!(leftovers().len(), 2, "a veth and a table: {:?}", leftovers());
    vmm.stop(Duration::ZERO).await.expect("stopped");
    assert_eq!(leftovers(), Vec::<String>::new());
    assert!(!data.instance("a").path().exists());
}

#[tokio::test]
async fn a_port_of_a_managed_bridge_goes_with_its_vmm() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let mut spec = data.spec("a");
    spec.network = NetworkSpec::Bridged(BridgedNetwork {
        bridge: "br-test".to_owned(),
        managed: Some((Ipv4Addr::new(10, 78, 0, 1), 24)),
        address: Ipv4Addr::new(10, 78, 0, 2),
        mac: "52:54:00:12:34:56".to_owned(),
        peers: false,
    });
    let vmm = data.host.launch(&spec).await.expect("launched");
    assert_eq!(leftovers().len(), 4, "a bridge, a veth and two tables: {:?}", leftovers());
    let inside: Vec<String> = interfaces(&vmm.identity().pid.to_string()).into_iter().collect();
    assert_eq!(inside, ["lo", "rg-joint", "rg-tap", "uplink"]);
    assert!(!vmm.containment().missing().any(|(measure, _)| measure == Measure::OwnNetwork));
    vmm.stop(Duration::ZERO).await.expect("stopped");
    assert_eq!(leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_vmm_without_a_network_device_has_no_network_and_one_on_the_loopback_is_said_to_share_the_hosts() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let own = |vmm: &regatta_vmm::Vmm| vmm.containment().has(Measure::OwnNetwork);
    let mut spec = data.spec("none");
    spec.network = NetworkSpec::None;
    let none = data.host.launch(&spec).await.expect("launched");
    let inside: Vec<String> = interfaces(&none.identity().pid.to_string()).into_iter().collect();
    assert_eq!(inside, ["lo"]);
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).expect("a namespace");
    assert_ne!(namespace(&none.identity().pid.to_string()), namespace("thread-self"));
    let shared = data.host.launch(&data.spec("host")).await.expect("launched");
    assert_eq!(namespace(&shared.identity().pid.to_string()), namespace("thread-self"));
    assert_eq!((own(&none), own(&shared)), (true, false));
    let among_its_own = |vmm: &regatta_vmm::Vmm| vmm.containment().has(Measure::OwnProcesses);
    assert_eq!((among_its_own(&none), among_its_own(&shared)), (true, false));
    none.stop(Duration::ZERO).await.expect("stopped");
    shared.stop(Duration::ZERO).await.expect("stopped");
    assert_eq!(leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_vmm_takes_its_interfaces_along_and_discarding_it_removes_the_rest() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let vmm = data.host.launch(&isolated(&data, "a", 1)).await.expect("launched");
    signal(vmm.identity().pid, Signal::KILL);
    vmm.exited().await;
    eventually("the kernel's clean-up", || (interfaces("thread-self").len() == 1).then_some(())).await;
    data.host.discard(vmm.dir(), Some(&"killed by a test".into())).await.expect("discarded");
    assert_eq!(leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn an_adopted_vmm_keeps_its_network_through_a_sweep_and_is_stopped_with_it() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let (kept, lost) = (isolated(&data, "kept", 1), isolated(&data, "lost", 2));
    let identity = data.host.launch(&kept).await.expect("launched").identity();
    let orphan = data.host.launch(&lost).await.expect("launched");
    signal(orphan.identity().pid, Signal::KILL);
    orphan.exited().await;
    lost.dir.remove().expect("its record is lost");

    let next = data.restarted();
    let removed = next.sweep_network(std::slice::from_ref(&kept.dir)).await.expect("swept");
    assert!(!removed.is_empty());
    eventually("only what lives", || (leftovers().len() == 2).then_some(())).await;
    let Adoption::Adopted(adopted) = next.adopt(&kept.dir, Some(&identity)).await.expect("asked") else {
        panic!("not adopted");
    };
    adopted.vmm.end(Duration::ZERO).await.expect("ended");
    assert_eq!(leftovers(), Vec::<String>::new(), "the network goes with the process, before the directory");
    adopted.vmm.stop(Duration::ZERO).await.expect("stopped");
    assert!(!kept.dir.path().exists());
}

#[tokio::test]
async fn a_dropped_launch_leaves_no_network() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    // From before the first step to about the last.
    for round in 0..20u64 {
        let spec = isolated(&data, &format!("a{round}"), 1);
        let cut = Duration::from_micros(round * round * 250);
        match tokio::time::timeout(cut, data.host.launch(&spec)).await {
            Err(_) => {}
            Ok(launched) => {
                launched.expect("launched").stop(Duration::ZERO).await.expect("stopped");
            }
        }
        eventually("nothing left of a dropped launch", || {
            (data.running().is_empty() && !spec.dir.path().exists() && leftovers().is_empty()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_launch_that_fails_before_or_after_its_network_leaves_nothing() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let mut spec = isolated(&data, "a", 1);
    let NetworkSpec::Isolated(network) = &mut spec.network else { unreachable!("made isolated") };
    network.outbound = Some(Outbound::default());
    match data.host.launch(&spec).await {
        Err(LaunchError::Network { source: NetworkError::NoForwarding, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!spec.dir.path().exists());
    assert_eq!(leftovers(), Vec::<String>::new());

    let mut spec = isolated(&data, "b", 1);
    spec.boot = regatta_vmm::BootSource::Kernel {
        kernel: data.path().join("no-such-kernel"),
        initramfs: None,
        cmdline: String::new(),
    };
    assert!(matches!(data.host.launch(&spec).await, Err(LaunchError::Api { .. })));
    assert!(!spec.dir.path().exists());
    assert_eq!(leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_vmm_started_ends_with_it() {
    if !own_network() {
        return;
    }
    let data = Data::new();
    let mut spec = data.spec("a");
    spec.network = NetworkSpec::None;
    let vmm = data.host.launch(&spec).await.expect("launched");
    let pid = vmm.identity().pid;
    for kind in ["pid", "ipc"] {
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/{kind}")).expect("a namespace");
        assert_ne!(namespace(&pid.to_string()), namespace("self"), "{kind}");
    }
    // As a helper that it leaves behind: in its namespace, in a session and a process group of its own.
    let mut helper = tokio::process::Command::new("nsenter")
        .args(["--pid", "--target", &pid.to_string(), "setsid", "sleep", "3600"])
        .kill_on_drop(true)
        .spawn()
        .expect("util-linux");
    let inside = || {
        let sleeping = |entry: std::fs::DirEntry| {
            let namespace = std::fs::read_link(entry.path().join("ns/pid")).ok()?;
            let its = std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()?;
            (namespace == its && std::fs::read(entry.path().join("comm")).ok()? == b"sleep\n").then_some(())
        };
        std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(sleeping).count()
    };
    while inside() == 0 {
        tokio::task::yield_now().await;
    }
    let vmms = rustix::process::Pid::from_raw(pid).expect("not 0");
    rustix::process::kill_process(vmms, rustix::process::Signal::KILL).expect("it runs");
    let ended = tokio::time::timeout(Duration::from_secs(60), helper.wait()).await;
    ended.expect("it ends with the VMM").expect("waited for");
    vmm.stop(Duration::ZERO).await.expect("stopped");
}
