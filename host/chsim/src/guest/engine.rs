//! The guest's thread: its loop, its life from power-on to power-off, and its connections.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};

use super::capacity::{Capacity, Offer, Ticket};
use super::http::{Parsed, Request, Target, response};
use super::metrics::Metrics;
use super::net::{Connection, Doing, Stream};
use super::timers::{Timer, Timers};
use crate::clock::{Clock, Nanos, wake};
use crate::host::Sink;
use crate::knobs::{GuestFault, Knobs};
use crate::random::{SplitMix, hash};
use crate::vmm::{Counters, GuestEvent};

/// Open connections; beyond it idle ones make room, and if there are none the newcomer is turned away.
const MAX_CONNECTIONS: usize = 1024;
/// A connection on which nothing moved for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
const SWEEP: Duration = Duration::from_secs(15);
/// How long the guest takes to let go of a device, of vCPUs, or to fill its balloon.
const ACPI_DELAY: Nanos = 50_000_000;
/// What a boot reads from its disk.
const BOOT_READ_OPS: u64 = 900;
const BOOT_READ_BYTES: u64 = 36 << 20;

const WAKE: u64 = 0;
const HTTP: u64 = 1;
const VSOCK: u64 = 2;
const SERIAL: u64 = 3;
const FIRST_CONNECTION: u64 = 16;

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
    /// It comes out of a snapshot: it is up already, and does not boot.
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
    Pause,
    Resume,
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
    rx_bytes: AtomicU64,
    rx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    tx_frames: AtomicU64,
    read_bytes: AtomicU64,
    read_ops: AtomicU64,
}

/// Payload of a full Ethernet frame.
const FRAME_BYTES: u64 = 1448;

impl Traffic {
    fn count(bytes: &AtomicU64, frames: &AtomicU64, moved: usize) {
        let moved = moved as u64;
        bytes.fetch_add(moved, Ordering::Relaxed);
        frames.fetch_add(moved.div_ceil(FRAME_BYTES), Ordering::Relaxed);
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
            write_bytes: 0,
            write_ops: 0,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Booting,
    Up,
    ShuttingDown,
    /// Hung, panicked or powered off: nothing moves any more.
    Halted,
}

struct Engine {
    spec: Spec,
    clock: Arc<Clock>,
    news: News,
    inbox: mpsc::Receiver<Command>,
    waker: Arc<OwnedFd>,
    traffic: Arc<Traffic>,
    epoll: OwnedFd,
    random: SplitMix,
    phase: Phase,
    started: Nanos,
    up_at: Nanos,
    paused_at: Option<Nanos>,
    paused_for: Nanos,
    timers: Timers,
    capacity: Capacity,
    working: HashMap<Ticket, (u64, Nanos)>,
    connections: HashMap<u64, Connection>,
    listener: Option<TcpListener>,
    next_id: u64,
    next_ticket: Ticket,
    swept: Instant,
    metrics: Metrics,
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Engine {
    fn new(
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
            paused_at: None,
            paused_for: 0,
            timers: Timers::default(),
            capacity,
            working: HashMap::new(),
            connections: HashMap::new(),
            listener: None,
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
        self.timers.set(self.up_at, Timer::Up);
    }

    /// The guest's own time: it stands still while the guest is paused.
    fn now(&self) -> Nanos {
        self.paused_at.unwrap_or_else(|| self.clock.now()).saturating_sub(self.paused_for)
    }

    fn say(&mut self, text: &str) {
        let seconds = self.now().saturating_sub(self.started) as f64 / 1e9;
        self.spec.out.line(&format!("[{seconds:12.6}] {text}"));
    }

    fn run(mut self) {
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
            self.wait();
        }
    }

    fn drain_waker(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.waker, &mut count);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Pause => self.paused_at = Some(self.paused_at.unwrap_or_else(|| self.clock.now())),
            Command::Resume => {
                if let Some(since) = self.paused_at.take() {
                    self.paused_for += self.clock.now().saturating_sub(since);
                }
            }
            Command::PowerButton => {
                if self.phase == Phase::Up && !self.spec.knobs.faults.contains(&GuestFault::IgnorePowerButton)
                {
                    self.say("systemd-logind: Power key pressed short, powering off...");
                    self.phase = Phase::ShuttingDown;
                    self.listener = None;
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
            Timer::Up => self.up(),
            Timer::Crash => {
                crate::log::error!("the guest's fault `crash` kills the VMM");
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
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
            Timer::Eject(id) => (self.news)(GuestEvent::Ejected(id)),
            Timer::VcpusRemoved => (self.news)(GuestEvent::VcpusRemoved),
            Timer::Ballooned(bytes) => (self.news)(GuestEvent::Ballooned(bytes)),
        }
    }

    fn halt(&mut self) {
        self.phase = Phase::Halted;
        self.timers.clear();
    }

    fn disconnect(&mut self) {
        self.listener = None;
        self.connections.clear();
    }

    fn up(&mut self) {
        self.phase = Phase::Up;
        self.metrics.boot_seconds = self.now().saturating_sub(self.started) as f64 / 1e9;
        let Some(address) = self.spec.knobs.address else {
            self.say("regatta-guest: no ip= on the command line, no network service");
            return;
        };
        let address = SocketAddrV4::new(address, self.spec.knobs.port);
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            epoll::add(&self.epoll, &listener, epoll::EventData::new_u64(HTTP), epoll::EventFlags::IN)?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => {
                self.listener = Some(listener);
                self.say(&format!("regatta-guest: {} serves http://{address}", self.spec.knobs.hostname));
            }
            Err(error) => {
                crate::log::error!("guest service cannot bind {address}: {error}");
                self.say(&format!("regatta-guest: cannot bind {address}: {error}"));
            }
        }
    }

    /// Sleeps until a socket, a command or a timer wants something.
    fn wait(&mut self) {
        let next = [self.timers.next(), self.capacity.next_completion()].into_iter().flatten().min();
        let mut timeout = next.and_then(|moment| self.clock.until(moment.saturating_add(self.paused_for)));
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
            match event.data.u64() {
                WAKE => self.drain_waker(),
                HTTP => self.accept_tcp(),
                VSOCK => self.accept_vsock(),
                SERIAL => self.spec.out.accept(),
                id => self.serve(id, event.flags),
            }
        }
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            let now = self.swept;
            self.connections.retain(|_, connection| {
                connection.doing == Doing::Working || now.duration_since(connection.active) < IDLE_TIMEOUT
            });
        }
    }

    fn accept_tcp(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        if let Ok((stream, _)) = listener.accept() {
            self.admit(Stream::Tcp(stream));
        }
    }

    fn accept_vsock(&mut self) {
        let Some(listener) = &self.spec.vsock else {
            return;
        };
        if let Ok((stream, _)) = listener.accept() {
            self.admit(Stream::Vsock(stream));
        }
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

    fn serve(&mut self, id: u64, flags: epoll::EventFlags) {
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
            Traffic::count(&self.traffic.rx_bytes, &self.traffic.rx_frames, moved);
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
                Some(Parsed::Bad(status, reason)) => {
                    connection.close = true;
                    let answer = response(status, reason, "text/plain", reason, false, false);
                    self.send(connection, &answer);
                }
                Some(Parsed::Request(request)) => self.handle(id, connection, request),
            }
        }
    }

    fn handle(&mut self, id: u64, connection: &mut Connection, request: Request) {
        connection.close = !request.keep_alive;
        let now = self.now();
        let (status, reason, kind, body) = match request.target {
            Target::Health if self.spec.knobs.faults.contains(&GuestFault::NeverHealthy) => {
                (503, "Service Unavailable", "text/plain", "never healthy\n".to_owned())
            }
            Target::Health => (200, "OK", "text/plain", "ok\n".to_owned()),
            Target::Metrics => {
                self.metrics.in_flight = self.capacity.in_flight();
                self.metrics.queue_depth = self.capacity.queue_depth();
                self.metrics.utilization = self.capacity.utilization(now);
                (200, "OK", "text/plain; version=0.0.4", self.metrics.to_text())
            }
            Target::Work(work) => {
                let service = work.unwrap_or_else(|| self.spec.knobs.service.sample(&mut self.random));
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
                        (503, "Service Unavailable", "text/plain", "overloaded\n".to_owned())
                    }
                }
            }
        };
        let answer = response(status, reason, kind, &body, request.keep_alive, request.head);
        self.send(connection, &answer);
    }

    /// Answers the requests whose work is done.
    fn finish_work(&mut self, now: Nanos) {
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
            let answer = response(200, "OK", "text/plain", &body, request.keep_alive, request.head);
            self.send(&mut connection, &answer);
            self.proceed(id, &mut connection);
            self.keep(id, connection);
        }
    }

    fn send(&self, connection: &mut Connection, bytes: &[u8]) {
        Traffic::count(&self.traffic.tx_bytes, &self.traffic.tx_frames, bytes.len());
        connection.send(bytes);
    }
}
