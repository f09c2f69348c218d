//! The daemon's own metrics, as OpenMetrics text.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use regatta_core::decision::PolicyRun;
use regatta_core::instance_state::{INSTANCE_STATES, InstanceState};
use regatta_core::machine::fails_open;
use regatta_core::manifest::ScaleSet;
use regatta_core::metrics::Reading;
use regatta_core::plan::Action;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::{InstanceRecord, SetState};

use crate::LbTotals;

/// The `Content-Type` of [`Exposition::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From a tenth of a millisecond to some seconds, as ticks and policies take.
const SECONDS: [f64; 12] = [0.0001, 0.0003, 0.001, 0.003, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// Names and values; the first is always the set.
type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;
type Histograms = Family<Labels, Histogram>;

/// The daemon's own metrics. Written from anywhere, read by [`Self::encode`].
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    families: Families,
    /// Every label set in use, so that those of a deleted set can be removed.
    used: Mutex<BTreeSet<Labels>>,
}

#[derive(Debug)]
struct Families {
    instances: Gauges,
    desired: Gauges,
    min: Gauges,
    max: Gauges,
    generation: Gauges,
    stuck: Gauges,
    ticks: Counters,
    tick_lateness: Histograms,
    tick_duration: Histograms,
    policy_runs: Counters,
    policy_duration: Histograms,
    policy_fuel: Counters,
    policy_failures: Counters,
    readings_failed: Counters,
    capacity_changes: Counters,
    guard_steps: Counters,
    plan_actions: Counters,
    orphans: Gauges,
    conditions: Gauges,
    lb: LbFamilies,
}

#[derive(Debug, Default)]
struct LbFamilies {
    accepted: Counters,
    active: Gauges,
    waiting: Gauges,
    fails_open: Gauges,
    refused: Counters,
    refused_of_client: Counters,
    unserved: Counters,
    retries: Counters,
    failed_connects: Counters,
    accept_errors: Counters,
    bytes: Counters,
    connects: Counters,
    connect_seconds: Family<Labels, Counter<f64, AtomicU64>>,
    closed: Counters,
}

impl Default for Exposition {
    fn default() -> Self {
        Self::new()
    }
}

impl Exposition {
    /// Metrics of a daemon that has just started.
    #[must_use]
    pub fn new() -> Self {
        let histograms: fn() -> Histograms = || Family::new_with_constructor(|| Histogram::new(SECONDS));
        let families = Families {
            instances: Gauges::default(),
            desired: Gauges::default(),
            min: Gauges::default(),
            max: Gauges::default(),
            generation: Gauges::default(),
            stuck: Gauges::default(),
            ticks: Counters::default(),
            tick_lateness: histograms(),
            tick_duration: histograms(),
            policy_runs: Counters::default(),
            policy_duration: histograms(),
            policy_fuel: Counters::default(),
            policy_failures: Counters::default(),
            readings_failed: Counters::default(),
            capacity_changes: Counters::default(),
            guard_steps: Counters::default(),
            plan_actions: Counters::default(),
            orphans: Gauges::default(),
            conditions: Gauges::default(),
            lb: LbFamilies::default(),
        };
        let mut registry = Registry::with_prefix("regatta");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", version);
        families.register(&mut registry);
        Self { registry, families, used: Mutex::default() }
    }

    /// A tick of the set has begun, so much later than it was due.
    pub fn tick_started(&self, set: &str, late: Duration) {
        let labels = self.labels(set, &[]);
        self.families.tick_lateness.get_or_create(&labels).observe(late.as_secs_f64());
    }

    /// A tick of the set, from the observation to the plan written down, took so long.
    pub fn tick_took(&self, set: &str, took: Duration) {
        let labels = self.labels(set, &[]);
        self.families.tick_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A policy of the set has run.
    pub fn policy_ran(&self, set: &str, run: &PolicyRun) {
        let families = &self.families;
        let labels = self.labels(set, &[("policy", &run.name)]);
        families.policy_runs.get_or_create(&labels).inc();
        families.policy_fuel.get_or_create(&labels).inc_by(run.fuel);
        let seconds = Duration::from_micros(run.duration_us).as_secs_f64();
        families.policy_duration.get_or_create(&labels).observe(seconds);
        if let Err(failure) = &run.result {
            let labels = self.labels(set, &[("policy", &run.name), ("kind", failure.kind.as_str())]);
            families.policy_failures.get_or_create(&labels).inc();
        }
    }

    /// A scrape of an instance has read the set's metrics.
    pub fn scraped(&self, set: &ScaleSet, readings: &[Reading]) {
        for (metric, reading) in set.metrics.iter().zip(readings) {
            if let Err(no_value) = reading {
                let labels = [("metric", metric.name.as_str()), ("kind", no_value.kind.as_str())];
                self.families.readings_failed.get_or_create(&self.labels(&set.name, &labels)).inc();
            }
        }
    }

    /// A tick has been written down.
    pub fn ticked(&self, record: &TickRecord) {
        let families = &self.families;
        let set = &record.observation.set;
        families.ticks.get_or_create(&self.labels(set, &[])).inc();
        let direction = match record.direction() {
            Direction::ScaleOut => Some("out"),
            Direction::ScaleIn => Some("in"),
            Direction::None => None,
        };
        if let Some(direction) = direction {
            let labels = self.labels(set, &[("direction", direction)]);
            families.capacity_changes.get_or_create(&labels).inc();
        }
        for step in &record.guards.steps {
            families.guard_steps.get_or_create(&self.labels(set, &[("guard", step.guard.as_str())])).inc();
        }
        for action in &record.plan.actions {
            let (action, cause) = match action {
                Action::Create { .. } => ("create", "wanted"),
                Action::Drain { cause, .. } => ("drain", cause.as_str()),
                Action::Restart { .. } => ("restart", "requested"),
                Action::Terminate { cause, .. } => ("terminate", cause.as_str()),
            };
            let labels = self.labels(set, &[("action", action), ("cause", cause)]);
            families.plan_actions.get_or_create(&labels).inc();
        }
    }

    /// How the set stands.
    pub fn observe_set(
        &self,
        set: &str,
        state: &SetState,
        limits: (u32, u32),
        instances: &[InstanceRecord],
        load_balancer: Option<&LbTotals>,
    ) {
        self.observe_capacity(set, limits, state.desired, state.generation);
        self.observe_instances(set, instances.iter().map(|instance| instance.phase.state()));
        if let Some(totals) = load_balancer {
            self.observe_load_balancer(set, totals);
        }
        if let Some(load_balancer) = &state.set.load_balancer {
            let open = fails_open(load_balancer, instances.iter().map(|instance| instance.phase));
            self.families.lb.fails_open.get_or_create(&self.labels(set, &[])).set(i64::from(open));
        }
    }

    /// Whether the loop of a set hangs.
    pub fn observe_stuck(&self, set: &str, stuck: bool) {
        self.families.stuck.get_or_create(&self.labels(set, &[])).set(i64::from(stuck));
    }

    fn observe_capacity(&self, set: &str, (min, max): (u32, u32), desired: u32, generation: u64) {
        let families = &self.families;
        let labels = self.labels(set, &[]);
        families.desired.get_or_create(&labels).set(i64::from(desired));
        families.min.get_or_create(&labels).set(i64::from(min));
        families.max.get_or_create(&labels).set(i64::from(max));
        families.generation.get_or_create(&labels).set(i64::try_from(generation).unwrap_or(i64::MAX));
    }

    fn observe_instances(&self, set: &str, states: impl Iterator<Item = InstanceState>) {
        // Every state is shown, so that a series does not end when it is zero.
        let mut counts = INSTANCE_STATES.map(|state| (state, 0));
        for state in states {
            counts.iter_mut().filter(|(known, _)| *known == state).for_each(|(_, count)| *count += 1);
        }
        for (state, count) in counts.into_iter().filter(|&(state, _)| state != InstanceState::Gone) {
            let labels = self.labels(set, &[("state", state.as_str())]);
            self.families.instances.get_or_create(&labels).set(count);
        }
    }

    fn observe_load_balancer(&self, set: &str, totals: &LbTotals) {
        let lb = &self.families.lb;
        let labels = self.labels(set, &[]);
        lb.active.get_or_create(&labels).set(i64::from(totals.active));
        lb.waiting.get_or_create(&labels).set(i64::from(totals.waiting));
        for (family, total) in [
            (&lb.accepted, totals.accepted),
            (&lb.refused, totals.refused),
            (&lb.refused_of_client, totals.refused_of_client),
            (&lb.unserved, totals.unserved),
            (&lb.retries, totals.retries),
            (&lb.failed_connects, totals.failed_connects),
            (&lb.accept_errors, totals.accept_errors),
            (&lb.connects, totals.connects),
        ] {
            put(family, &labels, total);
        }
        let seconds = Duration::from_micros(totals.connect_us).as_secs_f64();
        lb.connect_seconds.get_or_create(&labels).inner().store(seconds.to_bits(), Ordering::Relaxed);
        for (direction, total) in [("in", totals.bytes_in), ("out", totals.bytes_out)] {
            put(&lb.bytes, &self.labels(set, &[("direction", direction)]), total);
        }
        for (cause, total) in [
            ("idle", totals.closed_idle),
            ("drained", totals.closed_drained),
            ("cut", totals.closed_cut),
            ("broken", totals.closed_broken),
        ] {
            put(&lb.closed, &self.labels(set, &[("cause", cause)]), total);
        }
    }

    /// The orphans that there are, each by the set of its name.
    pub fn observe_orphans<'a>(&self, sets: impl Iterator<Item = &'a str>) {
        let family = &self.families.orphans;
        family.clear();
        for set in sets {
            family.get_or_create(&vec![("set", set.to_owned())]).inc();
        }
    }

    /// What holds for the daemon, and what does not.
    pub fn observe_conditions<'a>(&self, conditions: impl Iterator<Item = (&'a str, bool)>) {
        for (condition, holds) in conditions {
            let labels = vec![("condition", condition.to_owned())];
            self.families.conditions.get_or_create(&labels).set(i64::from(holds));
        }
    }

    /// Removes everything about a set that is gone.
    pub fn forget(&self, set: &str) {
        self.used().retain(|labels| {
            let stays = labels.first().is_none_or(|(_, name)| name != set);
            if !stays {
                self.families.remove(labels);
            }
            stays
        });
    }

    /// Everything as OpenMetrics text, see [`CONTENT_TYPE`].
    ///
    /// # Errors
    /// Those of the formatter, which a `String` never has.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn labels(&self, set: &str, more: &[(&'static str, &str)]) -> Labels {
        let more = more.iter().map(|&(name, value)| (name, value.to_owned()));
        let labels: Labels = std::iter::once(("set", set.to_owned())).chain(more).collect();
        let mut used = self.used();
        if !used.contains(&labels) {
            used.insert(labels.clone());
        }
        labels
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<Labels>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Families {
    fn register(&self, to: &mut Registry) {
        let seconds = || Unit::Seconds;
        to.register("instances", "Instances by state", self.instances.clone());
        to.register("capacity_desired", "Desired capacity", self.desired.clone());
        to.register("capacity_min", "Least capacity", self.min.clone());
        to.register("capacity_max", "Greatest capacity", self.max.clone());
        to.register("set_generation", "Generation of the manifest", self.generation.clone());
        to.register("ticks", "Ticks recorded", self.ticks.clone());
        let help = "How late ticks began";
        to.register_with_unit("tick_lateness", help, seconds(), self.tick_lateness.clone());
        let help = "How long ticks took";
        to.register_with_unit("tick_duration", help, seconds(), self.tick_duration.clone());
        to.register("policy_runs", "Runs of policies", self.policy_runs.clone());
        let help = "How long runs of policies took";
        to.register_with_unit("policy_duration", help, seconds(), self.policy_duration.clone());
        to.register("policy_fuel", "Fuel that policies used", self.policy_fuel.clone());
        to.register("policy_failures", "Runs that gave no decision", self.policy_failures.clone());
        let help = "Times that a scrape read no value of a metric";
        to.register("readings_failed", help, self.readings_failed.clone());
        let help = "Ticks that changed the capacity";
        to.register("capacity_changes", help, self.capacity_changes.clone());
        to.register("guard_steps", "Changes of decisions by guards", self.guard_steps.clone());
        to.register("plan_actions", "Actions planned", self.plan_actions.clone());
        to.register("set_stuck", "Whether the loop of a set hangs", self.stuck.clone());
        to.register("orphans", "VMs and directories that no stored set knows", self.orphans.clone());
        to.register("daemon_condition", "What holds for the daemon, as status says", self.conditions.clone());

        let lb = &self.lb;
        let to = to.sub_registry_with_prefix("lb");
        to.register("accepted", "Client connections accepted", lb.accepted.clone());
        to.register("active", "Client connections open", lb.active.clone());
        to.register("waiting", "Client connections that wait for an endpoint", lb.waiting.clone());
        let help = "Whether connections go to unhealthy instances as well, because too few are healthy";
        to.register("fails_open", help, lb.fails_open.clone());
        let help = "Client connections reset because as many were open as may be";
        to.register("refused", help, lb.refused.clone());
        let help = "Client connections reset because one client held as many as it may";
        to.register("refused_of_client", help, lb.refused_of_client.clone());
        let help = "Client connections closed for want of an endpoint";
        to.register("unserved", help, lb.unserved.clone());
        to.register("retries", "Connects tried again elsewhere", lb.retries.clone());
        let help = "Connects to endpoints that failed";
        to.register("failed_connects", help, lb.failed_connects.clone());
        to.register("accept_errors", "Accepts that failed", lb.accept_errors.clone());
        let help = "Bytes from (in) and to (out) clients";
        to.register_with_unit("traffic", help, Unit::Bytes, lb.bytes.clone());
        to.register("connects", "Connects to endpoints that succeeded", lb.connects.clone());
        let help = "Time that those connects took together";
        to.register_with_unit("connect", help, seconds(), lb.connect_seconds.clone());
        let help = "Connections that the load balancer or a fault ended";
        to.register("closed", help, lb.closed.clone());
    }

    fn remove(&self, labels: &Labels) {
        let lb = &self.lb;
        for family in [
            &self.instances,
            &self.desired,
            &self.min,
            &self.max,
            &self.generation,
            &self.stuck,
            &lb.active,
            &lb.waiting,
            &lb.fails_open,
        ] {
            family.remove(labels);
        }
        for family in [&self.tick_lateness, &self.tick_duration, &self.policy_duration] {
            family.remove(labels);
        }
        for family in [
            &self.ticks,
            &self.policy_runs,
            &self.policy_fuel,
            &self.policy_failures,
            &self.readings_failed,
            &self.capacity_changes,
            &self.guard_steps,
            &self.plan_actions,
            &lb.accepted,
            &lb.refused,
            &lb.refused_of_client,
            &lb.unserved,
            &lb.retries,
            &lb.failed_connects,
            &lb.accept_errors,
            &lb.bytes,
            &lb.connects,
            &lb.closed,
        ] {
            family.remove(labels);
        }
        lb.connect_seconds.remove(labels);
    }
}

/// Shows a total that is counted elsewhere.
fn put(family: &Counters, labels: &Labels, total: u64) {
    family.get_or_create(labels).inner().store(total, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use regatta_core::combine::Combined;
    use regatta_core::decision::{Decision, FailureKind, PolicyFailure, Reason};
    use regatta_core::guard::{GuardMemory, GuardName, GuardStep, GuardTrail};
    use regatta_core::node::Placement;
    use regatta_core::observation::{InstanceTable, Observation};
    use regatta_core::plan::{CreateCause, Plan, RemovalCause};
    use regatta_core::record::{PlanFacts, RECORD_VERSION};

    use super::*;
    use crate::text::scan;

    fn read<const N: usize>(exposition: &Exposition, series: [&str; N]) -> [Option<f64>; N] {
        let text = exposition.encode().unwrap();
        let found = scan(text.as_bytes(), &series).unwrap().into_iter().map(Result::ok);
        found.collect::<Vec<_>>().try_into().unwrap()
    }

    fn run(result: Result<(), FailureKind>) -> PolicyRun {
        let decision = Decision {
            capacity: 1,
            standby: None,
            victims: Vec::new(),
            wake_after_ms: None,
            reasons: Vec::new(),
        };
        let failed = |kind| PolicyFailure { kind, message: "".into() };
        PolicyRun {
            slot: String::new(),
            name: "target-tracking".into(),
            version: "0.1.0".into(),
            digest: "".into(),
            params: String::new(),
            state_in: String::new(),
            result: result.map(|()| decision).map_err(failed),
            fuel: 1_000,
            duration_us: 250_000,
            log: Vec::new(),
        }
    }

    fn record(set: &str) -> TickRecord {
        TickRecord {
            canaries: Vec::new(),
            shadows: Vec::new(),
            v: RECORD_VERSION,
            wall_ms: 1,
            manifest: "".into(),
            wanted_metrics: Vec::new(),
            observation: Observation {
                set: set.to_owned(),
                tick: 1,
                now_ms: 1,
                generation: 1,
                min: 1,
                max: 9,
                desired: 3,
                instances: InstanceTable::default(),
                metrics: Vec::new(),
                last: None,
                schedule: Vec::new(),
            },
            changes: Vec::new(),
            facts: PlanFacts::default(),
            runs: Vec::new(),
            combined: Combined {
                decided_by_digest: None,
                votes: Vec::new(),
                capacity: Some(1),
                standby: None,
                victims: Vec::new(),
                wake_after_ms: None,
                reasons: Vec::new(),
                decided_by: None,
            },
            guards: GuardTrail {
                steps: vec![GuardStep {
                    guard: GuardName::MissingData,
                    before: Some(1),
                    after: 2,
                    reason: Reason { code: "".into(), text: "".into(), evidence: Vec::new() },
                }],
                granted: 2,
                limits: Vec::new(),
                memory: GuardMemory::default(),
            },
            plan: Plan {
                actions: vec![
                    Action::Create {
                        id: 4,
                        cause: CreateCause::ScaleOut,
                        generation: 1,
                        placement: Placement::default(),
                    },
                    Action::Drain { id: 1, cause: RemovalCause::ScaleIn },
                    Action::Terminate { id: 2, cause: RemovalCause::Failed },
                ],
                notes: Vec::new(),
                ..Plan::default()
            },
            operator: Vec::new(),
        }
    }

    #[test]
    fn orphans_and_conditions_come_and_go() {
        let exposition = Exposition::new();
        let series = ["regatta_orphans", "regatta_daemon_condition"];
        exposition.observe_orphans(["web", "web", "db"].into_iter());
        exposition.observe_conditions([("orphans", true)].into_iter());
        assert_eq!(read(&exposition, series), [Some(3.0), Some(1.0)]);
        exposition.observe_orphans(std::iter::empty());
        exposition.observe_conditions([("orphans", false)].into_iter());
        assert_eq!(read(&exposition, series), [None, Some(0.0)]);
    }

    #[test]
    fn what_happened_is_shown() {
        let exposition = Exposition::new();
        exposition.tick_started("web", Duration::from_millis(2));
        exposition.tick_took("web", Duration::from_millis(500));
        exposition.policy_ran("web", &run(Ok(())));
        exposition.policy_ran("web", &run(Err(FailureKind::OutOfFuel)));
        exposition.ticked(&record("web"));
        exposition.observe_capacity("web", (1, 9), 3, 7);
        exposition.observe_instances(
            "web",
            [InstanceState::InService, InstanceState::InService, InstanceState::Booting].into_iter(),
        );
        let totals = LbTotals {
            accepted: 40,
            waiting: 2,
            refused: 3,
            refused_of_client: 4,
            bytes_in: 1,
            bytes_out: 2,
            connect_us: 1_500_000,
            ..LbTotals::default()
        };
        exposition.observe_load_balancer("web", &totals);

        let text = exposition.encode().unwrap();
        for line in [
            "regatta_instances{set=\"web\",state=\"in-service\"} 2",
            "regatta_instances{set=\"web\",state=\"booting\"} 1",
            "regatta_instances{set=\"web\",state=\"failed\"} 0",
            "regatta_capacity_desired{set=\"web\"} 3",
            "regatta_set_generation{set=\"web\"} 7",
            "regatta_policy_failures_total{set=\"web\",policy=\"target-tracking\",kind=\"out-of-fuel\"} 1",
            "regatta_capacity_changes_total{set=\"web\",direction=\"in\"} 1",
            "regatta_guard_steps_total{set=\"web\",guard=\"missing-data\"} 1",
            "regatta_plan_actions_total{set=\"web\",action=\"create\",cause=\"wanted\"} 1",
            "regatta_plan_actions_total{set=\"web\",action=\"drain\",cause=\"scale-in\"} 1",
            "regatta_lb_traffic_bytes_total{set=\"web\",direction=\"out\"} 2",
            "regatta_lb_waiting{set=\"web\"} 2",
            "regatta_lb_refused_total{set=\"web\"} 3",
            "regatta_lb_refused_of_client_total{set=\"web\"} 4",
            "# TYPE regatta_tick_lateness_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "no line `{line}` in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let series =
            ["regatta_policy_runs_total", "regatta_policy_fuel_total", "regatta_policy_duration_seconds_sum"];
        assert_eq!(read(&exposition, series), [Some(2.0), Some(2_000.0), Some(0.5)]);
        let series = [
            "regatta_lb_connect_seconds_total",
            "regatta_lb_accepted_total",
            "regatta_tick_duration_seconds_sum",
        ];
        assert_eq!(read(&exposition, series), [Some(1.5), Some(40.0), Some(0.5)]);
    }

    #[test]
    fn totals_are_shown_not_added_up() {
        let exposition = Exposition::new();
        for accepted in [5, 7] {
            exposition.observe_load_balancer("web", &LbTotals { accepted, ..LbTotals::default() });
        }
        assert_eq!(read(&exposition, ["regatta_lb_accepted_total"]), [Some(7.0)]);
    }

    #[test]
    fn a_set_that_is_gone_leaves_nothing() {
        let exposition = Exposition::new();
        let empty = exposition.encode().unwrap();
        for set in ["web", "batch"] {
            exposition.tick_started(set, Duration::ZERO);
            exposition.tick_took(set, Duration::ZERO);
            exposition.policy_ran(set, &run(Err(FailureKind::Trap)));
            exposition.ticked(&record(set));
            exposition.observe_capacity(set, (1, 9), 3, 7);
            exposition.observe_instances(set, std::iter::empty());
            exposition.observe_load_balancer(set, &LbTotals::default());
        }
        exposition.forget("web");
        let text = exposition.encode().unwrap();
        assert!(!text.contains("\"web\"") && text.contains("\"batch\""));
        exposition.forget("batch");
        assert_eq!(exposition.encode().unwrap(), empty);
    }
}
