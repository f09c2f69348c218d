//! The daemon's process but for the shells of its sets: the agent, the drivers of VMs, probes and scrapes. All of it is lost
//! when the process ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use regatta_core::admission::Demand;
use regatta_core::agent::{Agent, Effect, Input, Key, Report, StopOrder, Want, Watch};
use regatta_core::machine::{Input as MachineInput, Scrape};
use regatta_core::manifest::ScaleSet;
use regatta_core::metrics::{NoValue, NoValueKind};
use regatta_core::node::Placement;
use regatta_core::phase::{InstanceEvent, Phase};

use crate::event::{DaemonEvent, Event, LaunchStep, ToAgent};
use crate::guest::{Guest, Metrics, Probed};
use crate::node::{EVENT_BYTES, Stage};
use crate::shell::SetShell;
use crate::world::{DISK_LEFT_BYTES, World};

/// A daemon that runs.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// Its number among all of the world.
    pub(crate) boot: u64,
    pub(crate) agent: Agent,
    pub(crate) shells: BTreeMap<u64, SetShell>,
    watches: BTreeMap<Key, Prober>,
    /// When the last order or news of an instance is due at the agent, and the last report at its machine: none overtakes.
    to_agent: BTreeMap<Key, u64>,
    to_machine: BTreeMap<Key, u64>,
    watch_count: u64,
    /// The number of the last want of each instance, and how many there were.
    wants: BTreeMap<Key, u64>,
    want_count: u64,
}

/// A model of the prober.
#[derive(Debug)]
struct Prober {
    number: u64,
    watch: Arc<Watch>,
    phase: ProbePhase,
    in_a_row: u32,
    last_passed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProbePhase {
    Booting,
    Answering,
    Healthy,
    Unhealthy,
}

/// What an instance takes of the node.
pub(crate) fn demand_of(set: &ScaleSet) -> Demand {
    let instance = &set.instance;
    Demand {
        memory_bytes: instance.memory_bytes,
        vcpus: u64::from(instance.vcpus),
        disk_bytes: 1 << 20,
        open_files: 8,
    }
}

impl Prober {
    /// What a result changes.
    fn on(&mut self, result: Probed) -> Vec<InstanceEvent> {
        let passed = result == Probed::Passed;
        self.in_a_row = if passed == self.last_passed { self.in_a_row + 1 } else { 1 };
        self.last_passed = passed;
        let mut events = Vec::new();
        if self.phase == ProbePhase::Booting && result != Probed::Nothing {
            self.phase = ProbePhase::Answering;
            events.push(InstanceEvent::FirstProbeAnswered);
        }
        let health = &self.watch.health;
        if passed && self.phase != ProbePhase::Healthy && self.in_a_row >= health.healthy_threshold {
            self.phase = ProbePhase::Healthy;
            events.push(InstanceEvent::BecameHealthy);
        } else if !passed && self.phase == ProbePhase::Healthy && self.in_a_row >= health.unhealthy_threshold
        {
            self.phase = ProbePhase::Unhealthy;
            events.push(InstanceEvent::BecameUnhealthy);
        }
        events
    }
}

impl World {
    /// A daemon begins: it loads what is stored and looks for what runs.
    pub(crate) fn start(&mut self) {
        if self.daemon.is_some() {
            return;
        }
        self.boots += 1;
        self.clock.wake();
        for vm in self.node.vms.values_mut() {
            vm.stopping = false;
        }
        self.story.tell(|| "a daemon starts".to_owned());
        self.daemon = Some(Daemon {
            boot: self.boots,
            agent: Agent::new(Placement::default(), self.host),
            shells: BTreeMap::new(),
            watches: BTreeMap::new(),
            to_agent: BTreeMap::new(),
            to_machine: BTreeMap::new(),
            watch_count: 0,
            wants: BTreeMap::new(),
            want_count: 0,
        });
        let names: Vec<String> = self.store.sets.keys().cloned().collect();
        for name in names {
            self.open_set(&name);
        }
    }

    /// The process is killed: what it had in memory is lost, what runs continues.
    pub(crate) fn kill(&mut self) {
        self.fuse = None;
        if self.daemon.take().is_none() {
            return;
        }
        self.story.tell(|| "the daemon is killed".to_owned());
        self.clock.end();
        self.checks.forget_commands();
        for vm in self.node.vms.values_mut() {
            // Asked to shut down, it does so also without anyone who waits for it.
            if vm.stopping && vm.stage == Stage::Running && self.dice.per_mille(500) {
                vm.stage = Stage::Ended;
            }
        }
        let down_ms = if self.calm { 100 } else { self.dice.delay_ms(3_000, 120_000) };
        self.at(down_ms, Event::Start);
    }

    /// Whether the daemon ends here, between two effects.
    pub(crate) fn blow_fuse(&mut self) -> bool {
        match &mut self.fuse {
            Some(0) => {
                self.kill();
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// An owner wants something.
    pub(crate) fn want(&mut self, key: &Key, want: Want) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.want_count += 1;
        let number = daemon.want_count;
        daemon.wants.insert(key.clone(), number);
        self.order(key, &ToAgent::Want(number, want));
    }

    /// An owner's order is on its way to the agent; now and then late, or twice.
    pub(crate) fn order(&mut self, key: &Key, order: &ToAgent) {
        let twice = !self.calm && self.dice.per_mille(self.temper.twice);
        let delay_ms = self.delay_ms(0, self.temper.late_ms);
        for _ in 0..=u32::from(twice) {
            self.send_to_agent(key, delay_ms, order.clone());
        }
    }

    /// News of a driver are on their way to the agent.
    pub(crate) fn news(&mut self, key: &Key, report: Report) {
        let delay_ms = self.delay_ms(20, 2_000);
        self.send_to_agent(key, delay_ms, ToAgent::Input(Input::News(report)));
    }

    fn send_to_agent(&mut self, key: &Key, delay_ms: u64, what: ToAgent) {
        let due_ms = self.clock.real_ms + delay_ms;
        let Some(daemon) = &mut self.daemon else { return };
        let last = daemon.to_agent.entry(key.clone()).or_default();
        *last = due_ms.max(*last);
        let delay_ms = *last - self.clock.real_ms.min(*last);
        self.later(delay_ms, DaemonEvent::Agent(key.clone(), Box::new(what)));
    }

    /// Something of an instance is on its way to its machine.
    fn send_to_machine(&mut self, key: &Key, delay_ms: u64, input: MachineInput) {
        let due_ms = self.clock.real_ms + delay_ms;
        let Some(daemon) = &mut self.daemon else { return };
        let Some((&number, _)) = daemon.shells.iter().find(|(_, shell)| shell.name == key.set) else {
            return;
        };
        let last = daemon.to_machine.entry(key.clone()).or_default();
        *last = due_ms.max(*last);
        let delay_ms = *last - self.clock.real_ms.min(*last);
        self.later(delay_ms, DaemonEvent::Input(number, Box::new(input)));
    }

    /// Whether orders or reports are under way.
    pub(crate) fn agent_is_behind(&self) -> bool {
        let Some(daemon) = &self.daemon else { return true };
        let late = |due: &u64| *due > self.clock.real_ms;
        daemon.to_agent.values().any(late) || daemon.to_machine.values().any(late)
    }

    /// What the agent, started again, finds of an instance; and what its VMM wrote that nobody has read.
    pub(crate) fn inventory(&mut self, key: &Key, demand: Demand, read: usize) {
        self.keys_ever.insert(key.clone());
        let (found, address) = self.node.find(key);
        let Some(daemon) = &mut self.daemon else { return };
        daemon.to_machine.remove(key);
        let effects = daemon.agent.on(key, Input::Found { found, address, demand });
        for effect in effects {
            match effect {
                Effect::Report { key, report } => {
                    self.send_to_machine(&key.clone(), 100, MachineInput::Report { id: key.id, report });
                }
                other => self.perform_of_agent(other),
            }
        }
        let unread: Vec<Report> = self
            .node
            .vms
            .get(key)
            .map(|vm| vm.events.iter().skip(read).cloned().collect())
            .unwrap_or_default();
        for (index, report) in unread.into_iter().enumerate() {
            self.send_to_agent(key, 400, ToAgent::Input(Input::News(report)));
            let bytes = (read + index + 1) as u64 * EVENT_BYTES;
            self.send_to_agent(key, 400, ToAgent::Input(Input::News(Report::EventsRead { bytes })));
        }
    }

    /// Something reaches the agent.
    pub(crate) fn on_agent(&mut self, key: &Key, what: ToAgent) {
        let Some(daemon) = &mut self.daemon else { return };
        let input = match what {
            // A want is a level: a late one is not heard once there is a later one.
            ToAgent::Want(number, _) if daemon.wants.get(key).is_some_and(|last| *last != number) => return,
            ToAgent::Want(_, want) => {
                let demand = match &want.order {
                    regatta_core::agent::Order::Run { manifest, .. } => demand_of(manifest),
                    regatta_core::agent::Order::Stop(_) => Demand::default(),
                };
                Input::Want { want, demand, disk_left_bytes: DISK_LEFT_BYTES }
            }
            ToAgent::Input(input) => input,
        };
        let effects = daemon.agent.on(key, input);
        for effect in effects {
            if self.blow_fuse() {
                return;
            }
            self.perform_of_agent(effect);
        }
    }

    fn perform_of_agent(&mut self, effect: Effect) {
        match effect {
            Effect::Launch { identity, manifest: _ } => {
                let key = Key { set: identity.set.as_str().into(), id: identity.id };
                self.story.tell(|| format!("agent: launches {}-{} at {}", key.set, key.id, identity.address));
                self.checks.on_launch(&self.store, &self.node, &key, &identity);
                let uid = identity.uid.clone();
                self.node.make(identity);
                let delay_ms = self.dice.within(5..=200);
                self.later(delay_ms, DaemonEvent::Launch(key, uid, LaunchStep::Process));
            }
            Effect::Stop { key, order } => {
                self.story.tell(|| format!("agent: stops {}-{}", key.set, key.id));
                self.checks.on_stop(&self.store, &self.node, &key);
                let mut delay_ms = self.dice.within(20..=300);
                if let Some(vm) = self.node.vms.get_mut(&key) {
                    vm.stopping = true;
                    if vm.is_alive() && order.grace_ms > 0 {
                        delay_ms += self.dice.within(0..=2 * order.grace_ms).min(order.grace_ms);
                    }
                }
                self.later(delay_ms, DaemonEvent::Stop(key, order));
            }
            Effect::Restart { key, number } => self.restart_guest(&key, number),
            Effect::Watch { key, phase, watch, .. } => {
                let Some(daemon) = &mut self.daemon else { return };
                daemon.watch_count += 1;
                let number = daemon.watch_count;
                let phase = match phase {
                    Phase::InService | Phase::Standby | Phase::Draining => ProbePhase::Healthy,
                    Phase::Unhealthy => ProbePhase::Unhealthy,
                    Phase::Initializing => ProbePhase::Answering,
                    _ => ProbePhase::Booting,
                };
                let interval_ms = watch.health.interval_ms;
                let prober = Prober { number, watch, phase, in_a_row: 0, last_passed: false };
                daemon.watches.insert(key.clone(), prober);
                let delay_ms = self.dice.within(0..=interval_ms);
                self.later(delay_ms, DaemonEvent::Probe(key, number));
            }
            Effect::Unwatch { key } => {
                if let Some(daemon) = &mut self.daemon {
                    daemon.watches.remove(&key);
                }
            }
            Effect::Report { key, report } => {
                let twice = !self.calm && self.dice.per_mille(self.temper.twice);
                let delay_ms = self.delay_ms(5, self.temper.late_ms);
                for _ in 0..=u32::from(twice) {
                    let report = report.clone();
                    self.send_to_machine(&key, delay_ms, MachineInput::Report { id: key.id, report });
                }
            }
        }
    }

    /// A guest is restarted, which its VMM now and then refuses.
    fn restart_guest(&mut self, key: &Key, number: u32) {
        self.story.tell(|| format!("agent: restarts {}-{}", key.set, key.id));
        self.checks.on_restart(&self.store, key, number);
        let refused = !self.calm && self.dice.per_mille(200);
        let (now_ms, calm) = (self.clock.real_ms, self.calm);
        match self.node.vms.get_mut(key) {
            Some(vm) if vm.stage == Stage::Running && !vm.stopping && !refused => {
                vm.guest = Guest::booting(&mut self.dice, now_ms, calm);
                self.cut(key);
                self.vmm_event(key, Report::GuestRebooted);
            }
            _ => self.news(key, Report::NotRestarted { why: "the VMM is busy".to_owned() }),
        }
    }

    /// The next step of a launch.
    pub(crate) fn launch(&mut self, key: Key, uid: String, step: LaunchStep) {
        let calm = self.calm;
        let Some(vm) = self.node.vms.get_mut(&key) else { return };
        if vm.stopping || vm.identity.uid != uid {
            return;
        }
        match (step, vm.stage) {
            (LaunchStep::Process, Stage::Directory) => {
                self.news(&key, Report::LaunchStarted);
                if !calm && self.dice.per_mille(self.temper.launch_fails) {
                    return self.launch_failed(&key, "the VMM exited with status 1");
                }
                self.node.start(&key);
                if !calm && self.dice.per_mille(30) {
                    return self.later(30_000, DaemonEvent::Launch(key, uid, LaunchStep::GiveUp));
                }
                let delay_ms = self.dice.within(50..=3_000);
                self.later(delay_ms, DaemonEvent::Launch(key, uid, LaunchStep::Boot));
            }
            (LaunchStep::Boot, Stage::HalfMade) => {
                vm.stage = Stage::Running;
                vm.guest = Guest::booting(&mut self.dice, self.clock.real_ms, calm);
                if !calm && self.dice.per_mille(self.temper.sick) {
                    vm.guest.breaks_at_ms = self.clock.real_ms + self.dice.within(1_000..=6_000);
                }
                let running = vm.running();
                self.news(&key, Report::Booted(running));
            }
            (LaunchStep::Boot | LaunchStep::GiveUp, Stage::HalfMade | Stage::Ended) => {
                self.launch_failed(&key, "the guest did not come to run");
            }
            _ => {}
        }
    }

    fn launch_failed(&mut self, key: &Key, why: &str) {
        if let Some(vm) = self.node.vms.get_mut(key) {
            vm.stage = Stage::Ended;
        }
        self.news(key, Report::LaunchFailed { why: why.to_owned() });
    }

    /// A stop comes to its end.
    pub(crate) fn stop(&mut self, key: Key, order: StopOrder) {
        if !self.calm && self.dice.per_mille(60) {
            self.news(&key, Report::Stuck { why: "the directory is busy".to_owned() });
            return self.later(2_000, DaemonEvent::Stop(key, order));
        }
        self.node.vms.remove(&key);
        if let Some(shell) = self.shell_of(&key) {
            shell.lb.cut(key.id);
        }
        self.news(&key, Report::Cleaned { note: None });
    }

    pub(crate) fn shell_of(&mut self, key: &Key) -> Option<&mut SetShell> {
        self.daemon.as_mut()?.shells.values_mut().find(|shell| shell.name == key.set)
    }

    /// A probe is due.
    pub(crate) fn probe(&mut self, key: Key, number: u64) {
        let now_ms = self.clock.real_ms;
        let result = match self.node.vms.get(&key) {
            Some(vm) if vm.stage == Stage::Running => vm.guest.probe(now_ms),
            _ => Probed::Nothing,
        };
        let Some(daemon) = &mut self.daemon else { return };
        let Some(prober) = daemon.watches.get_mut(&key).filter(|prober| prober.number == number) else {
            return;
        };
        let asks = prober.watch.health.probe.is_some();
        let events = match asks {
            true => prober.on(result),
            false if prober.phase == ProbePhase::Healthy => Vec::new(),
            false => {
                prober.phase = ProbePhase::Healthy;
                vec![InstanceEvent::BecameHealthy]
            }
        };
        let interval_ms = prober.watch.health.interval_ms;
        for event in events {
            let delay_ms = self.delay_ms(5, self.temper.late_ms);
            let detail = Some(format!("{result:?}"));
            self.send_to_machine(&key, delay_ms, MachineInput::Probed { id: key.id, event, detail });
        }
        if asks {
            self.later(interval_ms, DaemonEvent::Probe(key, number));
        }
    }

    /// Guests of a set are scraped.
    pub(crate) fn scrape(&mut self, number: u64) {
        let (now_ms, at_mono_ms) = (self.clock.real_ms, self.clock.time().mono_ms);
        let Some(daemon) = &self.daemon else { return };
        let Some(shell) = daemon.shells.get(&number) else { return };
        let (name, set) = (Arc::clone(&shell.name), Arc::clone(shell.machine.manifest()));
        let serving = shell.machine.endpoints().count().max(1);
        let demand = self.demand.get(&*name).copied().unwrap_or(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a handful of instances")]
        let utilization = (demand / serving as f64).min(1.5);
        let mut by_delay: BTreeMap<u64, Vec<Scrape>> = BTreeMap::new();
        for (key, watch) in daemon.watches.iter().filter(|(key, _)| key.set == name) {
            let vm = self.node.vms.get(key).filter(|vm| vm.stage == Stage::Running && !vm.guest.panicked);
            let Some(vm) = vm.filter(|vm| vm.guest.answers_at_ms <= now_ms) else { continue };
            let (value, delay_ms) = match vm.guest.metrics {
                Metrics::True => (Ok(utilization), 1),
                Metrics::Missing => (Err(no_series()), 1),
                Metrics::Late(ms) => (Ok(utilization), ms),
                Metrics::Wild => {
                    let wild = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300];
                    (self.dice.pick(&wild).ok_or_else(no_series), 1)
                }
            };
            let values = vec![value; watch.watch.metrics.len()];
            by_delay.entry(delay_ms).or_default().push(Scrape { id: key.id, at_mono_ms, values });
        }
        for (delay_ms, scrapes) in by_delay {
            self.later(delay_ms, DaemonEvent::Input(number, Box::new(MachineInput::Scraped(scrapes))));
        }
        self.later(set.tick_ms, DaemonEvent::Scrape(number));
    }
}

fn no_series() -> Arc<NoValue> {
    Arc::new(NoValue { kind: NoValueKind::NoSeries, text: "there is no such series".into() })
}
