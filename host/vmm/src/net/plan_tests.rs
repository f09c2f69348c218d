//! Tests of names and decisions.

use proptest::prelude::*;

use super::*;
use crate::instance::Outbound;

fn names() -> Names {
    Names::new(Path::new("/var/lib/my regatta"))
}

fn dir(set: &str, id: &str) -> InstanceDir {
    InstanceDir::new(Path::new("/d"), set, id).expect("dir")
}

fn isolated() -> IsolatedNetwork {
    IsolatedNetwork {
        address: Ipv4Addr::new(10, 77, 0, 9),
        guest: Ipv4Addr::new(192, 168, 213, 2),
        prefix: 30,
        gateway: Ipv4Addr::new(192, 168, 213, 1),
        mac: "52:54:00:12:34:56".to_owned(),
        outbound: Some(Outbound::default()),
        published: false,
    }
}

fn listed(index: u32, name: &str, alias: Option<&str>, kind: Kind, master: Option<u32>) -> Listed {
    Listed { index, name: name.to_owned(), alias: alias.map(str::to_owned), mac: vec![0; 6], kind, master }
}

#[test]
fn names_fit_and_differ_by_data_directory() {
    let link = names().link(Ipv4Addr::new(10, 77, 0, 9));
    assert_eq!(link.len(), 15, "{link}");
    assert!(link.ends_with("-0a4d0009"), "{link}");
    assert_ne!(names().table(), Names::new(Path::new("/var/lib/other")).table());
    assert_eq!(names().bridge_mac("br0")[0] & 3, 2, "locally administered, unicast");
    assert_ne!(names().bridge_mac("br0"), names().bridge_mac("br1"));
    let long = Names::new(Path::new(&format!("/{}", "d".repeat(250))));
    assert!(matches!(long.alias(&dir("s", "i")), Err(NetworkError::Spec { .. })));
}

#[test]
fn networks_that_cannot_work_are_refused() {
    check_isolated(&isolated()).expect("works");
    type Change = fn(&mut IsolatedNetwork);
    let broken: [(&str, Change); 10] = [
        ("prefix length 31", |spec| spec.prefix = 31),
        ("prefix length 0", |spec| spec.prefix = 0),
        ("guest 192.168.213.5", |spec| spec.guest = Ipv4Addr::new(192, 168, 213, 5)),
        ("guest 192.168.213.3", |spec| spec.guest = Ipv4Addr::new(192, 168, 213, 3)),
        ("same address", |spec| spec.guest = spec.gateway),
        ("guest's own network", |spec| spec.address = Ipv4Addr::new(192, 168, 213, 2)),
        ("127.0.0.1 cannot", |spec| spec.address = Ipv4Addr::LOCALHOST),
        ("169.254.213.1 cannot", |spec| spec.address = HOST_END),
        ("hardware address", |spec| spec.mac = "52:54:00:12:34".to_owned()),
        ("hardware address", |spec| spec.mac = "53:54:00:12:34:56".to_owned()),
    ];
    for (what, change) in broken {
        let mut spec = isolated();
        change(&mut spec);
        let text = check_isolated(&spec).expect_err(what).to_string();
        assert!(text.contains(what), "{what}: {text}");
    }
    let bridged = |bridge: &str, managed| BridgedNetwork {
        bridge: bridge.to_owned(),
        managed,
        address: Ipv4Addr::new(10, 78, 0, 2),
        mac: "52:54:00:12:34:56".to_owned(),
        peers: false,
    };
    check_bridged(&bridged("br0", Some((Ipv4Addr::new(10, 78, 0, 1), 24)))).expect("works");
    check_bridged(&bridged("br0", None)).expect("works");
    for name in ["", "a/b", "sixteen-letters!", "..", "a b"] {
        assert!(matches!(check_bridged(&bridged(name, None)), Err(NetworkError::Spec { .. })), "{name}");
    }
    check_bridged(&bridged("br0", Some((Ipv4Addr::new(10, 78, 0, 2), 24)))).expect_err("same address");
}

#[test]
fn a_bridge_is_ours_by_its_alias_or_when_cut_off_by_its_address() {
    let names = names();
    let mut bridge = listed(3, "br0", None, Kind::Bridge, None);
    assert!(!names.owns_bridge(&bridge));
    bridge.mac = names.bridge_mac("br0").to_vec();
    assert!(names.owns_bridge(&bridge));
    bridge.alias = Some("mine".to_owned());
    assert!(!names.owns_bridge(&bridge), "someone took it over");
    bridge.alias = Some(names.bridge_alias().expect("alias"));
    bridge.mac = vec![0; 6];
    assert!(names.owns_bridge(&bridge));
    bridge.kind = Kind::Veth;
    assert!(!names.owns_bridge(&bridge));
}

#[test]
fn a_sweep_takes_what_is_dead_and_ours_and_nothing_else() {
    let names = names();
    let ours = |id: &str| names.alias(&dir("web", id)).expect("alias");
    let other = Names::new(Path::new("/var/lib/my")).alias(&dir("web", "dead")).expect("alias");
    let bridge = names.bridge_alias().expect("alias");
    let links = [
        listed(1, "lo", None, Kind::Other, None),
        listed(2, "alive", Some(&ours("alive")), Kind::Veth, None),
        listed(3, "dead", Some(&ours("dead")), Kind::Veth, None),
        listed(4, "busy", Some(&ours("starting")), Kind::Veth, None),
        listed(5, "tap-dead", Some(&ours("dead2")), Kind::Other, Some(10)),
        listed(6, "tap-alive", Some(&ours("alive2")), Kind::Other, Some(11)),
        listed(9, "port-alive", Some(&ours("alive")), Kind::Veth, Some(11)),
        listed(7, "theirs", Some(&other), Kind::Veth, None),
        listed(8, "theirs2", Some("regatta"), Kind::Veth, None),
        listed(10, "empty", Some(&bridge), Kind::Bridge, None),
        listed(11, "used", Some(&bridge), Kind::Bridge, None),
        listed(12, "docker0", None, Kind::Bridge, None),
    ];
    let live = ["alive", "alive2"].map(|id| ("web".to_owned(), id.to_owned())).into();
    let done = sweep(&names, &links, &live, &["busy".to_owned()].into());
    let removed: Vec<&str> = done.remove.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(removed, ["dead", "tap-dead", "empty"]);
    assert_eq!(done.ports, ["tap-alive", "port-alive"].map(str::to_owned).into());
    assert_eq!(done.veths, ["alive", "busy"].map(str::to_owned).into());
}

proptest! {
    #[test]
    fn an_alias_tells_its_instance_to_its_own_data_directory_only(
        data in "/[ -~]{1,30}",
        other in "/[ -~]{1,30}",
        set in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,10}",
        id in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,10}",
    ) {
        let names = Names::new(Path::new(&data));
        let alias = names.alias(&dir(&set, &id)).expect("alias");
        prop_assert_eq!(names.owner(&alias), Some(Owner::Instance { set, id }));
        prop_assert_eq!(names.owner(&names.bridge_alias().expect("alias")), Some(Owner::Bridge));
        if data != other {
            let other = Names::new(Path::new(&other));
            prop_assert_eq!(other.owner(&alias), None);
        }
    }

    #[test]
    fn any_alias_is_parsed_without_a_panic(alias in "\\PC*", tail in "\\PC*") {
        let names = names();
        let _ = names.owner(&alias);
        let _ = names.owner(&format!("regatta /var/lib/my regatta {tail}"));
    }

    #[test]
    fn a_record_reads_back(address in any::<u32>(), managed in any::<bool>()) {
        let spec = BridgedNetwork {
            bridge: "br0".to_owned(),
            managed: managed.then_some((Ipv4Addr::new(10, 0, 0, 1), 24)),
            address: Ipv4Addr::from_bits(address),
            mac: String::new(),
            peers: managed,
        };
        let record = Record::of_bridged(&names(), &spec);
        let text = serde_json::to_vec(&record).expect("serialised");
        prop_assert_eq!(serde_json::from_slice::<Record>(&text).expect("parsed"), record);
    }
}
