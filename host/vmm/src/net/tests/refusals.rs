//! What cannot be is refused with one clear message, and nothing half-made stays.

use std::net::Ipv4Addr;

use rtnetlink::LinkBridge;

use super::{Host, bridged, isolated};
use crate::instance::{IsolatedNetwork, NetworkSpec, Outbound};
use crate::net::NetworkError;
use crate::net::links::{keep_tap, make_tap};
use crate::net::plan::{INNER_TAP, Listed};

/// Some interface of no concern to us.
fn add_other(host: &Host, name: &str, alias: Option<&str>, address: Option<Ipv4Addr>) -> Listed {
    host.space.with_links(async |links| {
        keep_tap(&make_tap(name).expect("tap"), name, None).expect("kept");
        let index = links.index(name).await.expect("index");
        links.change(name, index, |link| link.up()).await.expect("up");
        if let Some(alias) = alias {
            links.change(name, index, |link| link.alias(alias)).await.expect("alias");
        }
        if let Some(address) = address {
            links.address(index, address, 24).await.expect("address");
        }
        links.find(name).await.expect("asked").expect("there")
    })
}

fn find(host: &Host, name: &str) -> Option<Listed> {
    host.space.with_links(async |links| links.find(name).await.expect("asked"))
}

fn refusal(host: &Host, spec: &NetworkSpec) -> String {
    host.set_up("a", spec).expect_err("refused").to_string()
}

#[test]
fn an_interface_of_a_stranger_with_our_name_is_left_alone() {
    let Some(host) = Host::new() else { return };
    for (spec, alias) in
        [(NetworkSpec::Isolated(isolated(1)), None), (NetworkSpec::Bridged(bridged(2, true)), Some("mine"))]
    {
        let address = match &spec {
            NetworkSpec::Isolated(spec) => spec.address,
            NetworkSpec::Bridged(spec) => spec.address,
            NetworkSpec::None | NetworkSpec::Host => unreachable!("not among them"),
        };
        let name = host.network.names().link(address);
        let theirs = add_other(&host, &name, alias, None);
        let error = host.set_up("a", &spec).expect_err("refused");
        assert!(matches!(error, NetworkError::NameTaken { .. }), "{error}");
        assert!(error.to_string().contains(&name), "{error}");
        host.network.tear_down(&host.dir("a")).expect("nothing of ours");
        host.restarted().sweep(&[]).expect("nothing of ours");
        assert_eq!(find(&host, &name), Some(theirs));
    }
    assert_eq!(host.leftovers().len(), 2);
}

#[test]
fn another_instance_with_the_same_address_is_refused_and_the_first_goes_on() {
    let Some(host) = Host::new() else { return };
    let spec = NetworkSpec::Isolated(isolated(1));
    let _first = host.attach("first", &spec).expect("namespace");
    let before = (host.leftovers(), host.space.nft(&["list", "ruleset"]));
    assert!(matches!(host.set_up("second", &spec), Err(NetworkError::NameTaken { .. })));
    host.network.tear_down(&host.dir("second")).expect("nothing of it");
    assert_eq!((host.leftovers(), host.space.nft(&["list", "ruleset"])), before);
    // What the same instance left behind is replaced.
    let again = host.set_up("first", &spec).expect("set up again");
    assert_eq!(host.leftovers(), before.0);
    drop(again);
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn addresses_that_the_host_knows_are_refused() {
    let Some(host) = Host::new() else { return };
    let own = Ipv4Addr::new(10, 77, 0, 1);
    add_other(&host, "lan", None, Some(own));
    let text = refusal(&host, &NetworkSpec::Isolated(isolated(1)));
    assert!(text.contains("10.77.0.1 is the host's own"), "{text}");
    let text = refusal(&host, &NetworkSpec::Isolated(isolated(9)));
    assert!(text.contains("prefix length 24") && text.contains("interface lan"), "{text}");
    let mut on_bridge = bridged(2, true);
    on_bridge.address = own;
    let text = refusal(&host, &NetworkSpec::Bridged(on_bridge));
    assert!(text.contains("is the host's own"), "{text}");
    assert_eq!(host.leftovers(), ["lan"]);
    // A default route is not a claim.
    host.space.default_route("lan", Ipv4Addr::new(10, 77, 0, 254));
    let elsewhere = IsolatedNetwork { address: Ipv4Addr::new(10, 99, 0, 1), ..isolated(1) };
    host.set_up("a", &NetworkSpec::Isolated(elsewhere)).expect("set up");
}

#[test]
fn a_host_that_does_not_forward_is_told_how_and_not_changed() {
    let Some(host) = Host::new() else { return };
    for spec in [
        IsolatedNetwork { outbound: Some(Outbound::default()), ..isolated(1) },
        IsolatedNetwork { published: true, ..isolated(1) },
    ] {
        let text = refusal(&host, &NetworkSpec::Isolated(spec));
        assert!(text.contains("sysctl -w net.ipv4.ip_forward=1"), "{text}");
    }
    let forwards = host.space.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read"));
    assert_eq!(forwards.trim(), "0");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn bridges_that_are_missing_or_foreign_are_refused() {
    let Some(host) = Host::new() else { return };
    let text = refusal(&host, &NetworkSpec::Bridged(bridged(2, false)));
    assert!(text.contains("there is no bridge br-test"), "{text}");
    let other = add_other(&host, "br-test", None, None);
    let text = refusal(&host, &NetworkSpec::Bridged(bridged(2, false)));
    assert!(text.contains("br-test is not a bridge"), "{text}");
    assert!(
        refusal(&host, &NetworkSpec::Bridged(bridged(2, true))).contains("not made for this data directory")
    );
    assert_eq!(find(&host, "br-test"), Some(other.clone()));
    host.space.with_links(async |links| {
        links.remove(&other.name, other.index).await.expect("removed");
        links.add("br-test", LinkBridge::new("br-test").build()).await.expect("bridge");
    });
    let theirs = find(&host, "br-test");
    assert!(
        refusal(&host, &NetworkSpec::Bridged(bridged(2, true))).contains("not made for this data directory")
    );
    host.restarted().sweep(&[]).expect("nothing of ours");
    assert_eq!(find(&host, "br-test"), theirs);
    assert_eq!(host.leftovers(), ["br-test"]);
}

#[test]
fn without_permission_the_missing_capability_is_named() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Some(host) = Host::new() else { return };
    let (dir, spec) = (host.dir("a"), NetworkSpec::Isolated(isolated(1)));
    // Capabilities belong to the thread, and those that it starts inherit them.
    let (refused, swept) = host.space.run(|| {
        let mut sets = capabilities(None).expect("capabilities");
        sets.effective.remove(CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN);
        set_capabilities(None, sets).expect("dropped");
        let cancelled = std::sync::atomic::AtomicBool::new(false);
        (host.network.set_up(&dir, &spec, None, &cancelled).map(drop), host.network.sweep(&[]))
    });
    let text = refused.expect_err("refused").to_string();
    assert!(text.contains("CAP_NET_ADMIN and CAP_SYS_ADMIN"), "{text}");
    assert_eq!(swept.expect("a sweep finds nothing to do"), Vec::<String>::new());
    assert!(!dir.note_path(crate::instance::NETWORK).exists());
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_cancelled_set_up_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    let spec = NetworkSpec::Isolated(isolated(1));
    let result = host.network.set_up(&host.dir("a"), &spec, None, &cancelled);
    assert!(matches!(result, Err(NetworkError::Cancelled)));
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_tap_is_opened_by_its_owner_and_no_one_else_without_permission() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Some(host) = Host::new() else { return };
    let me = rustix::process::geteuid().as_raw();
    for (number, owner, allowed) in [(1, me, true), (2, me + 1, false)] {
        let dir = host.dir(&format!("i{number}"));
        let cancelled = std::sync::atomic::AtomicBool::new(false);
        let spec = NetworkSpec::Isolated(isolated(number));
        let attachment = host.network.set_up(&dir, &spec, Some(owner), &cancelled).expect("set up");
        let opened = attachment.namespace.as_ref().expect("a namespace").run(|| {
            let mut sets = capabilities(None).expect("capabilities");
            sets.effective.remove(CapabilitySet::NET_ADMIN);
            set_capabilities(None, sets).expect("dropped");
            make_tap(INNER_TAP).map(drop)
        });
        let opened = opened.expect("a thread");
        assert_eq!(opened.is_ok(), allowed, "{opened:?}");
    }
    assert_eq!(host.leftovers(), Vec::<String>::new());
}
