//! Network namespaces for tests: processes and sockets in a network of their own, gone with the last of them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrV4, SocketFlags, SocketType, ipproto};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace.
#[derive(Debug)]
pub(crate) struct Space(File);

impl Space {
    /// A new one, empty; what stands in the way where there can be none, or no tap in it.
    pub(crate) fn new() -> Result<Self, String> {
        let make = || -> io::Result<File> {
            #[expect(
                deprecated,
                reason = "its successor is unsafe because of descriptor tables, which are not unshared here"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let made = std::thread::spawn(make).join().unwrap();
        let namespace = made.map_err(|error| format!("no network namespace can be made here ({error})"))?;
        let tun = File::options().read(true).write(true).open("/dev/net/tun");
        tun.map_err(|error| format!("/dev/net/tun cannot be used here ({error})"))?;
        Ok(Self(namespace))
    }

    /// A new one; `None`, with a line that says why, where there can be none.
    pub(crate) fn new_or_skip() -> Option<Self> {
        Self::new().inspect_err(|problem| eprintln!("skipped: {problem}")).ok()
    }

    /// Runs in a thread that is in this namespace. Sockets and processes made there are in it, too.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Names of all interfaces but the loopback.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
        names.filter(|name| *name != "lo").map(str::to_owned).collect()
    }

    /// The MAC address that this side has learned for an address.
    pub(crate) fn neighbour(&self, address: &str) -> Option<String> {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/arp").unwrap());
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(address))?;
        line.split_whitespace().nth(3).map(str::to_owned)
    }

    /// A socket that pings.
    pub(crate) fn ping(&self) -> Ping {
        let flags = SocketFlags::CLOEXEC;
        let open = || {
            rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, Some(ipproto::ICMP))
                .unwrap()
        };
        Ping(self.run(open))
    }
}

/// See [`Space::ping`].
#[derive(Debug)]
pub(crate) struct Ping(OwnedFd);

impl Ping {
    const IDENTIFIER: u16 = 0x7267;

    /// Sends an echo request.
    pub(crate) fn send(&self, address: &str, sequence: u16) {
        let mut packet = vec![8, 0, 0, 0];
        packet.extend(Self::IDENTIFIER.to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(b"is anybody there");
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        let address = SocketAddrV4::new(address.parse().unwrap(), 0);
        let sent = rustix::net::sendto(&self.0, &packet, rustix::net::SendFlags::empty(), &address).unwrap();
        assert_eq!(sent, packet.len());
    }

    /// The sequence number of the next echo reply that comes in time.
    pub(crate) fn receive(&self, within: Duration) -> Option<u16> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(within)).unwrap();
        let mut packet = [0; 256];
        loop {
            let bytes = match rustix::net::recv(&self.0, &mut packet[..], rustix::net::RecvFlags::empty()) {
                Ok((bytes, _)) => bytes,
                Err(Errno::AGAIN | Errno::INTR) => return None,
                Err(error) => panic!("{error}"),
            };
            // Behind the IP header: type, code, checksum, identifier, sequence number.
            let icmp = &packet[usize::from(packet[0] & 0xf) * 4..bytes];
            if icmp[0] == 0 && icmp[4..6] == Self::IDENTIFIER.to_be_bytes() {
                assert_eq!(&icmp[8..], b"is anybody there");
                return Some(u16::from_be_bytes([icmp[6], icmp[7]]));
            }
        }
    }
}
