//! What a tick sees: the set's instances and metrics, frozen.

use regatta_core::manifest::ScaleSet;
use regatta_core::observation::{InstanceRow, InstanceTable, Observation};
use regatta_metrics::{CONNECTION_RATE, CONNECTIONS, CPU, CounterRate, CpuShare, MEMORY, MetricSpec};
use regatta_traffic::ScrapeReport;

use super::SetTask;

/// Counters of one instance that become rates.
#[derive(Debug, Default)]
pub(super) struct Meters {
    cpu: CpuShare,
    /// In the order of the manifest's metrics; unused for those that are no rates.
    guest: Vec<CounterRate>,
}

/// The metrics that a set keeps: the built-in ones and those of its manifest.
pub(super) fn specs_of(set: &ScaleSet) -> Vec<MetricSpec> {
    let mut specs =
        vec![MetricSpec::per_instance(CPU, set.tick_ms), MetricSpec::per_instance(MEMORY, set.tick_ms)];
    if set.load_balancer.is_some() {
        specs.push(MetricSpec::per_instance(CONNECTIONS, set.tick_ms));
        specs.push(MetricSpec::per_set(CONNECTION_RATE, set.tick_ms));
    }
    specs.extend(set.metrics.iter().map(|metric| MetricSpec::per_instance(&metric.name, set.tick_ms)));
    specs
}

impl SetTask {
    /// Reads what is read at each tick: processes and the load balancer.
    pub(super) fn sample(&mut self, now_ms: u64) {
        let vcpus = self.state.set.instance.vcpus;
        for (&id, instance) in &mut self.instances {
            let Some(vmm) = &instance.vmm else { continue };
            let cpu = vmm.cpu_time_ns().and_then(|cpu_ns| instance.meters.cpu.push(now_ms, cpu_ns, vcpus));
            if let Some(cpu) = cpu {
                self.windows.push_instance(CPU, id, now_ms, cpu);
            }
            if let Some(rss_bytes) = vmm.rss_bytes() {
                self.windows.push_instance(MEMORY, id, now_ms, as_metric(rss_bytes));
            }
        }
        if let Some(load_balancer) = &self.load_balancer {
            let stats = load_balancer.stats();
            for endpoint in &stats.endpoints {
                self.windows.push_instance(
                    CONNECTIONS,
                    endpoint.endpoint.id,
                    now_ms,
                    f64::from(endpoint.open),
                );
            }
            let rate = self.connection_rate.push(now_ms, as_metric(stats.totals.accepted));
            if let Some(rate) = rate {
                self.windows.push_set(CONNECTION_RATE, now_ms, rate);
            }
        }
    }

    pub(super) fn on_scrape(&mut self, report: &ScrapeReport) {
        if let Some(error) = &report.error {
            tracing::debug!(
                set = self.state.set.name,
                instance = report.id,
                error = crate::chain::chain(error),
                "scrape"
            );
        }
        let Some(instance) = self.instances.get_mut(&report.id) else { return };
        let metrics = &self.state.set.metrics;
        instance.meters.guest.resize_with(metrics.len(), CounterRate::default);
        for ((metric, value), rate) in metrics.iter().zip(&report.values).zip(&mut instance.meters.guest) {
            let value = match value {
                Some(value) if metric.rate => rate.push(report.at_ms, *value),
                other => *other,
            };
            if let Some(value) = value {
                self.windows.push_instance(&metric.name, report.id, report.at_ms, value);
            }
        }
    }

    /// Freezes what is known at `now_ms`.
    pub(super) fn observe(&mut self, now_ms: u64) -> Observation {
        let mut instances = InstanceTable::default();
        for instance in self.instances.values().map(|instance| &instance.record) {
            if instance.state == regatta_core::instance_state::InstanceState::Gone {
                continue;
            }
            instances.push(InstanceRow {
                id: instance.id,
                state: instance.state,
                state_since_ms: instance.state_since_ms,
                created_ms: instance.created_ms,
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
