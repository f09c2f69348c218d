//! An isolated network: a tap in a new namespace, joined to the host by a veth.
//!
//! While it is made, the namespace is held by one thread and one descriptor of ours. Whatever interrupts the making, the kernel removes the
//! namespace with everything in it and the veth's other end, and the host has nothing left but set elements in our own table.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::links::{Links, forwards, keep_tap, make_tap, set_sysctl};
use super::plan::{HOST_END, INNER_TAP, LinkRules, Record, UPLINK};
use super::reach::Reach;
use super::space::Namespace;
use super::{HostNetwork, NetworkError, Steps, nft, rules};
use crate::instance::IsolatedNetwork;

/// Routes at most this specific do not claim an address: the default route, or its two halves as VPNs set them.
const DEFAULT_PREFIX_LIMIT: u8 = 1;

impl HostNetwork {
    /// Makes the network and returns its namespace, which is gone with the last process in it. Runs in a thread of its own.
    pub(super) async fn make_isolated(
        &self,
        spec: &IsolatedNetwork,
        record: &Record,
        alias: &str,
        owner: Option<u32>,
        steps: &mut Steps<'_>,
    ) -> Result<Namespace, NetworkError> {
        let host = self.outer()?;
        let outer = Links::connect()?;
        let Some(LinkRules::Veth(may)) = record.rules else {
            return Err(NetworkError::Spec { why: "its record has no rules".to_owned() });
        };
        if (may.outbound || may.published) && !forwards()? {
            return Err(NetworkError::NoForwarding);
        }
        self.free_name(&outer, &record.link, alias).await?;
        check_free(&outer, spec.address).await?;

        let entered = |source| NetworkError::from_io("make a network namespace", source);
        let namespace = Namespace::enter_new().map_err(entered)?;
        steps.reached("namespace made")?;
        let inner = Links::connect()?;
        prepare_namespace(&inner).await?;
        make_inner_tap(&inner, spec, owner).await?;
        steps.reached("tap made")?;
        let reach = spec.outbound.as_ref().map(Reach::of).unwrap_or_default();
        nft::apply("set the rules of the instance", &rules::inner(spec.address, spec.guest, &reach)).await?;
        steps.reached("inner rules set")?;

        // From the table's rules to the alias of the interface they are for, no other may find the table unused and remove it.
        let mut table = self.table().await;
        host.enter().map_err(entered)?;
        self.admit(&mut table, &outer, &record.link, may).await?;
        steps.reached("outer rules set")?;
        let index = make_veth(&outer, &record.link, alias, &namespace, steps).await?;
        drop(table);
        steps.reached("veth named")?;

        set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", record.link), "1", true)?;
        outer.address(index, HOST_END, 32).await?;
        outer.change(&record.link, index, |link| link.up()).await?;
        outer.route_to_neighbour(spec.address, index, HOST_END).await?;
        steps.reached("outer end up")?;
        let uplink = inner.index(UPLINK).await?;
        inner.address(uplink, spec.address, 32).await?;
        inner.change(UPLINK, uplink, |link| link.up()).await?;
        inner.route_to_neighbour(HOST_END, uplink, spec.address).await?;
        inner.default_route(HOST_END, uplink).await?;
        steps.reached("inner end up")?;
        Ok(namespace)
    }
}

async fn prepare_namespace(inner: &Links) -> Result<(), NetworkError> {
    set_sysctl("ipv4/ip_forward", "1", false)?;
    for scope in ["all", "default"] {
        set_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1", true)?;
    }
    let lo = inner.index("lo").await?;
    inner.change("lo", lo, |link| link.up()).await
}

async fn make_inner_tap(
    inner: &Links,
    spec: &IsolatedNetwork,
    owner: Option<u32>,
) -> Result<(), NetworkError> {
    let tap = make_tap(INNER_TAP)?;
    keep_tap(&tap, INNER_TAP, owner)?;
    drop(tap);
    let index = inner.index(INNER_TAP).await?;
    inner.address(index, spec.gateway, spec.prefix).await?;
    inner.change(INNER_TAP, index, |link| link.up()).await
}

/// Makes both ends where they belong, as moving one takes the kernel much longer. Returns the index of the outer one.
pub(super) async fn make_veth(
    outer: &Links,
    name: &str,
    alias: &str,
    namespace: &Namespace,
    steps: &mut Steps<'_>,
) -> Result<u32, NetworkError> {
    let peer = LinkUnspec::new_with_name(UPLINK).setns_by_fd(namespace.fd().as_raw_fd()).build();
    let veth = LinkVeth::new(name, UPLINK).set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    match outer.add(name, veth.build()).await {
        // Someone took the name since it was looked up.
        Err(NetworkError::Link { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
            let alias = outer.find(name).await?.and_then(|link| link.alias);
            return Err(NetworkError::NameTaken { name: name.to_owned(), alias });
        }
        other => other?,
    }
    let index = outer.index(name).await?;
    let named = match steps.reached("veth made") {
        Ok(()) => outer.change(name, index, |link| link.alias(alias)).await,
        error => error,
    };
    if let Err(error) = named {
        // Without its alias no one else would know that it is ours.
        outer.remove(name, index).await?;
        return Err(error);
    }
    Ok(index)
}

/// Fails if the host has this address, or knows a way to it.
async fn check_free(outer: &Links, address: Ipv4Addr) -> Result<(), NetworkError> {
    let Some(route) = outer.route_of(address).await? else {
        return Ok(());
    };
    if !route.local && route.prefix <= DEFAULT_PREFIX_LIMIT {
        return Ok(());
    }
    let interface = match route.interface {
        Some(index) => outer.list().await?.into_iter().find(|link| link.index == index),
        None => None,
    };
    let of = interface.map(|link| format!(" on interface {}", link.name)).unwrap_or_default();
    let by = if route.local {
        format!("is the host's own{of}")
    } else {
        format!("is in a network that the host has a route to (prefix length {}){of}", route.prefix)
    };
    Err(NetworkError::AddressTaken { address, by })
}
