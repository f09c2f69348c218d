//! What goes wrong, and who wants something, at any moment of the wild part.

use regatta_core::agent::{Key, Report};
use regatta_core::phase::Phase;

use crate::event::Event;
use crate::guest::Guest;
use crate::node::{EVENT_BYTES, Stage};
use crate::operator::NAMES;
use crate::world::World;

const HOUR_MS: i64 = 3_600_000;

/// How wild a world is, each in cases of a thousand: some worlds have none of a kind.
#[derive(Debug, Default)]
pub(crate) struct Temper {
    pub(crate) store_fails: u32,
    pub(crate) answers_lost: u32,
    pub(crate) launch_fails: u32,
    pub(crate) twice: u32,
    /// Longest delay of reports and orders, milliseconds.
    pub(crate) late_ms: u64,
    pub(crate) kills: u32,
    pub(crate) time: u32,
    pub(crate) guests: u32,
    pub(crate) operators: u32,
    /// New guests that break soon after they answer.
    pub(crate) sick: u32,
    /// Clients that never leave.
    pub(crate) sticky: bool,
    /// Milliseconds between two pieces of chaos, at most.
    pub(crate) pause_ms: u64,
}

impl World {
    /// Draws the temper of a world.
    pub(crate) fn draw_temper(&mut self) {
        let dice = &mut self.dice;
        let mut some = |most: u32| if dice.per_mille(350) { 0 } else { dice.small(0..=most) };
        self.temper = Temper {
            store_fails: some(60),
            answers_lost: some(30),
            launch_fails: some(250),
            twice: some(100),
            kills: some(200),
            time: some(250),
            guests: some(500),
            operators: some(600),
            sick: 0,
            late_ms: u64::from(some(30_000)),
            sticky: some(2) > 0,
            pause_ms: 0,
        };
        self.temper.sick = if self.dice.per_mille(100) { 800 } else { 0 };
        self.temper.pause_ms = self.dice.within(500..=8_000);
    }

    /// Something goes wrong, or somebody wants something.
    pub(crate) fn chaos(&mut self) {
        if self.calm {
            return;
        }
        let pause_ms = self.dice.within(50..=self.temper.pause_ms);
        self.at(pause_ms, Event::Chaos);
        if self.clock.stopped_until().is_none() && self.dice.per_mille(100) {
            let name = self.dice.pick(&NAMES).unwrap_or(NAMES[0]);
            self.create_set(name);
        }
        if self.dice.per_mille(150) {
            let name = self.dice.pick(&NAMES).unwrap_or(NAMES[0]);
            let demand = self.dice.share() * 6.0;
            self.demand.insert(name.to_owned(), demand);
        }
        // Nobody talks to a process that is stopped.
        if self.clock.stopped_until().is_none() && self.dice.per_mille(self.temper.operators) {
            self.command_any();
        }
        if self.dice.per_mille(self.temper.guests) {
            self.guest_trouble();
        }
        // A drain is short: a clock that jumps would seldom meet one.
        let drains =
            self.store.sets.values().any(|set| set.instances.values().any(|it| it.phase == Phase::Draining));
        if self.dice.per_mille(self.temper.time * if drains { 6 } else { 1 }) {
            self.time_trouble();
        }
        if self.dice.per_mille(self.temper.kills) {
            self.fuse = Some(self.dice.small(0..=6));
        }
        if !self.store_down && self.dice.per_mille(self.temper.store_fails / 2) {
            self.story.tell(|| "the disk is full".to_owned());
            self.store_down = true;
            let ms = self.dice.within(1_000..=40_000);
            self.at(ms, Event::StoreBack);
        }
    }

    fn guest_trouble(&mut self) {
        let running = self.node.keys(|vm| vm.is_alive() && !vm.stopping);
        let Some(key) = self.dice.pick(&running) else { return };
        let now_ms = self.clock.real_ms;
        let Some(vm) = self.node.vms.get_mut(&key) else { return };
        let what = match self.dice.small(0..=9) {
            0 | 1 => {
                let was = std::mem::replace(&mut vm.stage, Stage::Ended);
                // A launch that loses its VMM notices by itself.
                if was == Stage::Running {
                    self.news(&key, Report::Exited { why: "killed by signal 9".to_owned() });
                }
                self.cut(&key);
                "its VMM exits"
            }
            2 if vm.stage == Stage::Running && !vm.guest.panicked => {
                vm.guest.panicked = true;
                self.vmm_event(&key, Report::GuestPanicked);
                "its guest panics"
            }
            3 if vm.stage == Stage::Running && !vm.guest.panicked => {
                vm.guest = Guest::booting(&mut self.dice, now_ms, false);
                self.cut(&key);
                self.vmm_event(&key, Report::GuestRebooted);
                "its guest reboots"
            }
            4 | 5 => {
                vm.guest.broken = !vm.guest.broken;
                "its service breaks or recovers"
            }
            6 => {
                vm.guest.lies = !vm.guest.lies;
                "its probes begin or cease to lie"
            }
            7 => {
                vm.silent = true;
                "its socket is gone"
            }
            _ => {
                vm.guest.metrics = Guest::booting(&mut self.dice, now_ms, false).metrics;
                "its metrics change"
            }
        };
        self.story.tell(|| format!("{}-{}: {what}", key.set, key.id));
    }

    /// What a VMM writes into its file of events, and a daemon that runs reads.
    pub(crate) fn vmm_event(&mut self, key: &Key, report: Report) {
        let Some(vm) = self.node.vms.get_mut(key) else { return };
        vm.events.push(report.clone());
        let bytes = vm.events.len() as u64 * EVENT_BYTES;
        self.news(key, report);
        self.news(key, Report::EventsRead { bytes });
    }

    /// Connections to it break.
    pub(crate) fn cut(&mut self, key: &Key) {
        if let Some(shell) = self.shell_of(key) {
            shell.lb.cut(key.id);
        }
    }

    fn time_trouble(&mut self) {
        match self.dice.small(0..=4) {
            0..=2 => {
                let hours = i64::from(self.dice.small(1..=48));
                let by_ms = if self.dice.per_mille(500) { hours } else { -hours } * HOUR_MS;
                self.story.tell(|| format!("the wall clock jumps by {} h", by_ms / HOUR_MS));
                self.clock.jump_wall(by_ms);
            }
            3 => {
                let by_ms = i64::from(self.dice.small(0..=120_000)) - 60_000;
                self.story.tell(|| format!("the wall clock jumps by {by_ms} ms"));
                self.clock.jump_wall(by_ms);
            }
            _ if self.daemon.is_some() => {
                let ms = self.dice.within(1_000..=600_000);
                self.story.tell(|| format!("the process is stopped for {ms} ms"));
                self.clock.stop_for(ms);
            }
            _ => {}
        }
    }
}
