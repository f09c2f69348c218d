//! What a tick sees: the set's instances and metrics, frozen.

use crate::metrics::{
    self, CONNECTION_RATE, CONNECTIONS, CPU, CounterRate, MEMORY, MetricSpec, SetWindows, longest_wishes,
};
use crate::mutant::{self, Mutant};
use crate::observation::{InstanceRow, InstanceTable, Observation};
use crate::phase::Phase;
use crate::state::SetState;

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

/// Fills windows from the last observation before a restart.
pub(super) fn restore(windows: &mut SetWindows, last: &Observation) {
    windows.restore(last);
}

impl SetMachine {
    /// Takes in what is read when a tick begins: processes and the load balancer.
    pub(super) fn sample(&mut self, processes: &[ProcessReading], traffic: Option<&TrafficReading>) {
        let (now_ms, lived_ms) = (self.clock.steady_ms, self.clock.lived_ms);
        let vcpus = self.manifest.instance.vcpus;
        for reading in processes {
            let Some(instance) = self.instances.get_mut(&reading.id) else { continue };
            let cpu =
                reading.cpu_time_ns.and_then(|cpu_ns| instance.meters.cpu.push(lived_ms, cpu_ns, vcpus));
            if let Some(cpu) = cpu {
                self.windows.push_instance(CPU, reading.id, now_ms, cpu);
            }
            if let Some(rss_bytes) = reading.rss_bytes {
                self.windows.push_instance(MEMORY, reading.id, now_ms, as_metric(rss_bytes));
            }
        }
        let Some(traffic) = traffic else { return };
        for (&id, &open) in &traffic.open {
            self.windows.push_instance(CONNECTIONS, id, now_ms, f64::from(open));
        }
        if let Some(rate) = self.connection_rate.push(lived_ms, as_metric(traffic.accepted)) {
            self.windows.push_set(CONNECTION_RATE, now_ms, rate);
        }
    }

    pub(super) fn on_scrape(&mut self, scrape: &Scrape) {
        let age_ms = self.now.mono_ms.saturating_sub(scrape.at_mono_ms);
        let (at_ms, lived_ms) =
            (self.clock.steady_ms.saturating_sub(age_ms), self.clock.lived_ms.saturating_sub(age_ms));
        let Some(instance) = self.instances.get_mut(&scrape.id) else { return };
        let metrics = &self.manifest.metrics;
        instance.meters.guest.resize_with(metrics.len(), CounterRate::default);
        for ((metric, value), rate) in metrics.iter().zip(&scrape.values).zip(&mut instance.meters.guest) {
            let zero = value.is_none() && mutant::is(Mutant::MissingIsZero);
            let value = match value {
                None if zero => Some(0.0),
                Some(value) if metric.rate => rate.push(lived_ms, *value),
                other => *other,
            };
            if let Some(value) = value {
                self.windows.push_instance(&metric.name, scrape.id, at_ms, value);
            }
        }
    }

    /// Freezes what is known now.
    pub(super) fn observe(&mut self) -> Observation {
        let now_ms = self.clock.steady_ms;
        let mut instances = InstanceTable::default();
        for instance in self.instances.values().map(|instance| &instance.record) {
            if instance.phase == Phase::Gone {
                continue;
            }
            instances.push(InstanceRow {
                id: instance.id,
                state: instance.phase.state(),
                state_since_ms: self.steady_of(instance.phase_since_lived_ms),
                created_ms: self.steady_of(instance.created_lived_ms),
                generation: instance.generation,
                protected: instance.protected,
            });
        }
        let metrics = self.windows.build_metrics(now_ms, &instances);
        self.windows.end_tick(now_ms, &instances);
        let state = &self.state;
        Observation {
            set: state.set.name.clone(),
            tick: state.last_tick + 1,
            now_ms,
            generation: state.generation,
            min: state.set.capacity.min,
            max: state.set.capacity.max,
            desired: state.desired,
            instances,
            metrics,
            last: self.last_decision.clone(),
            schedule: Vec::new(),
        }
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
    use crate::metric::MetricValue;

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
        rig.facts.traffic = Some(TrafficReading { accepted: 100, open: [(1, 4)].into() });
        rig.tick();
        rig.facts.processes = vec![reading(1, SECOND_NS)];
        rig.facts.traffic = Some(TrafficReading { accepted: 120, open: [(1, 5)].into() });
        rig.now.wall_ms += 86_400_000;
        rig.tick_after(2_000);
        assert_eq!(value(&rig, CPU, 0), MetricValue::Fresh(0.5));
        assert_eq!(value(&rig, CONNECTION_RATE, 0), MetricValue::Fresh(10.0));
        assert_eq!(value(&rig, CONNECTIONS, 0), MetricValue::Fresh(5.0));
        assert_eq!(value(&rig, MEMORY, 0), MetricValue::Fresh(2_000_000.0));
        assert_eq!(value(&rig, MEMORY, 1), MetricValue::Missing, "no data is not zero");
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
                values: vec![Some(count)],
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
}
