//! The set behind a scenario.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::downsample;
use super::history::Row;
use super::random::Random;
use super::scenario::{Scenario, Signal};
use super::{Subject, TestTick};
use crate::{Instance, InstanceState, LastDecision, MetricValue, Outcome, StaleValue};

/// Wall clock of the tick before the first.
const EPOCH_MS: u64 = 1_000_000_000;

pub(super) struct Model<'a> {
    scenario: &'a Scenario,
    metrics: Vec<Metric>,
    instances: Vec<Member>,
    next_id: u32,
    desired: u32,
    last: Option<LastDecision>,
    random: Random,
}

struct Member {
    row: Instance,
    /// Tick at which it comes into service, or is gone.
    until: u64,
}

struct Metric {
    name: String,
    signal: Signal,
    /// Last known value, and when.
    known: Option<(f64, u64)>,
    /// Kept as far back as a policy can ask; it sees what it asked for.
    window: Vec<(u64, f64)>,
}

impl<'a> Model<'a> {
    pub(super) fn new(scenario: &'a Scenario, wanted: Vec<String>, seed: u64) -> Self {
        let metrics = if scenario.metrics.is_empty() {
            wanted.into_iter().map(|name| (name, Signal::Utilization)).collect()
        } else {
            scenario.metrics.clone()
        };
        let metric = |(name, signal)| Metric { name, signal, known: None, window: Vec::new() };
        let mut model = Self {
            scenario,
            metrics: metrics.into_iter().map(metric).collect(),
            instances: Vec::new(),
            next_id: 1,
            desired: scenario.start.clamp(scenario.min, scenario.max),
            last: None,
            random: Random::new(seed),
        };
        for _ in 0..scenario.start {
            model.add(EPOCH_MS, InstanceState::InService, 0);
        }
        model
    }

    /// One tick: what was on its way arrives, the policy decides, the set follows.
    pub(super) fn step<S: Subject + ?Sized>(&mut self, number: u64, load: f64, subject: &mut S) -> Row {
        let now_ms = EPOCH_MS.saturating_add(number.saturating_mul(self.scenario.tick_ms));
        self.arrive(number, now_ms);
        let in_service = self.count(InstanceState::InService);
        let warming = self.count(InstanceState::Booting);
        let noise = 1.0 + self.scenario.noise_share() * self.random.between(-1.0, 1.0);
        let (tick, value) = self.observe(number, now_ms, load * noise, in_service);

        let decided = subject.decide(&tick);
        let before = self.desired;
        let wanted = decided.as_ref().ok().map(|outcome| outcome.capacity);
        let granted = wanted.unwrap_or(before).clamp(self.scenario.min, self.scenario.max);
        let victims = decided.as_ref().map_or(&[][..], |outcome| &outcome.victims);
        self.follow(granted, victims, number, now_ms);
        let (reasons, error) = match decided {
            Ok(Outcome { reasons, .. }) => (reasons, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let narrowed = wanted.is_some_and(|wanted| wanted != granted);
        self.last = Some(LastDecision {
            tick: number,
            wanted,
            granted,
            reasons: reasons.clone(),
            narrowed_by: if narrowed { vec!["limits".to_owned()] } else { Vec::new() },
        });
        let needed = (load / self.scenario.instance_capacity - 1e-9).ceil().max(f64::from(self.scenario.min));
        Row {
            tick: number,
            load,
            needed,
            in_service,
            warming,
            desired: before,
            value,
            wanted,
            granted,
            reasons,
            error,
        }
    }

    fn arrive(&mut self, number: u64, now_ms: u64) {
        self.instances.retain(|member| member.row.state != InstanceState::Draining || member.until > number);
        for member in &mut self.instances {
            if member.row.state == InstanceState::Booting && member.until <= number {
                (member.row.state, member.row.state_since_ms) = (InstanceState::InService, now_ms);
            }
        }
    }

    fn observe(&mut self, number: u64, now_ms: u64, load: f64, in_service: u32) -> (TestTick, MetricValue) {
        let scenario = self.scenario;
        let mut tick =
            TestTick::new().at(now_ms, number).bounds(scenario.min, scenario.max).desired(self.desired);
        for member in &self.instances {
            tick = tick.instance(member.row);
        }
        if let Some(last) = &self.last {
            tick = tick.last(last.clone());
        }
        let states: Vec<InstanceState> = self.instances.iter().map(|member| member.row.state).collect();
        let each = load / f64::from(in_service.max(1));
        let mut first = MetricValue::Missing;
        for (at, metric) in self.metrics.iter_mut().enumerate() {
            let measured = match metric.signal {
                Signal::Total => Some(load),
                _ if in_service == 0 => None,
                Signal::Utilization => Some(each / scenario.instance_capacity * scenario.full),
                Signal::PerInstance => Some(each),
            };
            let value = if scenario.is_gap(number) {
                MetricValue::Missing
            } else if scenario.is_stale(number) {
                metric.known.map_or(MetricValue::Missing, |(value, at_ms)| {
                    MetricValue::Stale(StaleValue { value, age_ms: now_ms.saturating_sub(at_ms) })
                })
            } else {
                metric.known = measured.map(|value| (value, now_ms)).or(metric.known);
                measured.map_or(MetricValue::Missing, MetricValue::Fresh)
            };
            tick = match metric.signal {
                Signal::Total => tick.set_metric(&metric.name, value),
                Signal::Utilization | Signal::PerInstance => {
                    let of = |state: &InstanceState| match state {
                        InstanceState::InService => value,
                        _ => MetricValue::Missing,
                    };
                    tick.metric_rows(&metric.name, &states.iter().map(of).collect::<Vec<_>>())
                }
            };
            tick = tick.window(&metric.window);
            if let MetricValue::Fresh(value) = value {
                downsample::append(&mut metric.window, (now_ms, value), scenario.tick_ms);
            }
            if at == 0 {
                first = value;
            }
        }
        (tick, first)
    }

    /// Towards `granted`: new ones boot; of those that go, named ones go first, then those still
    /// on their way, then the youngest.
    fn follow(&mut self, granted: u32, victims: &[u32], number: u64, now_ms: u64) {
        self.desired = granted;
        let live = self.count(InstanceState::InService) + self.count(InstanceState::Booting);
        for _ in live..granted {
            let until = number.saturating_add(1).saturating_add(self.scenario.boot_ticks);
            self.add(now_ms, InstanceState::Booting, until);
        }
        let excess = usize::try_from(live.saturating_sub(granted)).unwrap_or(usize::MAX);
        if excess == 0 {
            return;
        }
        let mut leaving: Vec<_> = self
            .instances
            .iter()
            .filter(|member| matches!(member.row.state, InstanceState::InService | InstanceState::Booting))
            .map(|member| {
                let row = &member.row;
                let named = victims.iter().position(|id| *id == row.id).unwrap_or(usize::MAX);
                (named, row.state == InstanceState::InService, Reverse(row.id))
            })
            .collect();
        leaving.sort_unstable();
        let leaving: BTreeSet<u32> = leaving.into_iter().take(excess).map(|(_, _, Reverse(id))| id).collect();
        let drain_ticks = self.scenario.drain_ticks;
        let is_leaving = |member: &Member| leaving.contains(&member.row.id);
        let drains = |member: &Member| member.row.state == InstanceState::InService && drain_ticks > 0;
        self.instances.retain(|member| !is_leaving(member) || drains(member));
        for member in self.instances.iter_mut().filter(|member| is_leaving(member)) {
            (member.row.state, member.row.state_since_ms) = (InstanceState::Draining, now_ms);
            member.until = number.saturating_add(1).saturating_add(drain_ticks);
        }
    }

    fn add(&mut self, now_ms: u64, state: InstanceState, until: u64) {
        let row = Instance {
            id: self.next_id,
            state,
            state_since_ms: now_ms,
            created_ms: now_ms,
            generation: 1,
            protected: false,
        };
        self.next_id += 1;
        self.instances.push(Member { row, until });
    }

    fn count(&self, state: InstanceState) -> u32 {
        let rows = self.instances.iter().filter(|member| member.row.state == state);
        u32::try_from(rows.count()).unwrap_or(u32::MAX)
    }
}
