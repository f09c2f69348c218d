//! Who reaches whom.

use std::net::Ipv4Addr;

use super::guest::{Guest, get, is_blocked, serve};
use super::space::{Space, eventually};
use super::{Host, isolated};
use crate::instance::{IsolatedNetwork, NetworkSpec, Outbound};
use crate::net::plan::{HOST_END, INNER_TAP};

const HOST_IN_WORLD: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);

/// A host that forwards, with a machine beyond it that serves HTTP and routes all to the host.
fn host_and_world() -> Option<(Host, Space)> {
    let host = Host::new()?;
    let world = Space::new();
    host.space.forward_packets();
    host.space.cable("lan", HOST_IN_WORLD, &world, WORLD);
    world.default_route("lan", HOST_IN_WORLD);
    serve(&host.space, "host");
    serve(&world, "world");
    Some((host, world))
}

fn plug(host: &Host, name: &'static str, spec: &IsolatedNetwork) -> Guest {
    let space = host.attach(name, &NetworkSpec::Isolated(spec.clone())).expect("namespace");
    Guest::plug(name, &space, INNER_TAP, &spec.mac, spec.guest, spec.prefix, spec.gateway)
}

#[test]
fn the_host_reaches_guests_of_the_same_address_and_each_sees_its_gateway() {
    let Some(host) = Host::new() else { return };
    let (one, two) = (isolated(1), isolated(2));
    let _guests = (plug(&host, "one", &one), plug(&host, "two", &two));
    for _ in 0..3 {
        assert_eq!(get(&host.space, one.address).expect("answer"), "one sees 192.168.213.1");
        assert_eq!(get(&host.space, two.address).expect("answer"), "two sees 192.168.213.1");
    }
    // With another instance still there, the rules stay for that one alone.
    host.network.tear_down(&host.dir("one")).expect("torn down");
    assert!(is_blocked(&host.space, one.address));
    assert_eq!(get(&host.space, two.address).expect("answer"), "two sees 192.168.213.1");
    host.network.tear_down(&host.dir("two")).expect("torn down");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

#[test]
fn a_guest_without_outbound_opens_no_connection_and_one_with_it_is_seen_as_the_host() {
    let Some((host, world)) = host_and_world() else { return };
    let shut = isolated(1);
    let open = IsolatedNetwork { outbound: Some(Outbound::default()), ..isolated(2) };
    let (shut_guest, open_guest) = (plug(&host, "shut", &shut), plug(&host, "open", &open));

    assert_eq!(get(&open_guest.space, WORLD).expect("answer"), "world sees 10.88.0.1");
    assert_eq!(get(&open_guest.space, HOST_IN_WORLD).expect("answer"), "host sees 10.77.0.2");
    // The guest does not listen to itself by way of the outside, but its own answers pass.
    assert_eq!(get(&host.space, open.address).expect("answer"), "open sees 192.168.213.1");
    assert_eq!(get(&host.space, shut.address).expect("answer"), "shut sees 192.168.213.1");
    for target in [WORLD, HOST_IN_WORLD, HOST_END, open.address] {
        assert!(is_blocked(&shut_guest.space, target), "{target} reached from a guest without outbound");
    }
    assert!(is_blocked(&open_guest.space, shut.address), "an unpublished neighbour was reached");
    drop((shut_guest, open_guest));
    for id in ["shut", "open"] {
        host.network.tear_down(&host.dir(id)).expect("torn down");
    }
    assert_eq!(host.leftovers(), ["lan"]);
    assert_eq!(get(&world, HOST_IN_WORLD).expect("the host's own traffic goes on"), "host sees 10.88.0.2");
}

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A host in a cloud: the machine beyond it has the metadata of the host.
fn host_in_a_cloud() -> Option<(Host, Space)> {
    let (host, world) = host_and_world()?;
    world.with_links(async |links| {
        let index = links.index("lan").await.expect("index");
        links.address(index, METADATA, 32).await.expect("address");
    });
    host.space.with_links(async |links| {
        let index = links.index("lan").await.expect("index");
        links.route_to_neighbour(METADATA, index, HOST_IN_WORLD).await.expect("route");
    });
    assert_eq!(get(&host.space, METADATA).expect("the host's own"), "world sees 10.88.0.1");
    Some((host, world))
}

fn reaching(number: u8, allow: &[(Ipv4Addr, u8)], deny: &[(Ipv4Addr, u8)]) -> IsolatedNetwork {
    IsolatedNetwork {
        outbound: Some(Outbound { allow: allow.to_vec(), deny: deny.to_vec() }),
        ..isolated(number)
    }
}

#[test]
fn outbound_leads_to_no_metadata_by_two_walls() {
    let Some((host, _world)) = host_in_a_cloud() else { return };
    let spec = reaching(1, &[], &[]);
    let space = host.attach("a", &NetworkSpec::Isolated(spec.clone())).expect("namespace");
    let guest = Guest::plug("a", &space, INNER_TAP, &spec.mac, spec.guest, spec.prefix, spec.gateway);
    assert_eq!(get(&guest.space, WORLD).expect("answer"), "world sees 10.88.0.1");
    for target in [METADATA, HOST_END] {
        assert!(is_blocked(&guest.space, target), "{target} reached");
    }
    // Were the rules of its namespace gone, but for the translation of addresses.
    space.nft(&["add chain ip regatta forward { policy accept; }; flush chain ip regatta forward"]);
    for target in [METADATA, HOST_END] {
        assert!(is_blocked(&guest.space, target), "{target} reached past the host's rules");
    }
    // And those of the host, too, it would reach it.
    let table = host.network.names().table();
    host.space.nft(&[&format!("flush chain ip {table} forward; flush chain ip {table} input")]);
    assert_eq!(get(&guest.space, METADATA).expect("answer"), "world sees 10.88.0.1");
    assert_eq!(get(&guest.space, HOST_END).expect("answer"), "host sees 10.77.0.1");
}

#[test]
fn outbound_reaches_what_its_lists_say() {
    let Some((host, _world)) = host_in_a_cloud() else { return };
    let (lan, metadata) = ((Ipv4Addr::new(10, 88, 0, 0), 24), (METADATA, 32));
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0);
    let cases = [
        ("metadata", reaching(1, &[metadata], &[]), [true, false, false]),
        ("both", reaching(2, &[everywhere, metadata], &[]), [true, true, true]),
        ("everywhere", reaching(3, &[everywhere], &[]), [false, true, true]),
        ("not-there", reaching(4, &[], &[lan]), [false, false, false]),
        ("not-the-host", reaching(5, &[lan], &[(HOST_IN_WORLD, 32)]), [false, true, false]),
    ];
    for (id, spec, reached) in cases {
        let guest = plug(&host, id, &spec);
        for (target, reached) in [METADATA, WORLD, HOST_IN_WORLD].into_iter().zip(reached) {
            match reached {
                true => assert!(get(&guest.space, target).is_some(), "{id} does not reach {target}"),
                false => assert!(is_blocked(&guest.space, target), "{id} reaches {target}"),
            }
        }
        // Whatever it reaches, it answers.
        assert!(get(&host.space, spec.address).is_some(), "{id} answers");
    }
}

#[test]
fn a_daemon_that_starts_again_makes_lost_rules_again() {
    let Some((host, world)) = host_in_a_cloud() else { return };
    let open = IsolatedNetwork { published: true, ..reaching(1, &[(METADATA, 32), (WORLD, 32)], &[]) };
    let guest = plug(&host, "open", &open);
    let before = host.space.nft(&["list", "ruleset"]);
    for lost in [false, true] {
        if lost {
            host.space.nft(&["flush", "ruleset"]);
        }
        host.restarted().sweep(&[host.dir("open")]).expect("swept");
        assert_eq!(host.space.nft(&["list", "ruleset"]), before, "lost: {lost}");
    }
    assert_eq!(get(&guest.space, METADATA).expect("answer"), "world sees 10.88.0.1");
    assert_eq!(get(&world, open.address).expect("answer"), "open sees 10.88.0.2");
}

#[test]
fn a_vmm_that_turned_bad_gets_no_further_than_the_host() {
    let Some((host, world)) = host_and_world() else { return };
    let space = host.attach("shut", &NetworkSpec::Isolated(isolated(1))).expect("namespace");
    for target in [WORLD, HOST_END] {
        assert!(is_blocked(&space, target), "{target} reached from the namespace itself");
    }
    // Even if it rid itself of the rules around it.
    space.nft(&["flush", "ruleset"]);
    assert_eq!(space.tables(), Vec::<String>::new());
    for target in [WORLD, HOST_END, HOST_IN_WORLD] {
        assert!(is_blocked(&space, target), "{target} reached without outbound");
    }
    serve(&space, "bad");
    assert!(is_blocked(&world, isolated(1).address), "reached though unpublished");
}

#[test]
fn only_a_published_guest_is_reached_from_beyond_the_host_and_sees_who_asks() {
    let Some((host, world)) = host_and_world() else { return };
    let hidden = isolated(1);
    let shown = IsolatedNetwork { published: true, ..isolated(2) };
    let _guests = (plug(&host, "hidden", &hidden), plug(&host, "shown", &shown));
    assert_eq!(get(&world, shown.address).expect("answer"), "shown sees 10.88.0.2");
    assert!(is_blocked(&world, hidden.address), "an unpublished guest was reached");

    // A later instance with the address of an earlier one is allowed what its own specification says.
    host.network.tear_down(&host.dir("shown")).expect("torn down");
    let later = plug(&host, "later", &isolated(2));
    assert!(is_blocked(&world, shown.address), "published by its predecessor");
    assert_eq!(get(&host.space, shown.address).expect("answer"), "later sees 192.168.213.1");
    assert!(is_blocked(&later.space, WORLD));
}

#[test]
fn rules_of_another_data_directory_are_not_touched_by_ours() {
    let Some((host, world)) = host_and_world() else { return };
    let other = Host {
        space: host.space.clone(),
        data: tempfile::tempdir().expect("temp dir"),
        network: host.network.clone(),
    };
    let other = Host { network: other.restarted(), ..other };
    let shown = IsolatedNetwork { published: true, ..isolated(1) };
    let _guest = plug(&other, "theirs", &shown);
    let before = host.space.nft(&["list", "ruleset"]);

    host.attach("ours", &NetworkSpec::Isolated(isolated(2))).expect("namespace");
    assert_eq!(get(&world, shown.address).expect("answer"), "theirs sees 10.88.0.2");
    host.restarted().sweep(&[]).expect("swept");
    assert_eq!(host.space.nft(&["list", "ruleset"]), before);
    assert_eq!(get(&world, shown.address).expect("answer"), "theirs sees 10.88.0.2");
}

#[test]
fn a_firewall_loaded_anew_gets_our_table_back_with_the_next_instance() {
    let Some((host, world)) = host_and_world() else { return };
    let open = open_at(1);
    let _one = plug(&host, "one", &open);
    let _two = plug(&host, "two", &isolated(2));
    assert_eq!(get(&world, open.address).expect("answer"), "one sees 10.88.0.2");
    host.space.nft(&["flush", "ruleset"]);
    host.network.tear_down(&host.dir("two")).expect("no table is not an obstacle");
    let three = plug(&host, "three", &open_at(3));
    assert_eq!(get(&world, open_at(3).address).expect("answer"), "three sees 10.88.0.2");
    assert_eq!(get(&three.space, WORLD).expect("answer"), "world sees 10.88.0.1");
    // What it was allowed as well.
    assert_eq!(get(&world, open.address).expect("answer"), "one sees 10.88.0.2");
    for id in ["one", "three"] {
        host.network.tear_down(&host.dir(id)).expect("torn down");
    }
    assert_eq!(host.leftovers(), ["lan"]);
}

fn open_at(number: u8) -> IsolatedNetwork {
    IsolatedNetwork { outbound: Some(Outbound::default()), published: true, ..isolated(number) }
}

#[test]
fn the_end_of_whoever_is_in_the_namespace_is_the_end_of_all_interfaces() {
    let Some(host) = Host::new() else { return };
    let space = host.attach("a", &NetworkSpec::Isolated(isolated(1))).expect("namespace");
    assert_eq!(host.space.links().len(), 2);
    // The namespace is only held by this process, which holds its last reference.
    let mut sleeper =
        space.run(|| std::process::Command::new("sleep").arg("1000").spawn().expect("a process in it"));
    drop(space);
    assert_eq!(host.space.links().len(), 2, "the process holds the namespace");
    sleeper.kill().expect("killed");
    sleeper.wait().expect("ended");
    eventually("the kernel's clean-up", || host.space.links() == ["lo"]);
    host.network.tear_down(&host.dir("a")).expect("the rest is removed");
    host.network.tear_down(&host.dir("a")).expect("once more");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}
