//! How the guest is reached: over its network card where it has one, else by a socket of the host's.

use std::net::{SocketAddrV4, TcpListener};
use std::sync::Arc;

use rustix::event::epoll;

use super::engine::{Engine, HTTP, Phase, TAP};
use super::stack::Stack;

impl Engine {
    /// The kernel configures the card, some time before the service starts. An address of the loopback needs no card:
    /// it is served on the host's.
    pub(super) fn link_up(&mut self) {
        let knobs = &self.spec.knobs;
        let (Some(address), Some(card)) = (knobs.address, self.spec.card.take()) else {
            return;
        };
        if address.is_loopback() {
            return;
        }
        let (network, epoll) = ((address, knobs.prefix), (&self.epoll, TAP));
        match Stack::new(card, network, knobs.gateway, Arc::clone(&self.traffic), epoll) {
            Ok(stack) => self.stack = Some(stack),
            Err(error) => {
                crate::log::error!("the guest's network card cannot be used: {error}");
                self.say(&format!("eth0: cannot be brought up: {error}"));
            }
        }
    }

    pub(super) fn up(&mut self) {
        self.phase = Phase::Up;
        self.metrics.boot_seconds = self.since_start().as_secs_f64();
        let Some(address) = self.spec.knobs.address else {
            self.say("regatta-guest: no ip= on the command line, no network service");
            return;
        };
        let address = SocketAddrV4::new(address, self.spec.knobs.port);
        let bound = match &mut self.stack {
            Some(stack) => {
                stack.listen(address.port());
                Ok(None)
            }
            None => TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                epoll::add(&self.epoll, &listener, epoll::EventData::new_u64(HTTP), epoll::EventFlags::IN)?;
                Ok(Some(listener))
            }),
        };
        match bound {
            Ok(listener) => {
                self.listener = listener;
                self.say(&format!("regatta-guest: {} serves http://{address}", self.spec.knobs.hostname));
            }
            Err(error) => {
                crate::log::error!("guest service cannot bind {address}: {error}");
                self.say(&format!("regatta-guest: cannot bind {address}: {error}"));
            }
        }
    }

    /// The service takes no more connections; those that it has go on.
    pub(super) fn stop_listening(&mut self) {
        self.listener = None;
        if let Some(stack) = &mut self.stack {
            stack.stop_listening();
        }
    }

    /// The service ends, and the network with it.
    pub(super) fn disconnect(&mut self) {
        self.listener = None;
        self.connections.clear();
        if let Some(stack) = self.stack.take() {
            stack.shut_down(&self.epoll);
        }
    }

    /// The guest lets go of a device, which may be its network card.
    pub(super) fn let_go(&mut self, device: &str) {
        if let Some(stack) = self.stack.take_if(|stack| stack.device() == device) {
            stack.unplug(&self.epoll);
        }
        self.spec.card.take_if(|card| card.id == device);
    }

    /// Lets the network stack do what it has to.
    pub(super) fn run_stack(&mut self) {
        let Some(stack) = &mut self.stack else {
            return;
        };
        for stream in stack.run(&self.epoll) {
            self.accept_bridged(stream);
        }
    }
}
