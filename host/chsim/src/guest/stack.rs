//! The guest's TCP/IP, in user space: ARP, ping and the service's TCP connections, over the card.
//!
//! The service knows sockets only, so each TCP connection is carried over to one end of a pair of UNIX sockets:
//!
//! ```text
//!   tap ⇄ card ⇄ smoltcp: ARP, ping, TCP ⇄ bridge ⇄ socket pair ⇄ service
//! ```
//! Nothing happens but in [`Stack::run`], so a guest that is paused, hung or off is as silent as a real one, and frames
//! wait in the tap. Its time stands still with it.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration as Wait, Instant as Moment};
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::bridge::Bridge;
use super::card::{NetCard, Port};
use super::handle::Traffic;

/// Connections, half-open ones included. Beyond it newcomers are refused. Each takes two descriptors, and 1024 is what
/// a process gets by default.
const MAX_CONNECTIONS: usize = 400;
const RECEIVE_BYTES: usize = 32 << 10;
const SEND_BYTES: usize = 64 << 10;
/// A peer that says nothing for so long is gone; one that has nothing to say is asked now and then.
const PEER_TIMEOUT: Wait = Wait::from_secs(75);
const KEEP_ALIVE: Wait = Wait::from_secs(30);
/// Frames taken in before the rest of the guest gets its turn.
const FRAMES_AT_ONCE: usize = 256;
/// Descriptors of bridges are told from the engine's own by this bit.
const BRIDGE: u64 = 1 << 63;

pub(super) struct Stack {
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Where the service listens, and the socket that waits for the next connection unless there are too many.
    listening: Option<(u16, Option<SocketHandle>)>,
    /// Connections that are not established yet.
    half_open: Vec<SocketHandle>,
    bridges: HashMap<u64, Bridge>,
    next_bridge: u64,
    /// Start of its time.
    epoch: Instant,
    paused: Option<Instant>,
}

impl Stack {
    /// Sets the card up; its descriptors tell `epoll` with `token` that frames came in.
    pub(super) fn new(
        card: NetCard,
        (address, prefix): (Ipv4Addr, u8),
        gateway: Option<Ipv4Addr>,
        traffic: Arc<Traffic>,
        (epoll, token): (&OwnedFd, u64),
    ) -> io::Result<Self> {
        for queue in &card.queues {
            epoll::add(epoll, queue, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        }
        let mut config = Config::new(EthernetAddress(card.mac).into());
        config.random_seed = u64::from_ne_bytes(crate::random::bytes());
        let mut port = Port::new(card, traffic);
        let mut interface = Interface::new(config, &mut port, Moment::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for more than one.
            let _ = addresses.push(IpCidr::new(address.into(), prefix));
        });
        if let Some(gateway) = gateway {
            // So there is for routes.
            let _ = interface.routes_mut().add_default_ipv4_route(gateway);
        }
        Ok(Self {
            port,
            interface,
            sockets: SocketSet::new(Vec::new()),
            listening: None,
            half_open: Vec::new(),
            bridges: HashMap::new(),
            next_bridge: BRIDGE,
            epoch: Instant::now(),
            paused: None,
        })
    }

    /// Id of the card's device.
    pub(super) fn device(&self) -> &str {
        &self.port.card.id
    }

    /// Lets connections to this port in.
    pub(super) fn listen(&mut self, port: u16) {
        self.listening = Some((port, None));
        self.renew_listener();
    }

    /// Refuses further connections.
    pub(super) fn stop_listening(&mut self) {
        if let Some((_, Some(handle))) = self.listening.take() {
            self.sockets.remove(handle);
        }
    }

    pub(super) fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
    }

    pub(super) fn resume(&mut self) {
        if let Some(since) = self.paused.take() {
            self.epoch += since.elapsed();
        }
    }

    fn now(&self) -> Moment {
        Moment::from_micros(i64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(i64::MAX))
    }

    /// Takes note of what `epoll` says of a bridge; whether there can be one by this token.
    pub(super) fn event(&mut self, token: u64, flags: epoll::EventFlags) -> bool {
        if let Some(bridge) = self.bridges.get_mut(&token) {
            bridge.ready(flags);
        }
        token & BRIDGE != 0
    }

    /// Takes frames in, carries data over, sends frames. Returns the service's ends of new connections.
    pub(super) fn run(&mut self, epoll: &OwnedFd) -> Vec<UnixStream> {
        let now = self.now();
        for _ in 0..FRAMES_AT_ONCE {
            match self.interface.poll_ingress_single(now, &mut self.port, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                // The next frame may ask for another connection.
                PollIngressSingleResult::SocketStateChanged => self.renew_listener(),
            }
        }
        let opened = self.open_bridges(epoll);
        for bridge in self.bridges.values_mut() {
            bridge.carry(self.sockets.get_mut(bridge.socket), now);
        }
        self.interface.poll_maintenance(now);
        while self.interface.poll_egress(now, &mut self.port, &mut self.sockets)
            == PollResult::SocketStateChanged
        {}
        self.forget_closed();
        opened
    }

    /// Sends what the service has said and its goodbyes, and lets go of the tap.
    pub(super) fn shut_down(mut self, epoll: &OwnedFd) {
        self.stop_listening();
        for bridge in self.bridges.values_mut() {
            bridge.ready(epoll::EventFlags::IN);
        }
        drop(self.run(epoll));
        self.unplug(epoll);
    }

    /// Lets go of the tap.
    pub(super) fn unplug(self, epoll: &OwnedFd) {
        for queue in &self.port.card.queues {
            // The VMM holds the tap, too, so closing it here would leave it registered.
            let _ = epoll::delete(epoll, queue);
        }
    }

    /// Real time until it has something to do by itself.
    pub(super) fn wait(&mut self) -> Option<Duration> {
        let now = self.now();
        let own = self.interface.poll_delay(now, &self.sockets);
        let lingering = self.bridges.values().filter_map(|bridge| bridge.deadline());
        let lingering = lingering.min().map(|moment| if moment > now { moment - now } else { Wait::ZERO });
        own.into_iter().chain(lingering).min().map(Duration::from)
    }

    /// Sets the socket aside that has got a connection, and has another one wait for the next.
    fn renew_listener(&mut self) {
        let Some((port, waiting)) = &mut self.listening else {
            return;
        };
        if let Some(handle) = *waiting {
            if self.sockets.get::<Socket<'_>>(handle).state() == State::Listen {
                return;
            }
            self.half_open.push(handle);
            *waiting = None;
        }
        if self.half_open.len() + self.bridges.len() >= MAX_CONNECTIONS {
            return;
        }
        let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
        // Small answers must not wait for the acknowledgement of earlier ones.
        socket.set_nagle_enabled(false);
        // Nor must a request that its sender holds back for the acknowledgement of its first part; and at the end of a
        // connection nothing is outstanding.
        socket.set_ack_delay(None);
        socket.set_timeout(Some(PEER_TIMEOUT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        // A port is never 0.
        if socket.listen(*port).is_ok() {
            *waiting = Some(self.sockets.add(socket));
        }
    }

    fn open_bridges(&mut self, epoll: &OwnedFd) -> Vec<UnixStream> {
        let mut opened = Vec::new();
        for handle in std::mem::take(&mut self.half_open) {
            let socket: &mut Socket<'_> = self.sockets.get_mut(handle);
            match socket.state() {
                State::SynReceived => self.half_open.push(handle),
                // The peer thought better of it.
                State::Listen | State::Closed => drop(self.sockets.remove(handle)),
                _ => {
                    let token = self.next_bridge;
                    self.next_bridge = BRIDGE | (token + 1);
                    match Bridge::new(handle, epoll, token) {
                        Ok((bridge, stream)) => {
                            self.bridges.insert(token, bridge);
                            opened.push(stream);
                        }
                        Err(error) => {
                            crate::log::warn!("a connection to the guest is refused: {error}");
                            socket.abort();
                            self.bridges.insert(token, Bridge::none(handle));
                        }
                    }
                }
            }
        }
        opened
    }

    fn forget_closed(&mut self) {
        let sockets = &mut self.sockets;
        self.bridges.retain(|_, bridge| {
            // Everything was acknowledged by now. What TIME-WAIT guards against does not happen on a tap, and thousands
            // of short connections must not pile up.
            let over =
                matches!(sockets.get::<Socket<'_>>(bridge.socket).state(), State::Closed | State::TimeWait);
            if over {
                sockets.remove(bridge.socket);
            }
            !over
        });
        self.renew_listener();
    }
}
