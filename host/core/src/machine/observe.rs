//! What a tick sees: the set's instances and metrics, frozen.

use std::sync::Arc;

use crate::balancer::BalancerFull;
use crate::instance_state::InstanceState;
use crate::metric::MetricValue;
use crate::metrics::{
    self, CONNECTION_RATE, CONNECTIONS, CONNECTIONS_WAITING, CPU, CounterRate, MEMORY, MetricGap, MetricSpec,
    NoValue, longest_wishes,
};
use crate::mutant::{self, Mutant};
use crate::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use crate::phase::Phase;
use crate::state::{InstanceRecord, SetState};

use super::instance::Meters;
use super::{ProcessReading, Scrape, SetMachine, TrafficReading};

/// The metrics that a set keeps, each as far back as its policies look.
pub(super) fn specs_of(state: &SetState) -> Vec<MetricSpec> {
    let wishes = longest_wishes(state.activations_kept().flat_map(|activation| &activation.wishes));
    let reach = |spec: MetricSpec| match wishes.get(spec.name.as_str()) {
        Some(&window_ms) => spec.reaching_back(window_ms),
        None => spec,
    };
    metrics::specs_of(&state.set).into_iter().map(reach).collect()
}

impl SetMachine {
    /// Takes in what is read when a tick begins: processes, ordered by id, and the load balancer.
    pub(super) fn sample(&mut self, processes: &[ProcessReading], traffic: Option<&TrafficReading>) {
        let (now_ms, lived_ms) = (self.clock.steady_ms, self.clock.lived_ms);
        let mut readings = processes.iter().peekable();
        let cpu = self.instances.iter_mut().filter_map(|(&id, instance)| {
            while readings.next_if(|reading| reading.id < id).is_some() {}
            let reading = readings.next_if(|reading| reading.id == id)?;
            let manifest = self.manifests.get(&instance.record.generation).unwrap_or(&self.manifest);
            let vcpus = manifest.instance.vcpus;
            Some((reading.id, instance.meters.cpu.push(lived_ms, reading.cpu_time_ns?, vcpus)?))
        });
        self.windows.push_instances(CPU, now_ms, cpu);
        let memory = processes.iter().filter_map(|it| Some((it.id, as_metric(it.rss_bytes?))));
        self.windows.push_instances(MEMORY, now_ms, memory);
        let Some(traffic) = traffic else { return };
        let open = traffic.open.iter().map(|(&id, &open)| (id, f64::from(open)));
        self.windows.push_instances(CONNECTIONS, now_ms, open);
        if let Some(rate) = self.connection_rate.push(lived_ms, as_metric(traffic.accepted)) {
            self.windows.push_set(CONNECTION_RATE, now_ms, rate);
        }
        // What went unserved before is not known after a restart of the machine.
        let before = self.unserved.replace(traffic.unserved).unwrap_or(traffic.unserved);
        let waited = u64::from(traffic.waiting) + traffic.unserved.saturating_sub(before);
        self.windows.push_set(CONNECTIONS_WAITING, now_ms, as_metric(waited));
    }

    /// Whether the load balancer is at its limit; counts what it refused.
    pub(super) fn balancer_full(&mut self, traffic: &TrafficReading) -> Option<BalancerFull> {
        // What was refused before is not known after a restart of the machine.
        let before = self.refused.replace(traffic.refused).unwrap_or(traffic.refused);
        let refused = traffic.refused.saturating_sub(before);
        let was_full = self.last.as_ref().is_some_and(|last| last.facts.balancer_full.is_some());
        let max = self.manifest.load_balancer.as_ref()?.max_connections;
        BalancerFull::seen(max, traffic.active, refused, was_full)
    }

    /// Counters went on while nobody lived: the next reading begins anew.
    pub(super) fn on_resumed(&mut self) {
        self.resumed_ms = Some(self.clock.lived_ms);
        self.connection_rate = CounterRate::default();
        for instance in self.instances.values_mut() {
            instance.meters = Meters::default();
        }
    }

    pub(super) fn on_scrape(&mut self, scrape: &Scrape) {
        let age_ms = self.now.mono_ms.saturating_sub(scrape.at_mono_ms);
        let (at_ms, lived_ms) =
            (self.clock.steady_ms.saturating_sub(age_ms), self.clock.lived_ms.saturating_sub(age_ms));
        let Some(instance) = self.instances.get_mut(&scrape.id) else { return };
        let metrics = &self.manifest.metrics;
        instance.meters.guest.resize_with(metrics.len(), CounterRate::default);
        let mut no_value = Vec::new();
        for (at, ((metric, value), rate)) in
            metrics.iter().zip(&scrape.values).zip(&mut instance.meters.guest).enumerate()
        {
            let value = match value {
                Err(_) if mutant::is(Mutant::MissingIsZero) => Ok(Some(0.0)),
                Err(why) => Err(Arc::clone(why)),
                Ok(value) if metric.rate => Ok(rate.push(lived_ms, *value)),
                Ok(value) => Ok(Some(*value)),
            };
            let value = value.and_then(|value| match value.filter(|value| !metric.range.contains(*value)) {
                Some(outlier) => Err(Arc::new(NoValue::outside(outlier, metric.range))),
                None => Ok(value),
            });
            match value {
                Ok(Some(value)) => self.windows.push_instance(&metric.name, scrape.id, at_ms, value),
                Ok(None) => {}
                Err(why) => {
                    no_value.resize(at, None);
                    no_value.push(Some(why));
                }
            }
        }
        instance.no_value = no_value;
    }

    /// Metrics of the manifest that instances in service have no fresh value of, although they were scraped.
    pub(super) fn metric_gaps(&self, seen: &Observation) -> Vec<MetricGap> {
        let in_service = seen.instances.count(InstanceState::InService);
        let gap = |(index, name): (usize, &String)| {
            let why = |id| self.instances.get(id)?.no_value.get(index)?.clone();
            let rows = seen.instances.id.iter().zip(&seen.instances.state).zip(&seen.metric(name)?.values);
            let stale = rows
                .filter(|((_, state), value)| **state == InstanceState::InService && value.fresh().is_none());
            let mut gaps = stale.filter_map(|((id, _), _)| Some((*id, why(id)?)));
            let (example, why) = gaps.next()?;
            let instances = 1 + u32::try_from(gaps.count()).unwrap_or(u32::MAX);
            Some(MetricGap { metric: name.clone(), instances, in_service, example, why: why.text.clone() })
        };
        self.manifest.metrics.iter().map(|metric| &metric.name).enumerate().filter_map(gap).collect()
    }

    /// The instances that are not gone, in the order of their ids: the rows of an observation.
    pub(super) fn living(&self) -> impl Iterator<Item = &InstanceRecord> {
        self.instances.values().map(|it| &it.record).filter(|record| record.phase != Phase::Gone)
    }

    /// What instances show that have just come into service says little about their load: it does not count. Connections and
    /// memory are what they are.
    fn forget_warming(&self, now_ms: u64, instances: &InstanceTable, metrics: &mut [MetricObservation]) {
        let warm_up_ms = match mutant::is(Mutant::WarmingShows) {
            true => 0,
            false => self.manifest.guards.warm_up_ms,
        };
        let rows = instances.rows().enumerate();
        let warming: Vec<usize> =
            rows.filter(|(_, row)| row.warms_up(now_ms, warm_up_ms)).map(|(at, _)| at).collect();
        for metric in metrics.iter_mut().filter(|metric| {
            metric.scope == MetricScope::Instance && ![CONNECTIONS, MEMORY].contains(&metric.name.as_str())
        }) {
            for &at in &warming {
                metric.values[at] = MetricValue::Missing;
            }
        }
    }

    /// Freezes what is known now.
    pub(super) fn observe(&mut self) -> Observation {
        let now_ms = self.clock.steady_ms;
        let mut instances = InstanceTable::with_capacity(self.instances.len());
        for instance in self.living() {
            instances.push(InstanceRow {
                id: instance.id,
                state: instance.phase.state(),
                state_since_ms: self.steady_of(instance.phase_since_lived_ms),
                created_ms: self.steady_of(instance.created_lived_ms),
                generation: instance.generation,
                protected: instance.protection.from_scale_in(),
            });
        }
        let mut metrics = self.windows.build_metrics(now_ms, &instances);
        self.forget_warming(now_ms, &instances, &mut metrics);
        let state = &self.state;
        let limits = self.limits();
        let schedule = self.in_force().schedule;
        let observation = Observation {
            set: state.set.name.clone(),
            tick: state.last_tick + 1,
            now_ms,
            generation: state.generation,
            min: limits.min,
            max: limits.max,
            desired: state.desired,
            instances,
            metrics,
            last: self.last_decision.clone(),
            schedule,
        };
        self.windows.end_tick(&observation);
        observation
    }
}

/// A count as a metric; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes stay far below 2^53")]
fn as_metric(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rig;
    use super::*;
    use crate::agent::{Found, Running};
    use crate::event::EventKind;
    use crate::metrics::{NoValueKind, Reading};
    use crate::record::TickRecord;

    const SECOND_NS: u64 = 1_000_000_000;

    fn reading(id: u32, cpu_time_ns: u64) -> ProcessReading {
        ProcessReading { id, cpu_time_ns: Some(cpu_time_ns), rss_bytes: Some(2_000_000) }
    }

    fn value(rig: &Rig, metric: &str, row: usize) -> MetricValue {
        rig.store.last_record().observation.metric(metric).expect("the metric").values[row]
    }

    #[test]
    fn shares_and_rates_are_measured_on_time_that_was_lived() {
        let mut rig = Rig::serving("load_balancer: { listen: \"127.0.0.1:8000\" }");
        rig.facts.processes = vec![reading(1, 0)];
        rig.facts.traffic =
            Some(TrafficReading { accepted: 100, open: [(1, 4)].into(), ..TrafficReading::default() });
        rig.tick();
        rig.facts.processes = vec![reading(1, SECOND_NS)];
        rig.facts.traffic =
            Some(TrafficReading { accepted: 120, open: [(1, 5)].into(), ..TrafficReading::default() });
        rig.now.wall_ms += 86_400_000;
        rig.tick_after(2_000);
        assert_eq!(value(&rig, CPU, 0), MetricValue::Fresh(0.5));
        assert_eq!(value(&rig, CONNECTION_RATE, 0), MetricValue::Fresh(10.0));
        assert_eq!(value(&rig, CONNECTIONS, 0), MetricValue::Fresh(5.0));
        assert_eq!(value(&rig, MEMORY, 0), MetricValue::Fresh(2_000_000.0));
        assert_eq!(value(&rig, MEMORY, 1), MetricValue::Missing, "no data is not zero");
    }

    #[test]
    fn connections_that_wait_or_waited_in_vain_are_a_metric_and_start_the_first_instance() {
        let mut rig = Rig::new(
            "capacity: { min: 0, max: 3, initial: 0 }\nload_balancer: { listen: \"127.0.0.1:8000\" }",
        );
        rig.wish = 0;
        let seen = |rig: &mut Rig, waiting, unserved| {
            rig.facts.traffic = Some(TrafficReading { waiting, unserved, ..TrafficReading::default() });
            rig.tick();
            (value(rig, CONNECTIONS_WAITING, 0), rig.store.state().desired)
        };
        assert_eq!(
            seen(&mut rig, 0, 7),
            (MetricValue::Fresh(0.0), 0),
            "what was unserved before is not news"
        );
        assert_eq!(seen(&mut rig, 0, 8), (MetricValue::Fresh(1.0), 1), "it gave up between two ticks");
        assert_eq!(seen(&mut rig, 2, 8), (MetricValue::Fresh(2.0), 1));
        assert_eq!(seen(&mut rig, 0, 8), (MetricValue::Fresh(0.0), 0), "the policy has its way again");
    }

    #[test]
    fn a_counter_of_a_guest_becomes_a_rate() {
        let mut rig = Rig::serving("metrics: [{ name: errors, series: e, rate: true }]");
        for count in [10.0, 40.0] {
            rig.pass(1_000);
            let at_mono_ms = rig.now.mono_ms - 200;
            rig.run(super::super::Input::Scraped(vec![Scrape {
                id: 1,
                at_mono_ms,
                values: vec![Ok(count)],
            }]));
        }
        rig.tick_after(100);
        assert_eq!(value(&rig, "errors", 0), MetricValue::Fresh(30.0));
    }

    #[test]
    fn policies_see_a_clock_that_does_not_jump() {
        let mut rig = Rig::serving("");
        rig.tick();
        let before = rig.store.last_record().observation.clone();
        rig.now.wall_ms -= 86_400_000;
        rig.tick();
        let record = rig.store.last_record();
        assert!(record.observation.now_ms > before.now_ms);
        assert!(record.observation.now_ms - before.now_ms <= 1_125);
        assert_eq!(record.wall_ms, rig.now.wall_ms, "the record tells people what the wall clock said");
        assert!(
            record.observation.instances.rows().all(|row| row.state_since_ms <= record.observation.now_ms)
        );
    }

    #[test]
    fn a_load_balancer_at_its_limit_is_a_problem_and_told_when_it_begins_and_ends() {
        let mut rig = Rig::serving("load_balancer: { listen: \"127.0.0.1:8000\", max_connections: 10 }");
        let at = |rig: &mut Rig, active, refused| {
            rig.facts.traffic = Some(TrafficReading { active, refused, ..TrafficReading::default() });
            rig.tick();
        };
        at(&mut rig, 9, 7);
        assert_eq!(rig.machine.problems(), [""; 0], "what was refused before is not news");
        at(&mut rig, 10, 9);
        let told = "the load balancer is full: 10 connections are open of at most 10, and 2 were refused since the last tick \
                    (load_balancer.max_connections)";
        assert_eq!(rig.machine.problems(), [told]);
        at(&mut rig, 10, 12);
        assert_eq!(rig.store.told(EventKind::BalancerFull), [told], "once");
        assert_eq!(rig.store.told(EventKind::BalancerHasRoom), [""; 0]);
        at(&mut rig, 9, 12);
        assert_eq!(rig.machine.problems(), [""; 0]);
        let told = ["the load balancer accepts all connections again"];
        assert_eq!(rig.store.told(EventKind::BalancerHasRoom), told);
    }

    /// One that is scraped, with what instance 2 shows of its only metric.
    fn scraped(rig: &mut Rig, of_2: Reading) {
        rig.pass(1_000);
        let at_mono_ms = rig.now.mono_ms;
        let scrape = |id, reading| Scrape { id, at_mono_ms, values: vec![reading] };
        rig.run(super::super::Input::Scraped(vec![scrape(1, Ok(0.5)), scrape(2, of_2)]));
        rig.tick_after(0);
    }

    fn out_of_range() -> Reading {
        let text = "`l` at `/metrics`: the value is 1e308: ignored".to_owned();
        Err(Arc::new(NoValue { kind: NoValueKind::OutOfRange, text: text.into() }))
    }

    #[test]
    fn what_has_no_value_is_named_with_its_reason_and_told_when_it_begins_and_ends() {
        let mut rig = Rig::serving("metrics: [{ name: load, series: l }]");
        scraped(&mut rig, Ok(0.7));
        scraped(&mut rig, out_of_range());
        assert_eq!(rig.machine.problems(), [""; 0], "the value before is still fresh");
        for _ in 0..4 {
            scraped(&mut rig, out_of_range());
        }
        let told = "metric load: no fresh value from 1 of 2 instances (web-2: `l` at `/metrics`: the value is 1e308: ignored)";
        assert_eq!(rig.machine.problems(), [told]);
        assert_eq!(rig.store.told(EventKind::MetricGap), [told]);
        assert_eq!(rig.store.told(EventKind::MetricBack), [""; 0]);
        rig.restart_after(1_000, |_| Found::Running(Running::default()));
        for _ in 0..4 {
            scraped(&mut rig, out_of_range());
        }
        assert_eq!(
            rig.store.told(EventKind::MetricGap),
            [told],
            "not told again by a daemon that was restarted"
        );
        scraped(&mut rig, Ok(0.7));
        assert_eq!(rig.machine.problems(), [""; 0]);
        assert_eq!(
            rig.store.told(EventKind::MetricBack),
            ["metric load: all instances have a fresh value again"]
        );
    }

    /// One guest's wild value does not decide for all: neither in the mean, nor by counting as the value before.
    #[test]
    fn a_value_outside_of_its_range_counts_as_none_and_its_instance_is_named() {
        let mut rig = Rig::serving("metrics: [{ name: load, series: l, range: [0, 1] }]");
        for _ in 0..5 {
            scraped(&mut rig, Ok(1e300));
        }
        let observation = &rig.store.last_record().observation;
        let mean = observation.aggregate(observation.metric("load").expect("it is kept")).mean;
        assert_eq!(mean, MetricValue::Fresh(0.5));
        assert_eq!(value(&rig, "load", 1), MetricValue::Missing);
        let told = "metric load: no fresh value from 1 of 2 instances (web-2: the value is 1e300, outside of metrics[].range [0, 1]: ignored)";
        assert_eq!(rig.machine.problems(), [told]);
        assert_eq!(rig.store.told(EventKind::MetricGap), [told]);
        for end in [0.0, 1.0] {
            scraped(&mut rig, Ok(end));
            assert_eq!(value(&rig, "load", 1), MetricValue::Fresh(end), "the ends count");
        }
        assert_eq!(rig.machine.problems(), [""; 0]);
    }

    #[test]
    fn the_range_of_a_rate_is_that_of_the_rate() {
        let mut rig = Rig::serving("metrics: [{ name: errors, series: e, rate: true, range: [0, 50] }]");
        let seen = |rig: &mut Rig, count| {
            rig.pass(1_000);
            let at_mono_ms = rig.now.mono_ms;
            rig.run(super::super::Input::Scraped(vec![Scrape {
                id: 1,
                at_mono_ms,
                values: vec![Ok(count)],
            }]));
            rig.tick_after(0);
            value(rig, "errors", 0)
        };
        assert_eq!(seen(&mut rig, 1_000.0), MetricValue::Missing, "a counter has no rate yet");
        assert_eq!(seen(&mut rig, 1_050.0), MetricValue::Fresh(50.0));
        assert_eq!(seen(&mut rig, 9_000.0), MetricValue::Fresh(50.0), "the one before is still fresh");
        assert_eq!(seen(&mut rig, 9_010.0), MetricValue::Fresh(10.0), "counted on from what it was");
    }

    /// Whatever a guest shows, ticks are decided and recorded, and what others show still counts.
    #[test]
    fn a_guest_cannot_make_a_tick_unrecordable() {
        for wild in [f64::MAX, -f64::MAX, f64::INFINITY, f64::NAN, 1e21, -1e21, f64::MIN_POSITIVE] {
            let mut rig =
                Rig::serving("metrics: [{ name: load, series: l }, { name: r, series: r, rate: true }]");
            for n in 0..3 {
                rig.pass(1_000);
                let at_mono_ms = rig.now.mono_ms;
                let scrape = |id, value: f64| Scrape {
                    id,
                    at_mono_ms,
                    values: vec![Ok(value), Ok(value * f64::from(n))],
                };
                rig.run(super::super::Input::Scraped(vec![scrape(1, wild), scrape(2, wild)]));
                rig.tick_after(0);
            }
            let observation = &rig.store.last_record().observation;
            for metric in &observation.metrics {
                let aggregate = observation.aggregate(metric);
                for value in [aggregate.sum, aggregate.mean, aggregate.min, aggregate.max] {
                    assert!(value.fresh().is_none_or(f64::is_finite), "{wild}: {} {value:?}", metric.name);
                }
            }
            let json = serde_json::to_string(rig.store.last_record()).expect("it is written");
            assert_eq!(
                serde_json::from_str::<TickRecord>(&json).expect("it is read"),
                *rig.store.last_record()
            );
        }
    }
}
