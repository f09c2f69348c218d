//! The guest as the VMM's thread holds it: what it is started with, what can be done to it, what it has moved.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use super::card::NetCard;
use super::engine::Engine;
use crate::clock::{Clock, Nanos, wake};
use crate::host::Sink;
use crate::knobs::Knobs;
use crate::vmm::{Counters, GuestEvent};

/// What the guest tells the VMM's thread.
pub(crate) type News = Box<dyn Fn(GuestEvent) + Send>;

/// A machine to be switched on.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) knobs: Knobs,
    pub(crate) cmdline: String,
    pub(crate) kernel: String,
    pub(crate) vcpus: u32,
    pub(crate) ram_bytes: u64,
    /// Virtio devices that its drivers will find.
    pub(crate) devices: Vec<String>,
    /// Where its output goes.
    pub(crate) out: Sink,
    pub(crate) vsock: Option<UnixListener>,
    /// The first network card, if there is a tap behind it.
    pub(crate) card: Option<NetCard>,
    /// It comes out of a snapshot: it is up already and does not boot, but stands still until it is resumed.
    pub(crate) resumed: bool,
}

/// Something the guest does at once, on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misdeed {
    PowerOff,
    Reset,
    Panic,
    Hang,
    Crash,
}

/// What the VMM does to the guest.
#[derive(Debug)]
pub(crate) enum Command {
    /// With the moment, which is that of the call and not that of its being heard.
    Pause(Nanos),
    Resume(Nanos),
    PowerButton,
    Nmi,
    Eject(String),
    RemoveVcpus,
    Balloon(u64),
    Vsock(UnixListener),
    Do(Misdeed),
    Stop,
}

/// Traffic so far, shared with the VMM's thread.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(super) rx_bytes: AtomicU64,
    pub(super) rx_frames: AtomicU64,
    pub(super) tx_bytes: AtomicU64,
    pub(super) tx_frames: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) read_ops: AtomicU64,
}

/// Payload of a full Ethernet frame.
const FRAME_BYTES: u64 = 1448;

impl Traffic {
    /// Counts data that moved through a socket of the host's, as the frames that it would have filled.
    pub(super) fn count(bytes: &AtomicU64, frames: &AtomicU64, moved: usize) {
        let moved = moved as u64;
        bytes.fetch_add(moved, Ordering::Relaxed);
        frames.fetch_add(moved.div_ceil(FRAME_BYTES), Ordering::Relaxed);
    }

    /// Counts one frame, its length without the header that a tap puts before it.
    pub(super) fn frame(bytes: &AtomicU64, frames: &AtomicU64, length: usize) {
        bytes.fetch_add(length as u64, Ordering::Relaxed);
        frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            rx_bytes: get(&self.rx_bytes),
            rx_frames: get(&self.rx_frames),
            tx_bytes: get(&self.tx_bytes),
            tx_frames: get(&self.tx_frames),
            read_bytes: get(&self.read_bytes),
            read_ops: get(&self.read_ops),
            ..Counters::default()
        }
    }
}

/// A guest that is switched on. Dropping it switches it off.
#[derive(Debug)]
pub(crate) struct Guest {
    commands: mpsc::Sender<Command>,
    waker: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    traffic: Arc<Traffic>,
}

impl Guest {
    /// Switches a machine on.
    pub(crate) fn start(spec: Spec, clock: Arc<Clock>, news: News) -> io::Result<Self> {
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        clock.wake_on_change(Arc::clone(&waker));
        let traffic = Arc::new(Traffic::default());
        let (commands, inbox) = mpsc::channel();
        let engine = Engine::new(spec, clock, news, inbox, Arc::clone(&waker), Arc::clone(&traffic))?;
        let thread = std::thread::Builder::new().name("guest".to_owned()).spawn(move || engine.run())?;
        Ok(Self { commands, waker, thread: Some(thread), traffic })
    }

    /// Does something to the guest. One that is powered off hears nothing.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            wake(&self.waker);
        }
    }

    /// I/O so far.
    pub(crate) fn counters(&self) -> Counters {
        self.traffic.counters()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A guest thread that panicked is as switched off as any other.
            let _ = thread.join();
        }
    }
}
