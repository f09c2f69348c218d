//! The nftables rules, as text for `nft -f -` and as JSON from `nft -j list`. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::plan::{HOST_END, INNER_TAP, UPLINK, VethRules};
use super::reach::{Reach, special_elements};

/// Every interface of ours.
const LINKS: &str = "links";
/// Those that others than the host may open connections to.
const PUBLISHED: &str = "published";
/// Those that may open connections beyond the host.
const OUTBOUND: &str = "outbound";
/// Those of the latter whose own rules let them into special ranges. Which addresses exactly, the rules in their namespace say.
const SPECIAL: &str = "special";

/// The rules inside an instance's namespace, which is new and empty.
///
/// What comes for `address` goes to the guest. The host's link-local address is hidden behind the gateway's, since a guest may take it for
/// one of its own network; a published instance's other callers keep theirs. The VMM itself, which is in the
/// namespace too, can open no connection.
pub(crate) fn inner(address: Ipv4Addr, guest: Ipv4Addr, reach: &Reach) -> String {
    let from_guest = reach.elements().map_or(String::new(), |reached| {
        format!("iifname \"{INNER_TAP}\" oifname \"{UPLINK}\" ip daddr {{ {reached} }} accept")
    });
    format!(
        r#"table ip regatta {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{UPLINK}" ip daddr {address} dnat to {guest}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{INNER_TAP}" ip saddr {HOST_END} masquerade
    oifname "{UPLINK}" snat to {address}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid drop
    iifname "{UPLINK}" oifname "{INNER_TAP}" ct status dnat accept
    {from_guest}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    icmp type echo-request accept
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    oifname "lo" accept
    ct state established,related accept
  }}
}}
"#
    )
}

/// The table in the host's namespace with its rules, made or renewed; its elements stay. Only packets from and to interfaces of ours are
/// matched. A namespace may be bent from within, so nothing here believes in its rules but for what of special ranges it opens.
pub(crate) fn outer_rules(table: &str) -> String {
    let special = special_elements();
    format!(
        r#"table ip {table} {{
  set {LINKS} {{ type ifname; }}
  set {PUBLISHED} {{ type ifname; }}
  set {OUTBOUND} {{ type ifname; }}
  set {SPECIAL} {{ type ifname; }}
  chain input {{
    type filter hook input priority filter; policy accept;
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
  }}
}}
flush chain ip {table} input
flush chain ip {table} forward
flush chain ip {table} postrouting
table ip {table} {{
  chain input {{
    iifname @{LINKS} ct state established,related accept
    iifname @{LINKS} iifname != @{OUTBOUND} drop
    iifname @{LINKS} iifname != @{SPECIAL} ip daddr {{ {special} }} drop
  }}
  chain forward {{
    oifname @{LINKS} ct state established,related accept
    oifname @{LINKS} oifname != @{PUBLISHED} drop
    iifname @{LINKS} ct state established,related accept
    iifname @{LINKS} iifname != @{OUTBOUND} drop
    iifname @{LINKS} iifname != @{SPECIAL} ip daddr {{ {special} }} drop
  }}
  chain postrouting {{
    iifname @{OUTBOUND} oifname != @{LINKS} masquerade
  }}
}}
"#
    )
}

/// Adds an interface to a table that is there and does not know it.
pub(crate) fn outer_add(table: &str, link: &str, may: VethRules) -> String {
    let sets = [(LINKS, true), (PUBLISHED, may.published), (OUTBOUND, may.outbound), (SPECIAL, may.special)];
    let wanted = sets.into_iter().filter(|(_, member)| *member);
    wanted.map(|(set, _)| format!("add element ip {table} {set} {{ \"{link}\" }}\n")).collect()
}

/// Removes interfaces from a table that is there. Nothing happens to those that are not in it.
pub(crate) fn outer_remove<'a>(table: &str, links: impl IntoIterator<Item = &'a str>) -> String {
    let mut script = String::new();
    for link in links {
        for set in [LINKS, PUBLISHED, OUTBOUND, SPECIAL] {
            // Deleting what is not there is an error, adding what is there is none.
            script.push_str(&format!(
                "add element ip {table} {set} {{ \"{link}\" }}\ndelete element ip {table} {set} {{ \"{link}\" }}\n"
            ));
        }
    }
    script
}

/// Removes the table; nothing happens when it is not there.
pub(crate) fn outer_drop(table: &str) -> String {
    format!("add table ip {table}\ndelete table ip {table}\n")
}

/// The interfaces in any set of a table, out of what `nft -j list table` prints. `None` when that is something else.
pub(crate) fn members(json: &[u8]) -> Option<BTreeSet<String>> {
    let listed: serde_json::Value = serde_json::from_slice(json).ok()?;
    let objects = listed.get("nftables")?.as_array()?;
    let sets = objects.iter().filter_map(|object| object.get("set")?.get("elem")?.as_array());
    Some(sets.flatten().filter_map(|element| element.as_str()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_from_what_nft_prints() {
        let json = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "ip", "name": "t"}},
            {"set": {"name": "links", "type": "ifname", "elem": ["v0", "v1"]}},
            {"set": {"name": "outbound", "type": "ifname", "elem": ["v1", "v2"]}}, {"set": {"name": "published"}}]}"#;
        let names: Vec<_> = members(json).expect("listed").into_iter().collect();
        assert_eq!(names, ["v0", "v1", "v2"]);
        assert_eq!(members(b"Error"), None);
        assert_eq!(members(b"{}"), None);
    }
}
