//! Interfaces, addresses and routes of one network namespace, over netlink.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridgePort, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::NetworkError;
use super::plan::{Kind, Listed};
use crate::sys;

/// A netlink socket in the namespace in which the thread was when it was made. Needs a runtime.
#[derive(Debug)]
pub(super) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    /// The socket would keep its namespace alive.
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Where packets to an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// To this machine itself.
    pub(super) local: bool,
    /// Length of the prefix of the route.
    pub(super) prefix: u8,
    /// Index of the interface.
    pub(super) interface: Option<u32>,
}

impl Links {
    pub(super) fn connect() -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| NetworkError::from_io("open a netlink socket", source))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Every interface.
    pub(super) async fn list(&self) -> Result<Vec<Listed>, NetworkError> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        Ok(links.map_err(|error| failed("list interfaces", error))?.into_iter().map(listed).collect())
    }

    /// The interface of this name, if there is one.
    pub(super) async fn find(&self, name: &str) -> Result<Option<Listed>, NetworkError> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found.map_err(io_error) {
            Ok(link) => Ok(link.map(listed)),
            Err(error) if is_no_device(&error) => Ok(None),
            Err(error) => Err(NetworkError::from_io(format!("look up interface {name}"), error)),
        }
    }

    /// The index of an interface that was made just now.
    pub(super) async fn index(&self, name: &str) -> Result<u32, NetworkError> {
        match self.find(name).await? {
            Some(link) => Ok(link.index),
            None => Err(NetworkError::from_io(
                format!("find interface {name}"),
                io::Error::from(io::ErrorKind::NotFound),
            )),
        }
    }

    /// Makes an interface.
    pub(super) async fn add(&self, name: &str, message: LinkMessage) -> Result<(), NetworkError> {
        let added = self.handle.link().add(message).execute().await;
        added.map_err(|error| failed(format!("make interface {name}"), error))
    }

    /// Changes interface `index`.
    pub(super) async fn change(
        &self,
        name: &str,
        index: u32,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetworkError> {
        let message = change(LinkUnspec::new_with_index(index)).build();
        let changed = self.handle.link().change(message).execute().await;
        changed.map_err(|error| failed(format!("change interface {name}"), error))
    }

    /// Keeps a port of a bridge from all other ports that are kept so.
    pub(super) async fn isolate_port(&self, name: &str, index: u32) -> Result<(), NetworkError> {
        let message = LinkBridgePort::new(index).isolated(true).build();
        let changed = self.handle.link().set_port(message).execute().await;
        changed.map_err(|error| failed(format!("isolate port {name}"), error))
    }

    /// Removes an interface; nothing happens when it has gone by itself.
    pub(super) async fn remove(&self, name: &str, index: u32) -> Result<(), NetworkError> {
        match self.handle.link().del(index).execute().await.map_err(io_error) {
            Err(error) if !is_no_device(&error) => {
                Err(NetworkError::from_io(format!("remove interface {name}"), error))
            }
            _ => Ok(()),
        }
    }

    /// Gives an interface an address, if it does not have it already.
    pub(super) async fn address(
        &self,
        index: u32,
        address: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let added = self.handle.address().add(index, IpAddr::V4(address), prefix).replace().execute().await;
        added.map_err(|error| failed(format!("set address {address}/{prefix}"), error))
    }

    /// Adds the route to one address on the other side of an interface, with `source` as own address.
    pub(super) async fn route_to_neighbour(
        &self,
        neighbour: Ipv4Addr,
        index: u32,
        source: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(neighbour, 32)
            .output_interface(index)
            .pref_source(source)
            .scope(RouteScope::Link);
        let added = self.handle.route().add(route.build()).execute().await;
        added.map_err(|error| failed(format!("set a route to {neighbour}"), error))
    }

    /// Adds the default route.
    pub(super) async fn default_route(&self, gateway: Ipv4Addr, index: u32) -> Result<(), NetworkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index);
        let added = self.handle.route().add(route.build()).execute().await;
        added.map_err(|error| failed(format!("set the default route by {gateway}"), error))
    }

    /// Where packets to this address go; `None` when they go nowhere (also by a route that says so).
    pub(super) async fn route_of(&self, address: Ipv4Addr) -> Result<Option<Route>, NetworkError> {
        let mut asked = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build();
        // The route as it is in the table, not what was made of it for this one address.
        asked.header.flags = RouteFlags::FibMatch;
        match self.handle.route().get(asked).execute().try_next().await.map_err(io_error) {
            Ok(route) => Ok(route.as_ref().map(read_route)),
            // No route, or one of the kinds unreachable, blackhole and prohibit.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(NetworkError::from_io(format!("look up the route to {address}"), error)),
        }
    }
}

/// Makes a tap in the calling thread's namespace. It is gone with the returned file unless it is kept.
pub(super) fn make_tap(name: &str) -> Result<File, NetworkError> {
    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|source| NetworkError::NoTun { source })?;
    sys::attach_tap(&tun, name)
        .map_err(|source| NetworkError::from_io(format!("make tap {name}"), source))?;
    Ok(tun)
}

/// Makes a tap outlive its file, and lets user `owner` open it.
pub(super) fn keep_tap(tap: &File, name: &str, owner: Option<u32>) -> Result<(), NetworkError> {
    sys::keep_tap(tap, owner).map_err(|source| NetworkError::from_io(format!("keep tap {name}"), source))
}

/// Sets a kernel setting of the calling thread's namespace, such as `ipv4/ip_forward`. With `optional`, one that this kernel does not have
/// is left out.
pub(super) fn set_sysctl(setting: &str, value: &str, optional: bool) -> Result<(), NetworkError> {
    let path = std::path::Path::new("/proc/sys/net").join(setting);
    match std::fs::write(&path, value) {
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(NetworkError::File { what: "set", path, source }),
        Ok(()) => Ok(()),
    }
}

/// Whether the calling thread's namespace forwards packets.
pub(super) fn forwards() -> Result<bool, NetworkError> {
    let path = std::path::PathBuf::from("/proc/sys/net/ipv4/ip_forward");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() != "0"),
        Err(source) => Err(NetworkError::File { what: "read", path, source }),
    }
}

fn listed(message: LinkMessage) -> Listed {
    let mut listed = Listed {
        index: message.header.index,
        name: String::new(),
        alias: None,
        mac: Vec::new(),
        kind: Kind::Other,
        master: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => listed.name = name,
            LinkAttribute::IfAlias(alias) => listed.alias = Some(alias),
            LinkAttribute::Address(mac) => listed.mac = mac,
            LinkAttribute::Controller(index) => listed.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Bridge) => listed.kind = Kind::Bridge,
                        LinkInfo::Kind(InfoKind::Veth) => listed.kind = Kind::Veth,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    listed
}

fn read_route(route: &RouteMessage) -> Route {
    let interface = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let local = matches!(
        route.header.kind,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast
    );
    Route { local, prefix: route.header.destination_prefix_length, interface }
}

fn failed(what: impl Into<String>, error: rtnetlink::Error) -> NetworkError {
    NetworkError::from_io(what, io_error(error))
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}

fn is_no_device(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
}
