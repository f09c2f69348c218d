//! A machine that sends any frame that it likes, and the frames that a hostile one likes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::links::make_tap;
use super::space::{PATIENCE, Space, eventually};

/// What a tap of ours puts before every frame (`struct virtio_net_hdr`).
const HEADER: [u8; 10] = [0; 10];
const BROADCAST: Mac = [0xff; 6];

pub(super) type Mac = [u8; 6];

/// A network card without a network stack.
pub(super) struct Card(File);

impl Card {
    /// Plugs in where a VMM would open the tap.
    pub(super) fn plug(space: &Space, tap: &str) -> Self {
        Self(space.run(|| make_tap(tap).expect("a tap")))
    }

    pub(super) fn send(&self, frame: &[u8]) {
        let mut bytes = HEADER.to_vec();
        bytes.extend(frame);
        (&self.0).write_all(&bytes).expect("a card that is up");
    }

    /// A frame that came within a while.
    fn receive(&self, within: Duration) -> Option<Vec<u8>> {
        let within = Timespec::try_from(within).expect("a duration");
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if poll(&mut fds, Some(&within)).expect("poll") == 0 {
            return None;
        }
        let mut bytes = vec![0; 1 << 16];
        let len = (&self.0).read(&mut bytes).expect("a frame");
        Some(bytes[HEADER.len()..len].to_vec())
    }

    /// What came before `last`, which must come.
    pub(super) fn until(&self, last: &[u8]) -> Vec<Vec<u8>> {
        let mut before = Vec::new();
        loop {
            let frame = self.receive(PATIENCE).expect("the last frame");
            if frame == last {
                return before;
            }
            before.push(frame);
        }
    }

    /// Waits until what `other` sends comes here: a port forwards only a moment after it was plugged in.
    pub(super) fn hears(&self, other: &Card, frame: &[u8]) {
        eventually("the ports forward", || {
            other.send(frame);
            self.receive(Duration::from_millis(20)).is_some_and(|got| got == frame)
        });
        while self.receive(Duration::ZERO).is_some() {}
    }
}

pub(super) fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// Operation 1 asks, 2 answers.
pub(super) fn arp(from: Mac, operation: u16, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    let payload =
        [&head[..], &operation.to_be_bytes(), &sender.0, &sender.1.octets(), &[0; 6], &target.octets()]
            .concat();
    ethernet(BROADCAST, from, 0x0806, &payload)
}

/// An IPv4 packet with a UDP datagram in it.
pub(super) fn udp(addresses: (Ipv4Addr, Ipv4Addr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).expect("short");
    // Without a check sum, which UDP over IPv4 allows.
    let datagram =
        [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &len.to_be_bytes(), &[0; 2], payload].concat();
    let mut head = vec![0x45, 0];
    head.extend((20 + len).to_be_bytes());
    head.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    head.extend(addresses.0.octets());
    head.extend(addresses.1.octets());
    let sum: u32 = head.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    head[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    head.extend(datagram);
    head
}

/// An IPv6 packet that says that it is from a router or a server.
pub(super) fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    packet.extend([next_header, 255]);
    packet.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend(payload);
    packet
}

/// Frames that a guest must not get onto a network, with what each tries.
pub(super) fn attacks(own: Mac, address: Ipv4Addr, gateway: Ipv4Addr) -> Vec<(&'static str, Vec<u8>)> {
    let other: Mac = [0x52, 0x54, 0, 0, 0xee, 0xee];
    let far = Ipv4Addr::new(192, 0, 2, 9);
    let plain = |from, kind, packet: &[u8]| ethernet(BROADCAST, from, kind, packet);
    let own_packet = udp((address, far), (9, 9), b"own");
    let spoofed = udp((gateway, far), (9, 9), b"spoofed");
    let router_advertisement = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let tagged = |packet: &[u8]| [&[0, 5, 8, 0][..], packet].concat();
    vec![
        ("another's hardware address", plain(other, 0x0800, &own_packet)),
        ("another's address", plain(own, 0x0800, &spoofed)),
        ("no address", plain(own, 0x0800, &udp((Ipv4Addr::UNSPECIFIED, far), (68, 67), b"discover"))),
        ("ARP for the gateway", arp(own, 2, (own, gateway), far)),
        ("ARP for the gateway, asking", arp(own, 1, (own, gateway), far)),
        ("ARP with another's hardware address inside", arp(own, 2, (other, address), far)),
        ("ARP from another's hardware address", arp(other, 2, (own, address), far)),
        ("a probe for the gateway's address", arp(own, 1, (own, Ipv4Addr::UNSPECIFIED), gateway)),
        ("an answer of nobody", arp(own, 2, (own, Ipv4Addr::UNSPECIFIED), address)),
        ("a router advertisement", plain(own, 0x86dd, &ipv6(58, &router_advertisement))),
        ("an answer of a DHCPv6 server", plain(own, 0x86dd, &ipv6(17, &[2, 35, 2, 34, 0, 8, 0, 0]))),
        (
            "an answer of a DHCP server",
            plain(own, 0x0800, &udp((address, Ipv4Addr::BROADCAST), (67, 68), b"offer")),
        ),
        ("another's address in a VLAN", plain(own, 0x8100, &tagged(&spoofed))),
        ("another's address in a VLAN of providers", plain(own, 0x88a8, &tagged(&spoofed))),
        ("spanning tree", ethernet([1, 0x80, 0xc2, 0, 0, 0], own, 38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0])),
        (
            "the cloud's metadata",
            plain(own, 0x0800, &udp((address, Ipv4Addr::new(169, 254, 169, 254)), (9, 80), b"get")),
        ),
    ]
}
