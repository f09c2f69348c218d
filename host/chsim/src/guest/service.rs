//! The guest's connections: letting them in, reading requests, answering at once or when the work is done.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use regatta_util::guest_http::{Parsed, Request, reason, response};
use rustix::event::epoll;

use super::capacity::Offer;
use super::engine::{Engine, Phase};
use super::handle::Traffic;
use super::net::{Connection, Doing, Stream};
use crate::clock::{Nanos, nanos};
use crate::knobs::GuestFault;

/// Open connections; beyond it idle ones make room, and if there are none the newcomer is turned away.
const MAX_CONNECTIONS: usize = 1024;
/// A connection on which nothing moved for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How often idle connections are looked for, while there are any.
pub(super) const SWEEP: Duration = Duration::from_secs(15);

impl Engine {
    /// Closes connections that have been idle for long.
    pub(super) fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Instant::now();
        let now = self.swept;
        self.connections.retain(|_, connection| {
            connection.doing == Doing::Working || now.duration_since(connection.active) < IDLE_TIMEOUT
        });
    }

    pub(super) fn accept_tcp(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        if let Ok((stream, _)) = listener.accept() {
            self.admit(Stream::Tcp(stream));
        }
    }

    pub(super) fn accept_vsock(&mut self) {
        let Some(listener) = &self.spec.vsock else {
            return;
        };
        if let Ok((stream, _)) = listener.accept() {
            self.admit(Stream::Vsock(stream));
        }
    }

    pub(super) fn accept_bridged(&mut self, stream: UnixStream) {
        self.admit(Stream::Bridged(stream));
    }

    fn admit(&mut self, stream: Stream) {
        if self.connections.len() >= MAX_CONNECTIONS {
            let idle = self.connections.iter().filter(|(_, connection)| connection.is_idle());
            match idle.min_by_key(|(_, connection)| connection.active).map(|(id, _)| *id) {
                Some(id) => drop(self.connections.remove(&id)),
                None => return,
            }
        }
        let Ok(connection) = Connection::new(stream, Instant::now()) else {
            return;
        };
        let id = self.next_id;
        self.next_id += 1;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        if epoll::add(&self.epoll, &connection.stream, epoll::EventData::new_u64(id), flags).is_ok() {
            self.connections.insert(id, connection);
        }
    }

    pub(super) fn serve(&mut self, id: u64, flags: epoll::EventFlags) {
        // Taken out while it is served, so that serving may touch everything else.
        let Some(mut connection) = self.connections.remove(&id) else {
            return;
        };
        connection.active = Instant::now();
        if flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP) {
            return;
        }
        if flags.contains(epoll::EventFlags::OUT) {
            connection.write();
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP)
            && connection.doing != Doing::Working
        {
            let moved = connection.read();
            if connection.stream.is_counted() {
                Traffic::count(&self.traffic.rx_bytes, &self.traffic.rx_frames, moved);
            }
        }
        self.proceed(id, &mut connection);
        self.keep(id, connection);
    }

    /// Puts a connection back, with the events it waits for now.
    fn keep(&mut self, id: u64, connection: Connection) {
        if connection.dead {
            return;
        }
        let mut flags = epoll::EventFlags::empty();
        if connection.wants_write() {
            flags |= epoll::EventFlags::OUT;
        } else if connection.doing != Doing::Working {
            flags |= epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        }
        if epoll::modify(&self.epoll, &connection.stream, epoll::EventData::new_u64(id), flags).is_ok() {
            self.connections.insert(id, connection);
        }
    }

    /// Answers or starts whatever requests have come in.
    fn proceed(&mut self, id: u64, connection: &mut Connection) {
        if connection.doing == Doing::Handshake {
            match connection.handshake() {
                None => return,
                Some(Ok(port)) if port == u32::from(self.spec.knobs.port) && self.phase == Phase::Up => {
                    connection.doing = Doing::Reading;
                    self.send(connection, format!("OK {}\n", 1_073_741_824 + id).as_bytes());
                }
                // Nobody listens there: the connection is reset.
                Some(_) => {
                    connection.dead = true;
                    return;
                }
            }
        }
        while !connection.dead && !connection.wants_write() {
            match connection.next_request() {
                None => return,
                Some(Parsed::Partial) => return,
                Some(Parsed::Bad(status)) => {
                    connection.close = true;
                    let answer = response(status, "text/plain", reason(status), false, false);
                    self.send(connection, &answer);
                }
                Some(Parsed::Request(request)) => self.handle(id, connection, request),
            }
        }
    }

    fn handle(&mut self, id: u64, connection: &mut Connection, request: Request) {
        connection.close = !request.keep_alive;
        let now = self.now();
        let (status, kind, body) = match request.path.as_str() {
            "/healthz" if self.spec.knobs.faults.contains(&GuestFault::NeverHealthy) => {
                (503, "text/plain", "never healthy\n".to_owned())
            }
            "/healthz" => (200, "text/plain", "ok\n".to_owned()),
            "/metrics" => {
                self.metrics.in_flight = self.capacity.in_flight();
                self.metrics.queue_depth = self.capacity.queue_depth();
                self.metrics.utilization = self.capacity.utilization(now);
                (200, "text/plain; version=0.0.4", self.metrics.to_text())
            }
            _ => {
                let service =
                    request.work.unwrap_or_else(|| self.spec.knobs.service.sample(&mut self.random));
                let ticket = self.next_ticket;
                self.next_ticket += 1;
                // What is already done must not take up room.
                self.finish_work(now);
                match self.capacity.offer(now, ticket, nanos(service)) {
                    Offer::Started | Offer::Queued => {
                        self.working.insert(ticket, (id, now));
                        connection.doing = Doing::Working;
                        connection.request = Some(request);
                        return;
                    }
                    Offer::Refused => {
                        self.metrics.requests += 1;
                        self.metrics.rejected += 1;
                        (503, "text/plain", "overloaded\n".to_owned())
                    }
                }
            }
        };
        let answer = response(status, kind, &body, request.keep_alive, request.head);
        self.send(connection, &answer);
    }

    /// Answers the requests whose work is done.
    pub(super) fn finish_work(&mut self, now: Nanos) {
        for ticket in self.capacity.complete(now) {
            self.metrics.requests += 1;
            let Some((id, since)) = self.working.remove(&ticket) else {
                continue;
            };
            self.metrics.duration_seconds_sum += now.saturating_sub(since) as f64 / 1e9;
            self.metrics.duration_count += 1;
            // The client may have gone; its work was done all the same.
            let Some(mut connection) = self.connections.remove(&id) else {
                continue;
            };
            let Some(request) = connection.request.take() else {
                continue;
            };
            connection.doing = Doing::Reading;
            connection.active = Instant::now();
            let body = format!("{} {}\n", self.spec.knobs.hostname, self.metrics.requests);
            let answer = response(200, "text/plain", &body, request.keep_alive, request.head);
            self.send(&mut connection, &answer);
            self.proceed(id, &mut connection);
            self.keep(id, connection);
        }
    }

    fn send(&self, connection: &mut Connection, bytes: &[u8]) {
        if connection.stream.is_counted() {
            Traffic::count(&self.traffic.tx_bytes, &self.traffic.tx_frames, bytes.len());
        }
        connection.send(bytes);
    }
}
