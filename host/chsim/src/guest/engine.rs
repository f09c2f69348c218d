//! The guest's thread: its loop, and its life from power-on to power-off.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::capacity::{Capacity, Ticket};
use super::handle::{Command, Misdeed, News, Spec, Traffic};
use super::metrics::Metrics;
use super::net::Connection;
use super::service::SWEEP;
use super::stack::Stack;
use super::timers::{Timer, Timers};
use crate::clock::{Clock, Nanos, nanos};
use crate::knobs::GuestFault;
use crate::random::{SplitMix, hash};
use crate::vmm::GuestEvent;

/// How long the guest takes to let go of a device, of vCPUs, or to fill its balloon.
const ACPI_DELAY: Nanos = 50_000_000;
/// What a boot reads from its disk.
const BOOT_READ_OPS: u64 = 900;
const BOOT_READ_BYTES: u64 = 36 << 20;

const WAKE: u64 = 0;
pub(super) const HTTP: u64 = 1;
const VSOCK: u64 = 2;
const SERIAL: u64 = 3;
pub(super) const TAP: u64 = 4;
const FIRST_CONNECTION: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Booting,
    Up,
    ShuttingDown,
    /// Hung, panicked or powered off: nothing moves any more.
    Halted,
}

pub(super) struct Engine {
    pub(super) spec: Spec,
    clock: Arc<Clock>,
    news: News,
    inbox: mpsc::Receiver<Command>,
    waker: Arc<OwnedFd>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) epoll: OwnedFd,
    pub(super) random: SplitMix,
    pub(super) phase: Phase,
    started: Nanos,
    up_at: Nanos,
    paused_at: Option<Nanos>,
    paused_for: Nanos,
    timers: Timers,
    pub(super) capacity: Capacity,
    pub(super) working: HashMap<Ticket, (u64, Nanos)>,
    pub(super) connections: HashMap<u64, Connection>,
    pub(super) listener: Option<TcpListener>,
    pub(super) stack: Option<Stack>,
    pub(super) next_id: u64,
    pub(super) next_ticket: Ticket,
    pub(super) swept: Instant,
    pub(super) metrics: Metrics,
}

impl Engine {
    pub(super) fn new(
        spec: Spec,
        clock: Arc<Clock>,
        news: News,
        inbox: mpsc::Receiver<Command>,
        waker: Arc<OwnedFd>,
        traffic: Arc<Traffic>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let add = |fd: &dyn AsFd, token| {
            epoll::add(&epoll, fd.as_fd(), epoll::EventData::new_u64(token), epoll::EventFlags::IN)
        };
        add(&waker, WAKE)?;
        if let Some(vsock) = &spec.vsock {
            vsock.set_nonblocking(true)?;
            add(vsock, VSOCK)?;
        }
        if let Some(serial) = spec.out.listener() {
            add(serial, SERIAL)?;
        }
        let now = clock.now();
        let seed = spec
            .knobs
            .seed
            .unwrap_or_else(|| hash(&format!("{}/{:?}", spec.knobs.hostname, spec.knobs.address)));
        let workers = spec.knobs.workers.unwrap_or(spec.vcpus as usize);
        let capacity = Capacity::new(workers, spec.knobs.queue, now);
        let mut engine = Self {
            random: SplitMix::new(seed),
            phase: Phase::Booting,
            started: now,
            up_at: now,
            paused_at: spec.resumed.then_some(now),
            paused_for: 0,
            timers: Timers::default(),
            capacity,
            working: HashMap::new(),
            connections: HashMap::new(),
            listener: None,
            stack: None,
            next_id: FIRST_CONNECTION,
            next_ticket: 0,
            swept: Instant::now(),
            metrics: Metrics::default(),
            spec,
            clock,
            news,
            inbox,
            waker,
            traffic,
            epoll,
        };
        engine.plan();
        Ok(engine)
    }

    /// Sets the timers of the whole boot, and of the faults.
    fn plan(&mut self) {
        let start = self.started;
        let mut boot = Duration::ZERO;
        if !self.spec.resumed {
            boot = self.spec.knobs.boot.sample(&mut self.random);
        }
        for fault in self.spec.knobs.faults.clone() {
            let mut after = |time: Duration, timer| self.timers.set(start.saturating_add(nanos(time)), timer);
            match fault {
                GuestFault::SlowBoot(more) if !self.spec.resumed => boot += more,
                GuestFault::CrashAfter(time) => after(time, Timer::Crash),
                GuestFault::HangAfter(time) => after(time, Timer::Hang),
                GuestFault::PanicAfter(time) => after(time, Timer::Panic),
                GuestFault::ResetAfter(time) => after(time, Timer::Reset),
                GuestFault::PowerOffAfter(time) => after(time, Timer::PowerOff),
                GuestFault::NeverHealthy | GuestFault::IgnorePowerButton | GuestFault::SlowBoot(_) => {}
            }
        }
        let at = |percent: u64| start.saturating_add(nanos(boot) / 100 * percent);
        self.up_at = start.saturating_add(nanos(boot));
        if !self.spec.resumed {
            let spec = &self.spec;
            for (percent, text) in [
                (0, format!("Linux version 6.1.0-regatta-model (gcc) #1 SMP, image {}", spec.kernel)),
                (0, format!("Command line: {}", spec.cmdline)),
                (5, format!("Memory: {}K available", spec.ram_bytes / 1024)),
                (10, format!("smp: Brought up 1 node, {} CPUs", spec.vcpus)),
                (40, format!("virtio: {} devices", spec.devices.len())),
                (70, "Run /sbin/init as init process".to_owned()),
            ] {
                self.timers.set(at(percent), Timer::Say(text));
            }
            self.timers.set(at(40), Timer::Activate);
        }
        self.timers.set(at(60), Timer::LinkUp);
        self.timers.set(self.up_at, Timer::Up);
    }

    /// The guest's own time: it stands still while the guest is paused.
    pub(super) fn now(&self) -> Nanos {
        self.paused_at.unwrap_or_else(|| self.clock.now()).saturating_sub(self.paused_for)
    }

    /// Its age by its own time.
    pub(super) fn since_start(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.started))
    }

    pub(super) fn say(&mut self, text: &str) {
        let seconds = self.since_start().as_secs_f64();
        self.spec.out.line(&format!("[{seconds:12.6}] {text}"));
    }

    pub(super) fn run(mut self) {
        loop {
            while let Ok(command) = self.inbox.try_recv() {
                if matches!(command, Command::Stop) {
                    return;
                }
                self.obey(command);
            }
            if self.paused_at.is_some() || self.phase == Phase::Halted {
                // Sockets stay as they are: a guest that stands still neither answers nor hangs up.
                let mut fds = [PollFd::new(&self.waker, PollFlags::IN)];
                let _ = poll(&mut fds, None);
                self.drain_waker();
                continue;
            }
            let now = self.now();
            while self.phase != Phase::Halted
                && let Some(timer) = self.timers.take_due(now)
            {
                self.fire(timer);
            }
            if self.phase == Phase::Halted {
                continue;
            }
            self.finish_work(now);
            // After the commands: nothing leaves the guest once a call that paused it was answered.
            self.run_stack();
            self.wait();
        }
    }

    fn drain_waker(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.waker, &mut count);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Pause(at) => {
                self.paused_at = Some(self.paused_at.unwrap_or(at));
                self.stack.iter_mut().for_each(Stack::pause);
            }
            Command::Resume(at) => {
                if let Some(since) = self.paused_at.take() {
                    self.paused_for += at.saturating_sub(since);
                }
                self.stack.iter_mut().for_each(Stack::resume);
            }
            Command::PowerButton => {
                if self.phase == Phase::Up && !self.spec.knobs.faults.contains(&GuestFault::IgnorePowerButton)
                {
                    self.say("systemd-logind: Power key pressed short, powering off...");
                    self.phase = Phase::ShuttingDown;
                    self.stop_listening();
                    let delay = self.spec.knobs.shutdown.sample(&mut self.random);
                    self.timers.set(self.now().saturating_add(nanos(delay)), Timer::PowerOff);
                }
            }
            Command::Nmi => self.say("Uhhuh. NMI received for unknown reason 20 on CPU 0."),
            Command::Eject(id) => self.when_up(Timer::Eject(id)),
            Command::RemoveVcpus => self.when_up(Timer::VcpusRemoved),
            Command::Balloon(bytes) => self.when_up(Timer::Ballooned(bytes)),
            Command::Vsock(listener) => {
                if listener.set_nonblocking(true).is_ok()
                    && epoll::add(
                        &self.epoll,
                        &listener,
                        epoll::EventData::new_u64(VSOCK),
                        epoll::EventFlags::IN,
                    )
                    .is_ok()
                {
                    self.spec.vsock = Some(listener);
                }
            }
            Command::Do(Misdeed::PowerOff) => self.fire(Timer::PowerOff),
            Command::Do(Misdeed::Reset) => self.fire(Timer::Reset),
            Command::Do(Misdeed::Panic) => self.fire(Timer::Panic),
            Command::Do(Misdeed::Hang) => self.fire(Timer::Hang),
            Command::Do(Misdeed::Crash) => self.fire(Timer::Crash),
            Command::Stop => {}
        }
    }

    /// A guest answers ACPI once its drivers run.
    fn when_up(&mut self, timer: Timer) {
        self.timers.set(self.now().max(self.up_at).saturating_add(ACPI_DELAY), timer);
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Say(text) => self.say(&text),
            Timer::Activate => {
                self.traffic.read_ops.fetch_add(BOOT_READ_OPS, Ordering::Relaxed);
                self.traffic.read_bytes.fetch_add(BOOT_READ_BYTES, Ordering::Relaxed);
                for id in std::mem::take(&mut self.spec.devices) {
                    (self.news)(GuestEvent::Activated(id));
                }
            }
            Timer::LinkUp => self.link_up(),
            Timer::Up => self.up(),
            Timer::Crash => {
                crate::log::error!("the guest's fault `crash` kills the VMM");
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                // The first process of a PID namespace does not hear its own signals.
                std::process::abort();
            }
            Timer::Hang => self.halt(),
            Timer::Panic => {
                self.say("Kernel panic - not syncing: Fatal exception");
                self.say("---[ end Kernel panic - not syncing: Fatal exception ]---");
                (self.news)(GuestEvent::Panic);
                self.halt();
            }
            Timer::Reset => {
                self.say("reboot: Restarting system");
                self.disconnect();
                (self.news)(GuestEvent::Reset);
                self.halt();
            }
            Timer::PowerOff => {
                self.say("reboot: Power down");
                self.disconnect();
                (self.news)(GuestEvent::PowerOff);
                self.halt();
            }
            Timer::Eject(id) => {
                self.let_go(&id);
                (self.news)(GuestEvent::Ejected(id));
            }
            Timer::VcpusRemoved => (self.news)(GuestEvent::VcpusRemoved),
            Timer::Ballooned(bytes) => (self.news)(GuestEvent::Ballooned(bytes)),
        }
    }

    fn halt(&mut self) {
        self.phase = Phase::Halted;
        self.timers.clear();
    }

    /// Sleeps until a socket, a command or a timer wants something.
    fn wait(&mut self) {
        let next = [self.timers.next(), self.capacity.next_completion()].into_iter().flatten().min();
        let mut timeout = next.and_then(|moment| self.clock.until(moment.saturating_add(self.paused_for)));
        if let Some(stack) = self.stack.as_mut().and_then(Stack::wait) {
            timeout = Some(timeout.map_or(stack, |timeout| timeout.min(stack)));
        }
        if !self.connections.is_empty() {
            timeout = Some(timeout.map_or(SWEEP, |timeout| timeout.min(SWEEP)));
        }
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = Vec::with_capacity(64);
        let ready = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        if ready.is_err() {
            return;
        }
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            if self.stack.as_mut().is_some_and(|stack| stack.event(token, flags)) {
                continue;
            }
            match token {
                WAKE => self.drain_waker(),
                HTTP => self.accept_tcp(),
                VSOCK => self.accept_vsock(),
                SERIAL => self.spec.out.accept(),
                // The stack runs next, in any case.
                TAP => {}
                id => self.serve(id, flags),
            }
        }
        self.sweep();
    }
}
