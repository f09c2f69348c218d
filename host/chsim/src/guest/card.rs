//! The guest's network card: Ethernet frames to and from a tap, each behind a header of offloads, of which none is used.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::handle::Traffic;

/// A network card to be plugged into a guest.
#[derive(Debug)]
pub(crate) struct NetCard {
    /// The device's id.
    pub(crate) id: String,
    /// The tap's queues, which do not block.
    pub(crate) queues: Vec<File>,
    pub(crate) mac: [u8; 6],
    /// Bytes of IP that a frame holds.
    pub(crate) mtu: usize,
}

/// Bytes of `virtio_net_hdr_v1`, which precedes every frame.
pub(crate) const HEADER_BYTES: usize = 12;
const ETHERNET_HEADER_BYTES: usize = 14;
/// What an IPv4 host must be able to take, and what smoltcp does.
const MTU_RANGE: (usize, usize) = (576, 9216);

/// The card as the network stack uses it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) card: NetCard,
    traffic: Arc<Traffic>,
    frame_bytes: usize,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Queue to be read first next time.
    turn: usize,
}

impl Port {
    pub(super) fn new(card: NetCard, traffic: Arc<Traffic>) -> Self {
        let frame_bytes = ETHERNET_HEADER_BYTES + card.mtu.clamp(MTU_RANGE.0, MTU_RANGE.1);
        let incoming = vec![0; HEADER_BYTES + frame_bytes];
        Self { card, traffic, frame_bytes, incoming, outgoing: Vec::new(), turn: 0 }
    }

    fn outgoing(&mut self) -> Outgoing<'_> {
        Outgoing { tap: self.card.queues.first(), buffer: &mut self.outgoing, traffic: &self.traffic }
    }
}

impl Device for Port {
    type RxToken<'a> = Incoming<'a>;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let queues = self.card.queues.len();
        for _ in 0..queues {
            self.turn = (self.turn + 1) % queues;
            loop {
                match self.card.queues[self.turn].read(&mut self.incoming) {
                    Ok(bytes) if bytes > HEADER_BYTES => {
                        Traffic::frame(&self.traffic.rx_bytes, &self.traffic.rx_frames, bytes - HEADER_BYTES);
                        let frame = &self.incoming[HEADER_BYTES..bytes];
                        let tap = self.card.queues.first();
                        let outgoing = Outgoing { tap, buffer: &mut self.outgoing, traffic: &self.traffic };
                        return Some((Incoming(frame), outgoing));
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Nothing there, or the interface is down or gone: a card without a cable.
                    Ok(_) | Err(_) => break,
                }
            }
        }
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.frame_bytes;
        capabilities
    }
}

/// A frame that came in.
#[derive(Debug)]
pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame to send.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    tap: Option<&'a File>,
    buffer: &'a mut Vec<u8>,
    traffic: &'a Traffic,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        self.buffer.clear();
        self.buffer.resize(HEADER_BYTES + bytes, 0);
        let result = fill(&mut self.buffer[HEADER_BYTES..]);
        // A frame that cannot be sent is lost, as on any network.
        if self.tap.is_some_and(|mut tap| tap.write(self.buffer).is_ok()) {
            Traffic::frame(&self.traffic.tx_bytes, &self.traffic.tx_frames, bytes);
        }
        result
    }
}
