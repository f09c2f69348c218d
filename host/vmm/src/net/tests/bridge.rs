//! Ports of bridges.

use std::net::Ipv4Addr;

use rtnetlink::LinkBridge;

use super::guest::{Guest, get};
use super::space::eventually;
use super::{Host, bridged};
use crate::instance::{BridgedNetwork, NetworkSpec};

fn add_bridge(host: &Host, name: &str, alias: Option<&str>) {
    host.space.with_links(async |links| {
        links.add(name, LinkBridge::new(name).build()).await.expect("bridge");
        let index = links.index(name).await.expect("index");
        links.address(index, Ipv4Addr::new(10, 78, 0, 1), 24).await.expect("address");
        links
            .change(name, index, |link| match alias {
                Some(alias) => link.up().alias(alias),
                None => link.up(),
            })
            .await
            .expect("up");
    });
}

fn plug(host: &Host, name: &'static str, number: u8, managed: bool) -> Guest {
    let spec = NetworkSpec::Bridged(BridgedNetwork { peers: true, ..bridged(number, managed) });
    let space = host.attach(name, &spec).expect("namespace");
    let (tap, mac) = host.network.device(&spec).expect("a tap");
    let address = Ipv4Addr::new(10, 78, 0, number);
    Guest::plug(name, &space, tap, mac, address, 24, Ipv4Addr::new(10, 78, 0, 1))
}

#[test]
fn guests_on_a_bridge_that_is_there_reach_each_other_and_the_bridge_stays() {
    let Some(host) = Host::new() else { return };
    add_bridge(&host, "br-test", Some("the operator's"));
    let (one, two) = (plug(&host, "one", 11, false), plug(&host, "two", 12, false));
    assert_eq!(get(&host.space, Ipv4Addr::new(10, 78, 0, 11)).expect("answer"), "one sees 10.78.0.1");
    assert_eq!(get(&two.space, Ipv4Addr::new(10, 78, 0, 11)).expect("answer"), "one sees 10.78.0.12");
    assert_eq!(host.space.links().len(), 4);
    drop((one, two));
    // As with an isolated network, all of it goes with whoever is in the namespace.
    eventually("the kernel's clean-up", || host.space.links().len() == 2);
    for id in ["one", "two"] {
        host.network.tear_down(&host.dir(id)).expect("torn down");
    }
    assert_eq!(host.leftovers(), ["br-test"]);
}

#[test]
fn a_managed_bridge_comes_with_its_first_port_and_goes_with_its_last() {
    let Some(host) = Host::new() else { return };
    let one = plug(&host, "one", 11, true);
    let two = plug(&host, "two", 12, true);
    assert_eq!(get(&host.space, Ipv4Addr::new(10, 78, 0, 12)).expect("answer"), "two sees 10.78.0.1");
    assert_eq!(get(&one.space, Ipv4Addr::new(10, 78, 0, 12)).expect("answer"), "two sees 10.78.0.11");
    drop(one);
    host.network.tear_down(&host.dir("one")).expect("torn down");
    assert_eq!(host.leftovers().len(), 4, "the bridge stays for the other port, with the rules");
    host.restarted().sweep(&[host.dir("two")]).expect("swept");
    assert_eq!(host.leftovers().len(), 4, "a sweep leaves what lives");
    drop(two);
    host.network.tear_down(&host.dir("two")).expect("torn down");
    assert_eq!(host.leftovers(), Vec::<String>::new());
    host.network.tear_down(&host.dir("two")).expect("once more");
}

#[test]
fn ports_of_dead_instances_go_in_a_sweep_with_their_bridge() {
    let Some(host) = Host::new() else { return };
    let attach = |(id, number)| host.attach(id, &NetworkSpec::Bridged(bridged(number, true)));
    let _spaces = [("one", 11), ("two", 12)].map(attach);
    assert_eq!(host.network.sweep(&[]).expect("swept"), Vec::<String>::new(), "made by this very process");
    let removed = host.restarted().sweep(&[]).expect("swept");
    assert_eq!(removed.len(), 4, "{removed:?}");
    assert_eq!(host.leftovers(), Vec::<String>::new());
    assert_eq!(host.restarted().sweep(&[]).expect("swept"), Vec::<String>::new());
}
