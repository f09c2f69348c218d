//! `network`: the mode, and the fields that belong to it.

use std::net::Ipv4Addr;

use super::super::formats;
use super::super::network::{LINK_ADDRESS, Network, isolated_gateway, overlap, pool_room, same_network};
use super::super::outbound::Outbound;
use super::super::report::Invalid;
use super::super::section::{Item, Section};
use super::Bounds;

/// Pool of isolated networks when the manifest names none.
const ISOLATED_POOL: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 213, 0, 0), 16);
/// Address of the guest in its isolated network when the manifest names none.
const GUEST_ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 88, 0, 2), 24);

/// Fields that belong to some modes only.
const OF_MODES: [(&str, &[&str]); 10] = [
    ("pool", &["isolated", "bridge", "loopback"]),
    ("port", &["isolated", "bridge", "loopback"]),
    ("guest_address", &["isolated"]),
    ("outbound", &["isolated"]),
    ("published", &["isolated"]),
    ("bridge", &["bridge"]),
    ("subnet", &["bridge"]),
    ("gateway", &["bridge"]),
    ("peers", &["bridge"]),
    ("dns", &["isolated", "bridge"]),
];

type Pool = (Ipv4Addr, u8);

/// A field that may be missing, or be unreadable.
type Given<T> = Result<Option<T>, Invalid>;

pub(super) fn network(section: &Section<'_>, bounds: Bounds) -> Result<Network, Invalid> {
    let mode = section.item("mode").and_then(Item::word);
    let pool =
        section.optional("pool").and_then(|item| item.map(|i| i.parse(formats::ipv4_network)).transpose());
    let port = section.item("port").and_then(Item::integer);
    let guest = section
        .optional("guest_address")
        .and_then(|item| item.map(|i| i.parse(formats::host_address)).transpose());
    let flag = |name| section.optional(name).and_then(|item| item.map(Item::boolean).transpose());
    let outbound = section.optional("outbound").and_then(|item| item.map(outbound).transpose());
    let (published, peers) = (flag("published"), flag("peers"));
    let bridge = section.optional("bridge").and_then(|item| item.map(bridge).transpose());
    let subnet =
        section.optional("subnet").and_then(|item| item.map(|i| i.parse(formats::ipv4_network)).transpose());
    let gateway =
        section.optional("gateway").and_then(|item| item.map(|i| i.parse(formats::address)).transpose());
    let dns =
        section.optional("dns").and_then(|item| item.map_or(Ok(Vec::new()), |i| i.texts(formats::address)));

    let mode = mode?;
    let mut of_mode = Ok(());
    for (name, modes) in OF_MODES {
        if section.has(name) && !modes.contains(&mode) {
            let hint = format!("it belongs to {}", formats::list(modes));
            of_mode = Err(section.complain(name, format!("has no meaning with `mode: {mode}`"), Some(hint)));
        }
    }
    let network = match mode {
        "none" => Ok(Network::None),
        "loopback" => pool.and_then(|pool| {
            let (base, prefix) = loopback_pool(section, pool)?;
            Ok(Network::Loopback { base, prefix, port: port? })
        }),
        "bridge" => bridged(section, Bridged { pool, bridge, subnet, gateway, peers, dns, port }),
        _ => isolated(section, pool, guest).and_then(|((base, prefix), (guest, guest_prefix))| {
            Ok(Network::Isolated {
                base,
                prefix,
                guest,
                guest_prefix,
                outbound: outbound?.unwrap_or(Outbound::Switch(false)),
                published: published?.unwrap_or(false),
                dns: dns?,
                port: port?,
            })
        }),
    };
    let room = large_enough(section, pool.ok().flatten(), network.as_ref().ok(), bounds);
    of_mode?;
    room?;
    network
}

/// Whether a pool that the manifest names has room for all instances.
fn large_enough(
    section: &Section<'_>,
    pool: Option<Pool>,
    network: Option<&Network>,
    bounds: Bounds,
) -> Result<(), Invalid> {
    let (Some((base, prefix)), Some(max)) = (pool, bounds.max) else { return Ok(()) };
    let room = network.map_or(pool_room(prefix), Network::room);
    if room >= max {
        return Ok(());
    }
    let message = format!("has room for {room} instances, `capacity.max` is {max}");
    let fits = (9..prefix).rev().find(|&prefix| pool_room(prefix) >= max);
    let hint = fits.map(|prefix| {
        let base = Ipv4Addr::from(u32::from(base) & (u32::MAX << (32 - u32::from(prefix))));
        format!("`{base}/{prefix}` has room for {}", pool_room(prefix))
    });
    Err(section.complain("pool", message, hint))
}

fn missing(section: &Section<'_>, name: &str, mode: &str, example: &str) -> Invalid {
    section.complain(
        name,
        format!("is missing; `mode: {mode}` needs it"),
        Some(format!("for example `{example}`")),
    )
}

fn loopback_pool(section: &Section<'_>, pool: Option<Pool>) -> Result<Pool, Invalid> {
    let hint = "for example `127.40.0.0/24`";
    let Some((base, prefix)) = pool else {
        return Err(missing(section, "pool", "loopback", "127.40.0.0/24"));
    };
    if base.octets()[0] != 127 {
        return Err(section.complain("pool", "is not within 127.0.0.0/8", Some(hint.into())));
    }
    if prefix < 9 || same_network(Ipv4Addr::LOCALHOST, base, prefix) {
        let message = "must not contain 127.0.0.1, where the host's own services listen";
        return Err(section.complain("pool", message, Some(hint.into())));
    }
    Ok((base, prefix))
}

fn isolated(section: &Section<'_>, pool: Given<Pool>, guest: Given<Pool>) -> Result<(Pool, Pool), Invalid> {
    let pool = pool.and_then(|pool| routable(section, pool.unwrap_or(ISOLATED_POOL)));
    let guest = guest?.unwrap_or(GUEST_ADDRESS);
    let (address, prefix) = guest;
    let host = u32::MAX >> prefix;
    let ends = [0, host].contains(&(u32::from(address) & host));
    if ends || address.is_loopback() || address.is_multicast() || address.is_link_local() {
        let message = format!("{address} is not an address that a guest can have");
        return Err(section.complain("guest_address", message, Some("for example `10.88.0.2/24`".into())));
    }
    let pool = pool?;
    if overlap(pool, guest) {
        let network = Ipv4Addr::from(u32::from(address) & !host);
        let message = format!("contains addresses of the guests' own network, {network}/{prefix}");
        let hint = format!(
            "inside, the guest is {address} and its gateway {}; choose another `pool` or `guest_address`",
            isolated_gateway(address, prefix)
        );
        let field = if section.has("pool") { "pool" } else { "guest_address" };
        return Err(section.complain(field, message, Some(hint)));
    }
    Ok((pool, guest))
}

/// A pool of addresses to which the host can have routes.
fn routable(section: &Section<'_>, pool: Pool) -> Result<Pool, Invalid> {
    if pool.0.is_loopback() {
        let hint = "for example `10.213.0.0/16`; with the simulator, `mode: loopback`";
        return Err(section.complain("pool", "loopback addresses lead to no instance", Some(hint.into())));
    }
    if overlap(pool, (LINK_ADDRESS, 32)) {
        let message = format!("must not contain {LINK_ADDRESS}, the host's end of the links");
        return Err(section.complain("pool", message, None));
    }
    Ok(pool)
}

fn outbound(item: Item<'_>) -> Result<Outbound, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        return item.boolean().map(Outbound::Switch);
    }
    let section = item.section()?;
    let list = |name| {
        let item = section.optional(name)?;
        item.map_or(Ok(Vec::new()), |item| item.texts(formats::destination))
    };
    let (allow, deny) = (list("allow"), list("deny"));
    let (allow, deny) = (allow?, deny?);
    if allow.is_empty() && deny.is_empty() {
        if section.has_unknown() {
            return Err(Invalid);
        }
        let hint = "`outbound: true` allows everywhere, `outbound: false` nowhere";
        return Err(section.complain_here("needs `allow` or `deny`", Some(hint.to_owned())));
    }
    if allow.is_empty() && section.has("allow") {
        let hint = "leave it out to allow everywhere but `deny`, or set `outbound: false`";
        return Err(section.complain("allow", "must not be empty", Some(hint.to_owned())));
    }
    let useless =
        allow.iter().find_map(|net| deny.iter().find(|denied| denied.contains(*net)).map(|d| (net, d)));
    if let Some((net, denied)) = useless {
        let message = format!("{net} is never reached: `deny` has {denied}");
        return Err(section.complain("allow", message, Some("what is denied wins".to_owned())));
    }
    Ok(Outbound::Limited { allow, deny })
}

/// A bridge: its name, and its own address if it is to be made.
struct BridgeField {
    name: String,
    managed: Option<Pool>,
}

fn bridge(item: Item<'_>) -> Result<BridgeField, Invalid> {
    let item = item.choose()?;
    if !item.is_mapping() {
        return Ok(BridgeField { name: item.text()?, managed: None });
    }
    let section = item.section()?;
    let name = section.item("name").and_then(Item::text);
    let address = section.item("address").and_then(|item| item.parse(formats::host_address));
    Ok(BridgeField { name: name?, managed: Some(address?) })
}

struct Bridged {
    pool: Given<Pool>,
    bridge: Given<BridgeField>,
    subnet: Given<Pool>,
    gateway: Given<Ipv4Addr>,
    peers: Given<bool>,
    dns: Result<Vec<Ipv4Addr>, Invalid>,
    port: Result<u16, Invalid>,
}

fn bridged(section: &Section<'_>, fields: Bridged) -> Result<Network, Invalid> {
    let bridge = match fields.bridge {
        Ok(None) => Err(missing(section, "bridge", "bridge", "br0")),
        Ok(Some(bridge)) => Ok(bridge),
        Err(invalid) => Err(invalid),
    };
    let pool = match fields.pool {
        Ok(None) => Err(missing(section, "pool", "bridge", "10.9.0.128/25")),
        Ok(Some(pool)) => routable(section, pool),
        Err(invalid) => Err(invalid),
    };
    let (bridge, pool, subnet, gateway) = (bridge?, pool?, fields.subnet?, fields.gateway?);
    let (base, prefix) = pool;
    if bridge.managed.is_some() && subnet.is_some() {
        let message = "has no meaning with a managed bridge";
        return Err(section.complain(
            "subnet",
            message,
            Some("the bridge's address tells the network".into()),
        ));
    }
    let subnet = subnet.or(bridge.managed).unwrap_or(pool);
    let within = |address: Ipv4Addr| same_network(address, subnet.0, subnet.1);
    let shown = format!("{}/{}", Ipv4Addr::from(u32::from(subnet.0) & !(u32::MAX >> subnet.1)), subnet.1);
    if prefix < subnet.1 || !within(base) {
        return Err(section.complain("pool", format!("is not within the network {shown}"), None));
    }
    if let Some(gateway) = gateway.filter(|gateway| !within(*gateway)) {
        let message = format!("{gateway} is not within the network {shown}");
        let hint = "`subnet` tells how large the guests' network is";
        return Err(section.complain("gateway", message, Some(hint.into())));
    }
    Ok(Network::Bridge {
        bridge: bridge.name,
        managed: bridge.managed.map(|(address, _)| address),
        base,
        prefix,
        subnet_prefix: subnet.1,
        gateway,
        peers: fields.peers?.unwrap_or(false),
        dns: fields.dns?,
        port: fields.port?,
    })
}
