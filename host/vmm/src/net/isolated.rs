//! An isolated network: everything is made inside a new namespace; its one end outside appears at the last step, complete with its alias.
//!
//! So whatever interrupts the making, the host has either nothing but set elements in our own table, or an interface that says whose it is.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use rtnetlink::LinkVeth;

use super::links::{Links, forwards, keep_tap, make_tap, set_sysctl};
use super::plan::{HOST_END, INNER_TAP, Record, UPLINK};
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
        if (spec.outbound || spec.published) && !forwards()? {
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
        make_veth(&inner, spec, &record.link, alias).await?;
        steps.reached("veth made")?;
        nft::apply("set the rules of the instance", &rules::inner(spec.address, spec.guest, spec.outbound))
            .await?;
        steps.reached("inner rules set")?;

        // From the table's rules to the interface they are for, no other may find the table unused and remove it.
        let mut users = self.users().await;
        host.enter().map_err(entered)?;
        let table = self.names().table();
        let script = rules::outer_add(&table, &record.link, spec.outbound, spec.published);
        nft::apply("set the rules of the host", &script).await?;
        users.insert(record.link.clone());
        steps.reached("outer rules set")?;
        let index = inner.index(&record.link).await?;
        let moved = inner.change(&record.link, index, |link| link.setns_by_fd(host.fd().as_raw_fd())).await;
        drop(users);
        self.moved(moved, &outer, &record.link).await?;
        steps.reached("veth moved")?;

        set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", record.link), "1", true)?;
        let index = outer.index(&record.link).await?;
        outer.address(index, HOST_END, 32).await?;
        outer.change(&record.link, index, |link| link.up()).await?;
        steps.reached("veth up")?;
        outer.route_to_neighbour(spec.address, index, HOST_END).await?;
        steps.reached("route set")?;
        Ok(namespace)
    }

    /// Someone may have taken the name since it was looked up.
    async fn moved(
        &self,
        moved: Result<(), NetworkError>,
        outer: &Links,
        name: &str,
    ) -> Result<(), NetworkError> {
        match moved {
            Err(NetworkError::Link { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {
                let alias = outer.find(name).await?.and_then(|link| link.alias);
                Err(NetworkError::NameTaken { name: name.to_owned(), alias })
            }
            other => other,
        }
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

async fn make_veth(
    inner: &Links,
    spec: &IsolatedNetwork,
    outer_name: &str,
    alias: &str,
) -> Result<(), NetworkError> {
    inner.add(outer_name, LinkVeth::new(outer_name, UPLINK).build()).await?;
    let index = inner.index(outer_name).await?;
    inner.change(outer_name, index, |link| link.alias(alias)).await?;
    let uplink = inner.index(UPLINK).await?;
    inner.address(uplink, spec.address, 32).await?;
    inner.change(UPLINK, uplink, |link| link.up()).await?;
    inner.route_to_neighbour(HOST_END, uplink, spec.address).await?;
    inner.default_route(HOST_END, uplink).await
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
