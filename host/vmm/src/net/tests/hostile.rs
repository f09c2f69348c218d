//! Hostile guests on bridges: what they send, and what of it arrives. Each test also shows that the same frames arrive without the rules.

use std::net::{Ipv4Addr, UdpSocket};

use rtnetlink::LinkBridge;

use super::frames::{Card, Mac, arp, attacks, ethernet, udp};
use super::guest::Guest;
use super::space::PATIENCE;
use super::{Host, bridged};
use crate::instance::{BridgedNetwork, NetworkSpec};
use crate::net::links::{keep_tap, make_tap};
use crate::net::plan::INNER_TAP;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const SOMEBODY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 200);

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, number)
}

/// As [`bridged`] gives it.
fn mac(number: u8) -> Mac {
    [0x52, 0x54, 0, 0, 1, number]
}

/// A frame that its sender may send, of a number.
fn honest(number: u8, count: usize) -> Vec<u8> {
    ethernet([0xff; 6], mac(number), 0x0800, &udp((address(number), SOMEBODY), (7, 7), &count.to_be_bytes()))
}

/// Makes the operator's bridge, and plugs in what is beyond the host: the rest of the network, of which the host knows nothing.
fn bridge_with_uplink(host: &Host) -> Card {
    host.space.with_links(async |links| {
        links.add("br-test", LinkBridge::new("br-test").build()).await.expect("bridge");
        let bridge = links.index("br-test").await.expect("index");
        links.address(bridge, GATEWAY, 24).await.expect("address");
        links.change("br-test", bridge, |link| link.up()).await.expect("up");
        keep_tap(&make_tap("lan").expect("tap"), "lan", None).expect("kept");
        let lan = links.index("lan").await.expect("index");
        links.change("lan", lan, |link| link.controller(bridge).up()).await.expect("port");
    });
    Card::plug(&host.space, "lan")
}

fn port(number: u8, peers: bool) -> NetworkSpec {
    NetworkSpec::Bridged(BridgedNetwork { peers, ..bridged(number, false) })
}

fn plug(host: &Host, id: &str, number: u8, peers: bool) -> Card {
    Card::plug(&host.attach(id, &port(number, peers)).expect("namespace"), INNER_TAP)
}

/// Which of the attacks get through from guest 11.
fn through(evil: &Card, lan: &Card) -> Vec<&'static str> {
    let tried = attacks(mac(11), address(11), GATEWAY).into_iter().enumerate();
    let arrived = tried.filter(|(count, (_, frame))| {
        evil.send(frame);
        // What was sent before it has arrived before it, or not at all.
        let last = honest(11, *count);
        evil.send(&last);
        lan.until(&last).contains(frame)
    });
    arrived.map(|(_, (what, _))| what).collect()
}

#[test]
fn a_guest_on_a_bridge_speaks_for_nobody_but_itself() {
    let Some(host) = Host::new() else { return };
    let lan = bridge_with_uplink(&host);
    let evil = plug(&host, "evil", 11, false);
    lan.hears(&evil, &honest(11, usize::MAX));
    assert_eq!(through(&evil, &lan), Vec::<&str>::new());

    // What everybody needs: to ask for an address, to see whether one's own is free, to answer.
    let own = (mac(11), address(11));
    for frame in [
        arp(mac(11), 1, own, GATEWAY),
        arp(mac(11), 2, own, SOMEBODY),
        arp(mac(11), 1, (mac(11), Ipv4Addr::UNSPECIFIED), address(11)),
    ] {
        evil.send(&frame);
        lan.until(&frame);
    }

    // Somebody loads their firewall anew: every attack would have worked.
    host.space.nft(&["flush", "ruleset"]);
    assert_eq!(through(&evil, &lan).len(), attacks(mac(11), address(11), GATEWAY).len());

    // With the next instance the rules are back, for the first one too.
    let _other = plug(&host, "other", 12, false);
    assert_eq!(through(&evil, &lan), Vec::<&str>::new());
    for id in ["evil", "other"] {
        host.network.tear_down(&host.dir(id)).expect("torn down");
    }
    assert_eq!(host.leftovers(), ["br-test", "lan"]);
}

#[test]
fn a_daemon_that_starts_again_keeps_the_rules_or_makes_them_again() {
    let Some(host) = Host::new() else { return };
    let lan = bridge_with_uplink(&host);
    let evil = plug(&host, "evil", 11, false);
    host.attach("dead", &port(12, false)).expect("namespace");
    lan.hears(&evil, &honest(11, usize::MAX));
    let mut new = None;
    for flushed in [false, true] {
        if flushed {
            host.space.nft(&["flush", "ruleset"]);
        }
        let next = host.restarted();
        // Before it has looked around, too: its first launch takes nothing away.
        if !flushed {
            let cancelled = std::sync::atomic::AtomicBool::new(false);
            let made = next.set_up(&host.dir("new"), &port(13, false), None, &cancelled);
            let mut attachment = made.expect("set up");
            new = attachment.namespace.take();
            attachment.keep();
            assert_eq!(through(&evil, &lan), Vec::<&str>::new());
        }
        let removed = next.sweep(&[host.dir("evil"), host.dir("new")]).expect("swept");
        assert_eq!(!removed.is_empty(), !flushed, "{removed:?}");
        assert_eq!(through(&evil, &lan), Vec::<&str>::new(), "flushed: {flushed}");
        let rules = host.space.nft(&["list", "ruleset"]);
        assert!(rules.contains("10.78.0.11") && rules.contains("10.78.0.13"), "{rules}");
        assert!(!rules.contains("10.78.0.12"), "{rules}");
    }
    drop(new);
    // Without its record nobody knows who it is: it is cut off, not set free.
    host.dir("evil").remove().expect("its record is lost");
    std::fs::create_dir_all(host.dir("evil").path()).expect("directory");
    host.restarted().sweep(&[host.dir("evil")]).expect("swept");
    evil.send(&honest(11, 1));
    host.space.nft(&["flush", "ruleset"]);
    evil.send(&honest(11, 2));
    assert!(!lan.until(&honest(11, 2)).contains(&honest(11, 1)));
}

#[test]
fn guests_on_a_bridge_reach_each_other_only_when_both_may() {
    for (one_may, other_may) in [(true, true), (true, false), (false, true), (false, false)] {
        let Some(host) = Host::new() else { return };
        let lan = bridge_with_uplink(&host);
        let (one, other) = (plug(&host, "one", 11, one_may), plug(&host, "other", 12, other_may));
        let (from_lan, hello) = (arp([2; 6], 1, ([2; 6], SOMEBODY), address(12)), honest(11, 1));
        lan.hears(&one, &honest(11, 0));
        other.hears(&lan, &from_lan);
        let hears = || {
            one.send(&hello);
            lan.until(&hello);
            lan.send(&from_lan);
            other.until(&from_lan).contains(&hello)
        };
        assert_eq!(hears(), one_may && other_may, "{one_may} {other_may}");
        // Without rules, only the ports themselves keep those apart that may both not.
        host.space.nft(&["flush", "ruleset"]);
        assert_eq!(hears(), one_may || other_may, "{one_may} {other_may}, without rules");
    }
}

#[test]
fn guests_that_are_kept_apart_do_not_meet_by_way_of_the_host_either() {
    let Some(host) = Host::new() else { return };
    let lan = bridge_with_uplink(&host);
    host.space.forward_packets();
    let evil = plug(&host, "evil", 11, false);
    let spec = port(12, false);
    let space = host.attach("other", &spec).expect("namespace");
    let (tap, mac) = host.network.device(&spec).expect("a tap");
    let other = Guest::plug("other", &space, tap, mac, address(12), 24, GATEWAY);
    lan.hears(&evil, &honest(11, 0));
    let open = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7)).expect("a socket");
    let (listener, asker) = (other.space.run(open), host.space.run(open));
    listener.set_read_timeout(Some(PATIENCE)).expect("time-out");
    let gateway =
        host.space.with_links(async |links| links.find("br-test").await.expect("asked").expect("there").mac);
    let gateway: Mac = gateway.try_into().expect("a hardware address");
    let heard = || {
        let mut bytes = [0; 16];
        let len = listener.recv(&mut bytes).expect("a datagram");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    // The host knows the other's hardware address from now on.
    asker.send_to(b"host", (address(12), 7)).expect("sent");
    assert_eq!(heard(), "host");
    let by_the_host =
        ethernet(gateway, self::mac(11), 0x0800, &udp((address(11), address(12)), (7, 7), b"evil"));
    evil.send(&by_the_host);
    asker.send_to(b"after", (address(12), 7)).expect("sent");
    assert_eq!(heard(), "after", "it came by way of the host");
    host.space.nft(&["flush", "ruleset"]);
    evil.send(&by_the_host);
    assert_eq!(heard(), "evil", "which is what the rules prevent");
}
