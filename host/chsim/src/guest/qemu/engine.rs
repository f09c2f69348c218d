//! The guest's thread: what comes out of QEMU becomes news, console output and log lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use super::args::virtio_path;
use super::qmp::{Incoming, Lines, Qmp};
use crate::guest::handle::News;
use crate::host::Sink;
use crate::log::{error, info, warn};
use crate::vmm::GuestEvent;

/// How much is read at once.
const CHUNK_BYTES: usize = 16 << 10;
/// QEMU's last words that an error may quote.
const LAST_WORDS: usize = 8;
/// Drivers are looked for at this pace at first, and ever more slowly; after so long no more.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const SLOWEST_LOOK: Duration = Duration::from_secs(2);
const LOOK_FOR: Duration = Duration::from_secs(300);

/// A console: QEMU's end, and where its output goes.
pub(super) struct Port {
    pub(super) stream: UnixStream,
    pub(super) sink: Sink,
}

/// What both threads see.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The VMM wants QEMU to end: its end is not news.
    pub(super) stopping: AtomicBool,
    /// The guest runs, so that drivers can be looked for.
    pub(super) running: AtomicBool,
    pub(super) last_words: Mutex<VecDeque<String>>,
}

pub(super) struct Engine {
    pub(super) qmp: Arc<Qmp>,
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Arc<OwnedFd>,
    /// `None` once it is closed.
    pub(super) answers: Option<UnixStream>,
    pub(super) errors: Option<File>,
    pub(super) ports: Vec<Port>,
    pub(super) news: News,
    pub(super) ram_bytes: u64,
    /// Devices that no driver uses yet: id in the device tree, and QEMU's name.
    pub(super) inactive: Vec<(String, String)>,
}

/// When drivers are looked for.
struct Look {
    next: Instant,
    pace: Duration,
    until: Instant,
}

impl Engine {
    /// Runs until QEMU has closed all that it had open.
    pub(super) fn run(mut self) {
        let (mut lines, mut words) = (Lines::default(), Lines::default());
        let mut look: Option<Look> = None;
        while self.answers.is_some() || self.errors.is_some() {
            if look.is_none() && self.shared.running.load(Ordering::SeqCst) {
                let now = Instant::now();
                look = Some(Look { next: now + FIRST_LOOK, pace: FIRST_LOOK, until: now + LOOK_FOR });
            }
            self.wait(look.as_ref());
            drain(&self.waker);
            self.relay();
            if let Some(bytes) = take(&mut self.errors) {
                for line in words.push(&bytes) {
                    self.hear(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            }
            let open = self.answers.is_some();
            if let Some(bytes) = take(&mut self.answers) {
                for line in lines.push(&bytes) {
                    if let Some(incoming) = self.qmp.receive(&line) {
                        self.tell(incoming);
                    }
                }
            }
            if open && self.answers.is_none() {
                self.qmp.hang_up();
            }
            if let Some(look) = &mut look {
                self.look(look);
            }
        }
        self.relay();
        if !self.shared.stopping.load(Ordering::SeqCst) {
            (self.news)(GuestEvent::Gone);
        }
    }

    /// Sleeps until there is something to read, or drivers are to be looked for.
    fn wait(&self, look: Option<&Look>) {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.waker.as_fd()];
        fds.extend(self.answers.as_ref().map(AsFd::as_fd));
        fds.extend(self.errors.as_ref().map(AsFd::as_fd));
        for port in &self.ports {
            fds.push(port.stream.as_fd());
            fds.extend(port.sink.listener().map(AsFd::as_fd));
        }
        let mut fds: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let timeout = look
            .filter(|_| !self.inactive.is_empty())
            .and_then(|look| Timespec::try_from(look.next.saturating_duration_since(Instant::now())).ok());
        // An interrupted wait is over a little early.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    /// Passes on what the consoles print.
    fn relay(&mut self) {
        for port in &mut self.ports {
            if let Some(listener) = port.sink.listener()
                && readable(listener)
            {
                port.sink.accept();
            }
            let mut chunk = [0; CHUNK_BYTES];
            while let Ok(length @ 1..) = port.stream.read(&mut chunk) {
                port.sink.write(&chunk[..length]);
            }
        }
        // A port at its end would be readable for ever.
        self.ports.retain(|port| {
            let mut byte = [0];
            !matches!(rustix::net::recv(&port.stream, &mut byte, rustix::net::RecvFlags::PEEK), Ok((_, 0)))
        });
    }

    fn hear(&self, line: String) {
        if line.is_empty() {
            return;
        }
        warn!("qemu: {line}");
        let mut words = self.shared.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        words.push_back(line);
        while words.len() > LAST_WORDS {
            words.pop_front();
        }
    }

    fn tell(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Event { name, data } => {
                info!("qemu event {name} {data}");
                if let Some(event) = news(&name, &data, self.ram_bytes) {
                    (self.news)(event);
                }
            }
            Incoming::Posted { tag, value } => match value {
                Some(status) if is_driven(&status) => {
                    if let Some(at) = self.inactive.iter().position(|(_, name)| *name == tag) {
                        let (id, _) = self.inactive.remove(at);
                        (self.news)(GuestEvent::Activated(id));
                    }
                }
                Some(_) => {}
                None => {
                    error!(
                        "this qemu does not tell whether drivers are active: there are no activation events"
                    );
                    self.inactive.clear();
                }
            },
        }
    }

    /// Asks about all devices that were not in use so far.
    fn look(&mut self, look: &mut Look) {
        let now = Instant::now();
        if self.inactive.is_empty() || now < look.next {
            return;
        }
        if now > look.until {
            self.inactive.clear();
            return;
        }
        for (_, name) in &self.inactive {
            // A failure means that QEMU has gone, which is found out at once.
            let _ = self.qmp.post(name, "x-query-virtio-status", &json!({"path": virtio_path(name)}));
        }
        look.pace = (look.pace * 5 / 4).min(SLOWEST_LOOK);
        look.next = now + look.pace;
    }
}

/// What an event of QEMU's means to the VMM. Pure.
fn news(name: &str, data: &Value, ram_bytes: u64) -> Option<GuestEvent> {
    match (name, data["reason"].as_str()) {
        ("SHUTDOWN", Some("guest-shutdown")) => Some(GuestEvent::PowerOff),
        // With -no-reboot a reset ends in a shut down; the VMM starts the machine again, as upstream does.
        ("SHUTDOWN", Some("guest-reset")) => Some(GuestEvent::Reset),
        ("GUEST_PANICKED", _) => Some(GuestEvent::Panic),
        ("BALLOON_CHANGE", _) => {
            Some(GuestEvent::Ballooned(ram_bytes.saturating_sub(data["actual"].as_u64()?)))
        }
        _ => None,
    }
}

/// Whether a device's driver has said that it is ready.
fn is_driven(status: &Value) -> bool {
    let statuses = status["status"]["statuses"].as_array().into_iter().flatten();
    statuses.filter_map(Value::as_str).any(|status| status.starts_with("VIRTIO_CONFIG_S_DRIVER_OK"))
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn drain(waker: &OwnedFd) {
    let mut count = [0; 8];
    let _ = rustix::io::read(waker, &mut count);
}

/// What a non-blocking stream has now; the stream is dropped at its end.
fn take<R: Read>(stream: &mut Option<R>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; CHUNK_BYTES];
    match stream.as_mut()?.read(&mut bytes) {
        Ok(length @ 1..) => {
            bytes.truncate(length);
            Some(bytes)
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
        Ok(0) | Err(_) => {
            *stream = None;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_news() {
        let shutdown = |reason: &str| news("SHUTDOWN", &json!({"guest": true, "reason": reason}), 0);
        assert_eq!(shutdown("guest-shutdown"), Some(GuestEvent::PowerOff));
        assert_eq!(shutdown("guest-reset"), Some(GuestEvent::Reset));
        assert_eq!(shutdown("host-qmp-quit"), None);
        assert_eq!(news("GUEST_PANICKED", &json!({"action": "run"}), 0), Some(GuestEvent::Panic));
        assert_eq!(news("BALLOON_CHANGE", &json!({"actual": 30}), 100), Some(GuestEvent::Ballooned(70)));
        assert_eq!(news("STOP", &json!({}), 0), None);
    }

    #[test]
    fn a_device_is_driven_when_its_driver_says_so() {
        let status = |last: &str| json!({"status": {"statuses": ["VIRTIO_CONFIG_S_DRIVER: x", last]}});
        assert!(is_driven(&status("VIRTIO_CONFIG_S_DRIVER_OK: Driver setup and ready")));
        assert!(!is_driven(&status("VIRTIO_CONFIG_S_FEATURES_OK: x")));
        assert!(!is_driven(&Value::Null));
    }
}
