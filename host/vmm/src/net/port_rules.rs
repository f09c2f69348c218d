//! The nftables rules about ports of bridges, as text for `nft -f -`. Pure.

use std::collections::BTreeMap;

use super::plan::PortRules;

/// Every port of ours.
const PORTS: &str = "ports";
/// Those that may not talk to other ports of ours: as interfaces in the bridge's table, as addresses in the host's.
const ALONE: &str = "alone";
/// What each port may send as: interface, hardware address, address.
const SENDERS: &str = "senders";
/// Addresses of all ports of ours.
const GUESTS: &str = "guests";

/// Names of the two tables: one sees what comes from ports, the other what the host routes from one guest to another.
fn tables(table: &str) -> [String; 2] {
    [format!("bridge {table}"), format!("ip {}", routed(table))]
}

/// The table in family `ip`.
pub(crate) fn routed(table: &str) -> String {
    format!("{table}-ports")
}

/// The tables with their rules, made or renewed; their elements stay. Only frames from and to ports of ours are matched.
///
/// A guest sends IPv4 and ARP under the addresses that it was given, and nothing else: no IPv6 (and so no router advertisements), no VLAN
/// tags, no spanning tree, no answers of a DHCP server. Frames to the bridge itself that are never forwarded (spanning tree, LLDP) come by
/// `input` only. Link-local addresses are the cloud's metadata, which no router forwards.
pub(crate) fn rules(table: &str) -> String {
    let [bridge, ip] = tables(table);
    format!(
        r#"table {bridge} {{
  set {PORTS} {{ type ifname; }}
  set {ALONE} {{ type ifname; }}
  set {SENDERS} {{ type ifname . ether_addr . ipv4_addr; }}
  chain prerouting {{
    type filter hook prerouting priority dstnat; policy accept;
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
  }}
}}
flush chain {bridge} prerouting
flush chain {bridge} input
flush chain {bridge} forward
table {bridge} {{
  chain prerouting {{
    iifname != @{PORTS} accept
    ether type arp iifname . ether saddr . arp saddr ip @{SENDERS} iifname . arp saddr ether . arp saddr ip @{SENDERS} accept
    ether type arp arp operation request arp saddr ip 0.0.0.0 iifname . ether saddr . arp daddr ip @{SENDERS} iifname . arp saddr ether . arp daddr ip @{SENDERS} accept
    ether type ip udp sport 67 drop
    ether type ip ip daddr 169.254.0.0/16 drop
    ether type ip iifname . ether saddr . ip saddr @{SENDERS} accept
    drop
  }}
  chain input {{
    iifname @{PORTS} ether type != {{ ip, arp }} drop
  }}
  chain forward {{
    iifname @{PORTS} oifname @{ALONE} drop
    iifname @{ALONE} oifname @{PORTS} drop
  }}
}}
table {ip} {{
  set {GUESTS} {{ type ipv4_addr; }}
  set {ALONE} {{ type ipv4_addr; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
  }}
}}
flush chain {ip} forward
table {ip} {{
  chain forward {{
    ip saddr @{GUESTS} ip daddr @{ALONE} drop
    ip saddr @{ALONE} ip daddr @{GUESTS} drop
  }}
}}
"#
    )
}

/// Elements of a port: table, set, element.
fn elements(table: &str, link: &str, port: Option<&PortRules>) -> Vec<(String, &'static str, String)> {
    let [bridge, ip] = tables(table);
    let name = format!("\"{link}\"");
    let mut elements = vec![(bridge.clone(), PORTS, name.clone())];
    // A port of which no more is known sends nothing, and receives nothing from the others.
    if let Some(PortRules { mac, address, .. }) = port {
        elements.push((bridge.clone(), SENDERS, format!("{name} . {mac} . {address}")));
        elements.push((ip.clone(), GUESTS, address.to_string()));
    }
    if port.is_none_or(|port| !port.peers) {
        elements.push((bridge, ALONE, name));
        elements.extend(port.map(|port| (ip, ALONE, port.address.to_string())));
    }
    elements
}

/// Adds a port to tables that are there.
pub(crate) fn add(table: &str, link: &str, port: Option<&PortRules>) -> String {
    let line = |(table, set, element)| format!("add element {table} {set} {{ {element} }}\n");
    elements(table, link, port).into_iter().map(line).collect()
}

/// Removes a port from tables that are there. Nothing happens to one that is not in them.
pub(crate) fn remove(table: &str, link: &str, port: &PortRules) -> String {
    // Deleting what is not there is an error, adding what is there is none.
    let line = |(table, set, element)| {
        format!("add element {table} {set} {{ {element} }}\ndelete element {table} {set} {{ {element} }}\n")
    };
    elements(table, link, Some(port)).into_iter().map(line).collect()
}

/// Removes the tables; nothing happens when they are not there.
pub(crate) fn drop_tables(table: &str) -> String {
    tables(table).map(|table| format!("add table {table}\ndelete table {table}\n")).concat()
}

/// The tables anew, with these ports and no others.
pub(crate) fn replace(table: &str, ports: &BTreeMap<String, Option<PortRules>>) -> String {
    let ports: String = ports.iter().map(|(link, port)| add(table, link, port.as_ref())).collect();
    drop_tables(table) + &rules(table) + &ports
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn what_is_added_is_what_is_removed() {
        for peers in [true, false] {
            let port = PortRules {
                mac: "52:54:00:00:01:02".to_owned(),
                address: Ipv4Addr::new(10, 78, 0, 2),
                peers,
            };
            let added = add("t", "v0", Some(&port));
            assert_eq!(added.contains("alone"), !peers, "{added}");
            for line in added.lines() {
                assert!(remove("t", "v0", &port).contains(&line.replace("add element", "delete element")));
            }
        }
        let unknown = add("t", "v0", None);
        assert!(!unknown.contains("senders") && unknown.contains("alone"), "{unknown}");
    }
}
