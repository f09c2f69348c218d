//! Records as a real set of web servers would write them: every instance
//! measured every tick, a window per metric, one policy that explains itself.
#![allow(dead_code, reason = "shared by the tests and the measuring example, each uses its part")]

use regatta_core::combine::Combined;
use regatta_core::decision::{Decision, PolicyRun, Reason};
use regatta_core::guard::{GuardMemory, GuardName, GuardStep, GuardTrail};
use regatta_core::instance_state::InstanceState;
use regatta_core::metric::{MetricValue, quantize};
use regatta_core::node::Placement;
use regatta_core::observation::{
    InstanceRow, InstanceTable, LastDecision, MetricObservation, MetricScope, Observation, WindowSample,
};
use regatta_core::phase::{InstanceEvent, Phase};
use regatta_core::plan::{Action, CreateCause, Plan};
use regatta_core::record::{InstanceChange, NodeCapacity, PlanFacts, RECORD_VERSION, TickRecord};

/// SplitMix64: enough randomness for made-up measurements, the same on every run.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In `0..below`.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}

/// What the made-up set looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) instances: u32,
    /// Samples of each metric's window. Those of its newer half are kept as they came, older ones are merged by two, then by four…
    pub(crate) window: usize,
    /// Whether window values have four significant digits, or all that a mean has.
    pub(crate) quantized_window: bool,
    /// Bytes of the policy's state that change every tick, of 200.
    pub(crate) state_bytes_changing: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { instances: 100, window: 60, quantized_window: false, state_bytes_changing: 40 }
    }
}

const TICK_MS: u64 = 5_000;
const START_MS: u64 = 1_780_000_000_000;
const METRICS: [(&str, f64, f64); 3] =
    [("cpu", 0.55, 0.2), ("guest_latency_ms", 14.0, 6.0), ("requests_per_second", 420.0, 90.0)];

/// The ticks of one set, one after the other.
pub(crate) struct Generator {
    pub(crate) rng: Rng,
    set: String,
    shape: Shape,
    tick: u64,
    now_ms: u64,
    instances: InstanceTable,
    windows: Vec<Vec<WindowSample>>,
    state: Vec<u8>,
    last: Option<LastDecision>,
    next_id: u32,
}

impl Generator {
    pub(crate) fn new(set: &str, seed: u64, shape: Shape) -> Self {
        let mut rng = Rng(seed);
        let mut instances = InstanceTable::default();
        for id in 1..=shape.instances {
            let created_ms = START_MS - 3_600_000 + u64::from(id / 8) * 5_000 + rng.below(40);
            instances.push(InstanceRow {
                id,
                state: InstanceState::InService,
                state_since_ms: created_ms + 9_000 + rng.below(4_000),
                created_ms,
                generation: 1,
                protected: false,
            });
        }
        let state = (0..200).map(|_| rng.next() as u8).collect();
        Self {
            next_id: shape.instances + 1,
            rng,
            set: set.to_owned(),
            shape,
            tick: 0,
            now_ms: START_MS,
            instances,
            windows: vec![Vec::new(); METRICS.len()],
            state,
            last: None,
        }
    }

    /// Fills the windows as if that many ticks had come before the first.
    pub(crate) fn warm_up(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now_ms += TICK_MS - 1 + self.rng.below(3);
            for (index, (_, centre, _)) in METRICS.iter().enumerate() {
                let value = centre * (0.9 + self.rng.unit() / 5.0);
                let value = if self.shape.quantized_window { quantize(value) } else { value };
                self.windows[index].push(WindowSample { at_ms: self.now_ms, value });
                down_sample(&mut self.windows[index], self.shape);
            }
        }
    }

    fn observe(&mut self) -> Observation {
        let day = (self.tick as f64 / 700.0).sin() * 0.2;
        let mut metrics = Vec::new();
        for (index, (name, centre, spread)) in METRICS.iter().enumerate() {
            let values: Vec<MetricValue> = (0..self.instances.len())
                .map(|_| match self.rng.below(400) {
                    0 => MetricValue::Missing,
                    1 => MetricValue::Stale {
                        value: quantize(*centre),
                        age_ms: 12_000 + self.rng.below(3_000),
                    },
                    _ => {
                        let noise = self.rng.unit() + self.rng.unit() - 1.0;
                        MetricValue::Fresh(quantize((centre * (1.0 + day) + spread * noise).max(0.0)))
                    }
                })
                .collect();
            let fresh: Vec<f64> = values.iter().filter_map(|v| v.fresh()).collect();
            let mean = fresh.iter().sum::<f64>() / fresh.len().max(1) as f64;
            metrics.push(MetricObservation {
                name: (*name).to_owned(),
                scope: MetricScope::Instance,
                values,
                window: self.windows[index].clone(),
            });
            let value = if self.shape.quantized_window { quantize(mean) } else { mean };
            self.windows[index].push(WindowSample { at_ms: self.now_ms, value });
            down_sample(&mut self.windows[index], self.shape);
        }
        let count = self.instances.len() as u32;
        Observation {
            set: self.set.clone(),
            tick: self.tick,
            now_ms: self.now_ms,
            generation: 1,
            min: 2,
            max: 400,
            desired: count,
            instances: self.instances.clone(),
            metrics,
            last: self.last.clone(),
            schedule: vec!["business-hours".to_owned()],
        }
    }

    /// Replaces one instance now and then, so that the table is not frozen.
    fn churn(&mut self) -> Vec<InstanceChange> {
        if self.instances.is_empty() || self.rng.below(20) != 0 {
            return Vec::new();
        }
        let row = self.rng.below(self.instances.len() as u64) as usize;
        let old = self.instances.id[row];
        self.instances.id.remove(row);
        self.instances.state.remove(row);
        self.instances.state_since_ms.remove(row);
        self.instances.created_ms.remove(row);
        self.instances.generation.remove(row);
        self.instances.protected.remove(row);
        self.instances.push(InstanceRow {
            id: self.next_id,
            state: InstanceState::InService,
            state_since_ms: self.now_ms,
            created_ms: self.now_ms - 9_000,
            generation: 1,
            protected: false,
        });
        self.next_id += 1;
        vec![
            InstanceChange {
                id: old,
                at_ms: self.now_ms - 40,
                event: InstanceEvent::Cleaned,
                from: Phase::Terminating,
                to: Phase::Gone,
                detail: None,
            },
            InstanceChange {
                id: self.next_id - 1,
                at_ms: self.now_ms - 10,
                event: InstanceEvent::BecameHealthy,
                from: Phase::Initializing,
                to: Phase::InService,
                detail: None,
            },
        ]
    }

    pub(crate) fn next_record(&mut self) -> TickRecord {
        self.tick += 1;
        self.now_ms += TICK_MS - 1 + self.rng.below(3);
        let changes = self.churn();
        let observation = self.observe();
        let desired = observation.desired;
        let mean = observation.aggregate(&observation.metrics[0]).mean.fresh().unwrap_or(0.0);
        let wanted = (f64::from(desired) * mean / 0.55).ceil() as u32;
        let moves = self.tick.is_multiple_of(25);
        let granted = if moves { desired + 1 } else { desired };
        let reasons = vec![
            Reason {
                code: if wanted > desired { "above-target" } else { "within-tolerance" }.to_owned().into(),
                text: format!("cpu is at {mean:.3}, the target is 0.550: {wanted} instances would meet it")
                    .into(),
                evidence: vec![
                    ("mean".into(), mean.to_string().into()),
                    ("target".into(), "0.55".into()),
                    ("in-service".into(), desired.to_string().into()),
                    ("wanted".into(), wanted.to_string().into()),
                ],
            },
            Reason {
                code: "warming".into(),
                text: "2 instances are not yet in service and were left out of the mean".into(),
                evidence: vec![("warming".into(), "2".into())],
            },
        ];
        for _ in 0..self.shape.state_bytes_changing {
            let at = self.rng.below(self.state.len() as u64) as usize;
            self.state[at] = self.rng.next() as u8;
        }
        let decision =
            Decision { capacity: wanted, standby: None, victims: Vec::new(), wake_after_ms: None, reasons };
        let reasons = decision.reasons.clone();
        self.last = Some(LastDecision {
            tick: self.tick,
            wanted: Some(wanted),
            granted,
            reasons: reasons.clone(),
            narrowed_by: vec!["missing-data".to_owned()],
        });
        let (lived_ms, instances) = (self.tick * TICK_MS, observation.instances.clone());
        TickRecord {
            canaries: Vec::new(),
            shadows: Vec::new(),
            v: RECORD_VERSION,
            wall_ms: self.now_ms,
            manifest: "77".repeat(32).into(),
            wanted_metrics: vec!["cpu".to_owned()],
            observation,
            changes,
            facts: PlanFacts {
                changed_ms: None,
                drained: Vec::new(),
                next_id: self.next_id,
                launches_resume_ms: 0,
                back_off: None,
                deleting: false,
                hold: None,
                lived_ms,
                resumed_ms: None,
                phase: vec![Phase::InService; instances.len()],
                // As if they had been made by the same daemon.
                phase_since_ms: instances.state_since_ms.iter().map(|ms| ms + 3_600_000 - START_MS).collect(),
                placement: std::iter::repeat_n(&Placement::default(), instances.len()).collect(),
                nodes: vec![NodeCapacity { placement: Placement::default(), launches: 400, why: None }],
                guard_memory: GuardMemory::default(),
                metric_gaps: Vec::new(),
                balancer_full: None,
                in_force: Default::default(),
            },
            runs: vec![PolicyRun {
                slot: String::new(),
                name: "target-tracking".into(),
                version: "0.1.0".into(),
                digest: ("4f1c2ab99d".repeat(6) + "beef").into(),
                params: r#"{"metric":"cpu","target":0.55,"tolerance":0.1,"warmup_ms":20000}"#.to_owned(),
                state_in: base64(&self.state),
                result: Ok(decision),
                fuel: 41_000 + self.rng.below(3_000),
                duration_us: 60 + self.rng.below(50),
                log: Vec::new(),
            }],
            combined: Combined {
                decided_by_digest: None,
                votes: Vec::new(),
                capacity: Some(wanted),
                standby: None,
                victims: Vec::new(),
                wake_after_ms: None,
                reasons: reasons.clone(),
                decided_by: Some("target-tracking".to_owned()),
            },
            guards: GuardTrail {
                steps: vec![GuardStep {
                    guard: GuardName::MissingData,
                    before: Some(wanted),
                    after: granted,
                    reason: Reason {
                        code: "stabilized".into(),
                        text: "the largest wish of the last 300 s stands".into(),
                        evidence: vec![("window-s".into(), "300".into())],
                    },
                }],
                granted,
                limits: Vec::new(),
                memory: GuardMemory::default(),
            },
            plan: Plan {
                actions: if moves {
                    vec![Action::Create {
                        id: self.next_id,
                        cause: CreateCause::ScaleOut,
                        generation: 1,
                        placement: Placement::default(),
                    }]
                } else {
                    Vec::new()
                },
                notes: Vec::new(),
                short: None,
            },
            operator: Vec::new(),
        }
    }
}

/// One way to keep old samples coarser than new ones: the window's sixteenths before its newer half hold samples of 2, 4, 8… ticks.
fn down_sample(window: &mut Vec<WindowSample>, shape: Shape) {
    if window.len() <= shape.window {
        return;
    }
    let (tier, tick) = ((shape.window / 16).max(1), TICK_MS);
    let mut end = window.len() - shape.window / 2;
    let mut span_ms = tick * 2;
    while end >= 2 && end > tier {
        // The newest two of this tier that are not yet merged.
        let pair = &window[end - tier.min(end)..end];
        let finer = pair.windows(2).position(|two| two[1].at_ms - two[0].at_ms < span_ms * 3 / 4);
        if let Some(at) = finer {
            let at = end - tier.min(end) + at;
            let mut value = (window[at].value + window[at + 1].value) / 2.0;
            if shape.quantized_window {
                value = quantize(value);
            }
            let merged = WindowSample { at_ms: window[at + 1].at_ms, value };
            window.splice(at..at + 2, [merged]);
            break;
        }
        end -= tier.min(end);
        span_ms *= 2;
    }
    if window.len() > shape.window {
        window.remove(0);
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(ALPHABET[(word >> (18 - 6 * i) & 63) as usize] as char);
            } else {
                text.push('=');
            }
        }
    }
    text
}
