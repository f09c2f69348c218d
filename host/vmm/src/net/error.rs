//! Why an instance's network could not be made or removed.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::instance::DirError;

/// An instance's network could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The specification makes no network.
    #[error("the network cannot be as described: {why}")]
    Spec {
        /// Why not.
        why: String,
    },
    /// The daemon may not do this.
    #[error("no permission to {what}; run the daemon as root or give it {}", needs.join(" and "))]
    NotPermitted {
        /// What was tried.
        what: String,
        /// The capabilities that it takes.
        needs: Vec<&'static str>,
    },
    /// What was made could not be written down, or read.
    #[error("its network's record")]
    Record(#[from] DirError),
    /// Taps cannot be made.
    #[error(
        "/dev/net/tun cannot be opened; load its module (modprobe tun), and let the daemon's container use the device"
    )]
    NoTun {
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no `nft`.
    #[error("the program nft is not there; install it (apt-get install nftables)")]
    NoNft,
    /// An interface with the name that is needed is someone else's. It was not touched.
    #[error(
        "interface {name} exists and is not of this instance ({}); remove it, or use another address",
        whose(alias)
    )]
    NameTaken {
        /// Its name.
        name: String,
        /// Its alias.
        alias: Option<String>,
    },
    /// The bridge is not there.
    #[error("there is no bridge {bridge}; make it (ip link add {bridge} type bridge), or let it be managed")]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// The interface is not a bridge.
    #[error("interface {bridge} is not a bridge")]
    NotABridge {
        /// Its name.
        bridge: String,
    },
    /// A bridge that is to be managed is someone else's. It was not touched.
    #[error(
        "bridge {bridge} exists and was not made for this data directory ({}); use another name, or use it unmanaged",
        whose(alias)
    )]
    ForeignBridge {
        /// Its name.
        bridge: String,
        /// Its alias.
        alias: Option<String>,
    },
    /// The address is in use.
    #[error("address {address} {by}; use a range of addresses that the host does not know")]
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
        /// By what, in words.
        by: String,
    },
    /// The host forwards no packets.
    #[error(
        "the host forwards no packets (net.ipv4.ip_forward is 0), so the instance can be neither outbound nor published; set it (sysctl -w net.ipv4.ip_forward=1), or switch both off"
    )]
    NoForwarding,
    /// `nft` refused, or hangs.
    #[error("nft cannot {what}: {said}")]
    Nft {
        /// What it was to do.
        what: String,
        /// Its words.
        said: String,
    },
    /// The kernel refused a change of an interface, address or route.
    #[error("cannot {what}")]
    Link {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file that belongs to the network cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The launch that wanted it was dropped.
    #[error("the launch was cancelled")]
    Cancelled,
}

fn whose(alias: &Option<String>) -> String {
    match alias {
        Some(alias) => format!("its alias is \"{alias}\""),
        None => "it has no alias".to_owned(),
    }
}

impl NetworkError {
    /// What a refusal by the operating system means: without permission, it says which one is missing.
    pub(crate) fn from_io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::NotPermitted { what, needs: vec!["CAP_NET_ADMIN", "CAP_SYS_ADMIN"] }
            }
            _ => Self::Link { what, source },
        }
    }
}
