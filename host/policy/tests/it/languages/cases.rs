//! What `examples/languages/vectors.json` is made of. The decisions are written down here by hand, not computed: this
//! is the specification of the example policy.

use std::fmt::Write as _;

use regatta_core::instance_state::InstanceState::{self, *};
use regatta_core::metric::MetricValue::{self, Fresh, Missing, Stale};
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use serde_json::{Value, json};

/// The text of the file.
pub(crate) fn text() -> String {
    let vectors =
        [plain(), edges(), blind(), grown(), counts(), streaks(), extremes(), parameters(), invalid()]
            .concat();
    let mut text = "{\"vectors\": [\n".to_owned();
    for (number, vector) in (1..).zip(&vectors) {
        // One vector, one line: a difference between two versions of the file is then easy to see.
        let end = if number == vectors.len() { "" } else { "," };
        writeln!(text, "{vector}{end}").expect("text can be written to a string");
    }
    text.push_str("]}\n");
    text
}

/// A set of instances, and what the metric says about them.
#[derive(Clone)]
struct Set {
    desired: u32,
    instances: Vec<(InstanceState, u32)>,
    metric: &'static str,
    values: Values,
}

#[derive(Clone)]
enum Values {
    /// There is no such metric.
    None,
    /// All instances in service have this value, the others none.
    All(MetricValue),
    /// The instances in service have these, in order.
    Each(Vec<MetricValue>),
    /// The set as a whole has it.
    Set(MetricValue),
}

/// `count` instances in service and as many desired.
fn set(count: u32) -> Set {
    Set { desired: count, instances: vec![(InService, count)], metric: "load", values: Values::None }
}

impl Set {
    fn desired(self, desired: u32) -> Self {
        Self { desired, ..self }
    }

    fn and(mut self, state: InstanceState, count: u32) -> Self {
        self.instances.push((state, count));
        self
    }

    fn metric(self, metric: &'static str) -> Self {
        Self { metric, ..self }
    }

    fn at(self, value: f64) -> Self {
        Self { values: Values::All(Fresh(value)), ..self }
    }

    fn all(self, value: MetricValue) -> Self {
        Self { values: Values::All(value), ..self }
    }

    fn each(self, values: &[MetricValue]) -> Self {
        Self { values: Values::Each(values.to_vec()), ..self }
    }

    fn whole(self, value: MetricValue) -> Self {
        Self { values: Values::Set(value), ..self }
    }

    fn observation(&self, tick: u64) -> Observation {
        let mut instances = InstanceTable::default();
        let mut id = 0;
        for &(state, count) in &self.instances {
            for _ in 0..count {
                id += 1;
                let row = InstanceRow {
                    id,
                    state,
                    state_since_ms: 2,
                    created_ms: 1,
                    generation: 1,
                    protected: false,
                };
                instances.push(row);
            }
        }
        let per_row = |mut of: Box<dyn FnMut() -> MetricValue>| {
            instances.state.iter().map(|&state| if state == InService { of() } else { Missing }).collect()
        };
        let (scope, values) = match self.values.clone() {
            Values::None => (MetricScope::Instance, Vec::new()),
            Values::All(value) => (MetricScope::Instance, per_row(Box::new(move || value))),
            Values::Each(values) => {
                let mut values = values.into_iter();
                let next = move || values.next().expect("a value for each instance in service");
                (MetricScope::Instance, per_row(Box::new(next)))
            }
            Values::Set(value) => (MetricScope::Set, vec![value]),
        };
        let metric = MetricObservation { name: self.metric.to_owned(), scope, values, window: Vec::new() };
        Observation {
            set: "web".to_owned(),
            tick,
            now_ms: 1_000_000 + 5_000 * tick,
            generation: 1,
            min: 1,
            max: 100,
            desired: self.desired,
            instances,
            metrics: if matches!(self.values, Values::None) { Vec::new() } else { vec![metric] },
            last: None,
            schedule: Vec::new(),
        }
    }
}

/// Half a unit per instance, 10 % of it either way.
fn half() -> Value {
    json!({"metric": "load", "target": 0.5})
}

fn expect(capacity: u32, reason: &str) -> Value {
    json!({"capacity": capacity, "reasons": [reason]})
}

/// One tick.
fn one(name: &str, params: Value, set: &Set, capacity: u32, reason: &str) -> Value {
    let observation = set.observation(1);
    json!({"name": name, "params": params, "observation": observation, "expect": expect(capacity, reason)})
}

/// One after the other, with the state carried along.
fn chain(name: &str, params: Value, ticks: &[(Set, u32, &str)]) -> Value {
    let ticks: Vec<Value> = (1..)
        .zip(ticks)
        .map(|(number, (set, capacity, reason))| {
            json!({"observation": set.observation(number), "expect": expect(*capacity, reason)})
        })
        .collect();
    json!({"name": name, "params": params, "ticks": ticks})
}

fn plain() -> Vec<Value> {
    vec![
        one("on the target", half(), &set(10).at(0.5), 10, "within-tolerance"),
        one("twice the target", half(), &set(10).at(1.0), 20, "above-target"),
        one("a little above", half(), &set(10).at(0.56), 12, "above-target"),
        one("the first quiet tick", half(), &set(10).at(0.2), 10, "waiting"),
        one("one instance is enough for little", half(), &set(1).at(0.53), 1, "within-tolerance"),
        one("one instance is not enough", half(), &set(1).at(0.7), 2, "above-target"),
        one(
            "the mean of what differs",
            half(),
            &set(4).each(&[Fresh(0.25), Fresh(0.5), Fresh(0.75), Fresh(1.0)]),
            5,
            "above-target",
        ),
        one("a metric of the whole set", half(), &set(4).whole(Fresh(3.0)), 6, "above-target"),
        one(
            "more than the set may have is for the host to cut",
            half(),
            &set(100).at(1.0),
            200,
            "above-target",
        ),
    ]
}

fn edges() -> Vec<Value> {
    let tolerance =
        |target: f64, tolerance: f64| json!({"metric": "load", "target": target, "tolerance": tolerance});
    vec![
        one("the upper edge is within", half(), &set(10).whole(Fresh(5.5)), 10, "within-tolerance"),
        one("a sum of floats at the upper edge is within", half(), &set(10).at(0.55), 10, "within-tolerance"),
        one("past the upper edge", half(), &set(10).whole(Fresh(5.501)), 12, "above-target"),
        one("the lower edge is within", half(), &set(10).whole(Fresh(4.5)), 10, "within-tolerance"),
        one("past the lower edge", half(), &set(10).whole(Fresh(4.499)), 10, "waiting"),
        one(
            "no tolerance, on the target",
            tolerance(0.1, 0.0),
            &set(3).whole(Fresh(0.3)),
            3,
            "within-tolerance",
        ),
        // (0.2 + 0.2 + 0.2) / 0.1 is 6.000000000000001.
        one("rounding costs no instance", tolerance(0.1, 0.0), &set(3).at(0.2), 6, "above-target"),
        one("nor with many", tolerance(0.1, 0.0), &set(11).at(2.2), 242, "above-target"),
        // 3.3 / 0.1 is 32.99999999999999.
        one(
            "rounding saves no instance",
            tolerance(0.1, 0.0),
            &set(11).whole(Fresh(3.3)),
            33,
            "above-target",
        ),
        one(
            "a thousandth more does cost one",
            tolerance(0.1, 0.0),
            &set(10).whole(Fresh(2.001)),
            21,
            "above-target",
        ),
        one("a tolerance of all", tolerance(0.5, 1.0), &set(10).at(1.0), 10, "within-tolerance"),
        one("more than a tolerance of all", tolerance(0.5, 1.0), &set(10).at(1.01), 21, "above-target"),
        one("a wide tolerance", tolerance(0.5, 0.25), &set(8).at(0.6), 8, "within-tolerance"),
    ]
}

fn blind() -> Vec<Value> {
    let stale = Stale { value: 5.0, age_ms: 61_000 };
    vec![
        one("no metric", half(), &set(5), 5, "no-data"),
        one("another metric", half(), &set(5).metric("other").at(5.0), 5, "no-data"),
        one("no value", half(), &set(5).all(Missing), 5, "no-data"),
        one("only stale values", half(), &set(5).all(stale), 5, "no-data"),
        one("a stale value of the whole set", half(), &set(5).whole(stale), 5, "no-data"),
        one(
            "partly missing: the rest does not count for all",
            half(),
            &set(4).each(&[Fresh(1.0), Missing, Fresh(1.0), Missing]),
            4,
            "within-tolerance",
        ),
        one(
            "partly stale: neither do the fresh",
            half(),
            &set(4).each(&[stale, Fresh(1.0), stale, stale]),
            4,
            "within-tolerance",
        ),
        one(
            "partly missing, and those that are measured are too few",
            half(),
            &set(4).each(&[Fresh(2.0), Missing, Fresh(2.0), Missing]),
            8,
            "above-target",
        ),
        one("no instances, none wanted", half(), &set(0).whole(Fresh(5.0)), 0, "no-data"),
        one("no instances yet", half(), &set(0).and(Booting, 3).desired(3).whole(Fresh(5.0)), 3, "no-data"),
        one("switched off, the last one still serving", half(), &set(1).desired(0).at(5.0), 0, "no-data"),
    ]
}

/// Instances in service that no value has come from yet: right after a scale-out.
fn grown() -> Vec<Value> {
    let stale = Stale { value: 5.0, age_ms: 61_000 };
    let quiet = || {
        let values = [vec![Fresh(0.2); 8], vec![Missing, stale]].concat();
        set(10).each(&values)
    };
    vec![
        chain(
            "the new ones have no value yet: the same load is not asked for twice",
            half(),
            &[
                (set(2).at(0.755), 4, "above-target"),
                (set(2).and(Booting, 2).desired(4).at(0.755), 4, "waiting"),
                (set(4).each(&[Fresh(0.755), Fresh(0.755), Missing, Missing]), 4, "within-tolerance"),
                (set(4).at(0.3775), 4, "waiting"),
            ],
        ),
        chain(
            "the new ones have no value yet, and the load grows on",
            half(),
            &[
                (set(2).at(1.0), 4, "above-target"),
                (set(4).each(&[Fresh(1.5), Fresh(1.5), Missing, Missing]), 6, "above-target"),
            ],
        ),
        chain(
            "who has no value keeps its place in a scale-in",
            half(),
            &[(quiet(), 10, "waiting"), (quiet(), 10, "waiting"), (quiet(), 6, "below-target")],
        ),
    ]
}

fn counts() -> Vec<Value> {
    vec![
        one(
            "what is warming is not asked for twice",
            half(),
            &set(4).and(Booting, 3).and(Pending, 1).desired(8).at(1.0),
            8,
            "within-tolerance",
        ),
        one(
            "more than what is warming",
            half(),
            &set(4).and(Creating, 4).desired(8).at(1.5),
            12,
            "above-target",
        ),
        one(
            "the unhealthy do not serve",
            half(),
            &set(5).and(Unhealthy, 5).desired(10).at(1.2),
            12,
            "above-target",
        ),
        one(
            "those that leave do not count",
            half(),
            &set(6).and(Draining, 2).and(Terminating, 1).and(Failed, 1).and(Standby, 3).at(0.5),
            6,
            "within-tolerance",
        ),
    ]
}

fn streaks() -> Vec<Value> {
    let quiet = || set(10).at(0.2);
    let waiting = || (quiet(), 10, "waiting");
    let down = || (quiet(), 4, "below-target");
    vec![
        chain("the third quiet tick scales in", half(), &[waiting(), waiting(), down()]),
        chain(
            "and then it waits again",
            half(),
            &[waiting(), waiting(), down(), waiting(), waiting(), down()],
        ),
        chain(
            "a tick on the target ends the row",
            half(),
            &[waiting(), waiting(), (set(10).at(0.5), 10, "within-tolerance"), waiting(), waiting(), down()],
        ),
        chain(
            "a tick above ends the row",
            half(),
            &[waiting(), waiting(), (set(10).at(0.9), 18, "above-target"), waiting(), waiting(), down()],
        ),
        chain(
            "a gap ends the row",
            half(),
            &[waiting(), waiting(), (set(10), 10, "no-data"), waiting(), waiting(), down()],
        ),
        chain(
            "nothing goes while something comes",
            half(),
            &[
                (quiet().and(Pending, 1), 10, "waiting"),
                (quiet().and(Creating, 1), 10, "waiting"),
                (quiet().and(Booting, 1), 10, "waiting"),
                (quiet().and(Initializing, 1), 10, "waiting"),
                (quiet().and(Unhealthy, 1), 4, "below-target"),
            ],
        ),
        chain(
            "no load leaves one",
            half(),
            &[
                (set(3).at(0.0), 3, "waiting"),
                (set(3).at(0.0), 3, "waiting"),
                (set(3).at(0.0), 1, "below-target"),
                (set(1).at(0.0), 1, "waiting"),
                (set(1).at(0.0), 1, "waiting"),
                (set(1).at(0.0), 1, "below-target"),
            ],
        ),
        chain(
            "it goes down with the load, and up at once",
            half(),
            &[
                (set(8).at(0.3), 8, "waiting"),
                (set(8).at(0.25), 8, "waiting"),
                (set(8).at(0.2), 4, "below-target"),
                (set(4).at(0.5), 4, "within-tolerance"),
                (set(4).at(0.9), 8, "above-target"),
            ],
        ),
        json!({
            "name": "a state that cannot be read counts as none",
            "params": half(),
            "state": "/9j/",
            "observation": quiet().observation(1),
            "expect": expect(10, "waiting"),
        }),
    ]
}

fn extremes() -> Vec<Value> {
    let below = |load: f64| {
        let tick = |capacity, reason| (set(10).at(load), capacity, reason);
        [tick(10, "waiting"), tick(10, "waiting"), tick(1, "below-target")]
    };
    vec![
        one("a thousand instances", half(), &set(1000).at(0.65), 1300, "above-target"),
        one("as many as a host accepts", half(), &set(10).at(1e300), 1_000_000, "above-target"),
        one("a load past all numbers", half(), &set(10).whole(Fresh(1.7e308)), 1_000_000, "above-target"),
        chain("a load below zero is none", half(), &below(-3.0)),
        chain("a load that is hardly there", half(), &below(1e-300)),
        one(
            "hundreds of thousands",
            json!({"metric": "load", "target": 0.001}),
            &set(100).whole(Fresh(123.456_7)),
            123_457,
            "above-target",
        ),
    ]
}

fn parameters() -> Vec<Value> {
    vec![
        one(
            "a target that is a whole number",
            json!({"metric": "load", "target": 100}),
            &set(4).whole(Fresh(600.0)),
            6,
            "above-target",
        ),
        one(
            "a target with an exponent",
            json!({"metric": "load", "target": 2.5e-7, "tolerance": 0}),
            &set(3).whole(Fresh(1.5e-6)),
            6,
            "above-target",
        ),
        one(
            "a target of many digits",
            json!({"metric": "load", "target": 1234.56789, "tolerance": 0.05}),
            &set(7).whole(Fresh(17_283.950_46)),
            14,
            "above-target",
        ),
        one(
            "a large target",
            json!({"metric": "load", "target": 1e20}),
            &set(2).whole(Fresh(6e20)),
            6,
            "above-target",
        ),
        one(
            "another order of the parameters",
            json!({"tolerance": 0.5, "target": 0.5, "metric": "load"}),
            &set(10).at(0.7),
            10,
            "within-tolerance",
        ),
        one(
            "a name with quotes, backslash and more than ASCII",
            json!({"metric": "\"größe\" \\ 2", "target": 0.5}),
            &set(2).metric("\"größe\" \\ 2").at(1.0),
            4,
            "above-target",
        ),
    ]
}

fn invalid() -> Vec<Value> {
    let invalid = |name: &str, params: Value, paths: &[&str]| json!({"name": format!("invalid: {name}"), "params": params, "expect": {"invalid": paths}});
    vec![
        invalid("no parameters", json!({}), &[""]),
        invalid("no metric", json!({"target": 0.5}), &[""]),
        invalid("no target", json!({"metric": "load"}), &[""]),
        invalid("an unknown one", json!({"metric": "load", "target": 0.5, "min": 3}), &[""]),
        invalid(
            "an unknown one of many parts",
            json!({"metric": "load", "target": 0.5, "step": {"a": [1, {"b": "}\"]"}, null], "c": {}}}),
            &[""],
        ),
        invalid("no object", json!(7), &[""]),
        invalid("a list", json!([]), &[""]),
        invalid("a metric without a name", json!({"metric": "", "target": 0.5}), &["/metric"]),
        invalid("a metric that is a number", json!({"metric": 1, "target": 0.5}), &["/metric"]),
        invalid("a target of zero", json!({"metric": "load", "target": 0}), &["/target"]),
        invalid("a target below zero", json!({"metric": "load", "target": -0.5}), &["/target"]),
        invalid("a target that is text", json!({"metric": "load", "target": "0.5"}), &["/target"]),
        invalid("a target of null", json!({"metric": "load", "target": null}), &["/target"]),
        invalid("a target that is yes", json!({"metric": "load", "target": true}), &["/target"]),
        invalid(
            "a tolerance above one",
            json!({"metric": "load", "target": 0.5, "tolerance": 1.5}),
            &["/tolerance"],
        ),
        invalid(
            "a tolerance below zero",
            json!({"metric": "load", "target": 0.5, "tolerance": -0.1}),
            &["/tolerance"],
        ),
        invalid(
            "a tolerance that is text",
            json!({"metric": "load", "target": 0.5, "tolerance": "0.1"}),
            &["/tolerance"],
        ),
        invalid(
            "all problems at once",
            json!({"metric": "", "target": -1, "tolerance": 2}),
            &["/metric", "/target", "/tolerance"],
        ),
    ]
}
