//! The parameters.

use regatta_sdk::{MAX_CAPACITY, Problems};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::steps;

/// Parameters of `step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Name of the metric.
    pub metric: String,
    /// How it is folded over the instances in service.
    #[serde(default)]
    pub statistic: Statistic,
    /// Steps outwards, thresholds going up.
    #[serde(default)]
    pub scale_out: Vec<OutStep>,
    /// Steps inwards, thresholds going down.
    #[serde(default)]
    pub scale_in: Vec<InStep>,
    /// Ticks in a row that a threshold must be crossed, from 1.
    #[serde(default = "one")]
    pub for_ticks: u32,
    /// Time from a scale-out to the next, milliseconds.
    #[serde(default)]
    pub scale_out_cooldown_ms: u64,
    /// Time from any change of the capacity to a scale-in, milliseconds.
    #[serde(default = "five_minutes_ms")]
    pub scale_in_cooldown_ms: u64,
    /// Whether a scale-in stops short of where a scale-out threshold would be
    /// crossed again. Only for metrics that rise when instances go; `sum` never does.
    #[serde(default = "yes")]
    pub flapping_check: bool,
}

/// How a metric is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

impl Statistic {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

/// A step outwards: exactly one of `add`, `add_percent` and `set`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutStep {
    /// The step is taken when the value is above this.
    pub above: f64,
    /// That many more.
    #[serde(default)]
    pub add: Option<u32>,
    /// That many percent more, rounded up, at least one.
    #[serde(default)]
    pub add_percent: Option<f64>,
    /// At least that many in all.
    #[serde(default)]
    pub set: Option<u32>,
}

/// A step inwards: exactly one of `remove`, `remove_percent` and `set`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InStep {
    /// The step is taken when the value is below this.
    pub below: f64,
    /// That many fewer.
    #[serde(default)]
    pub remove: Option<u32>,
    /// That many percent fewer, rounded down, at least one.
    #[serde(default)]
    pub remove_percent: Option<f64>,
    /// At most that many in all.
    #[serde(default)]
    pub set: Option<u32>,
}

fn one() -> u32 {
    1
}

fn five_minutes_ms() -> u64 {
    300_000
}

fn yes() -> bool {
    true
}

impl Params {
    /// The step that a value takes outwards.
    pub(crate) fn out_step(&self, value: f64) -> Option<&OutStep> {
        self.scale_out.iter().rev().find(|step| above(value, step.above))
    }

    /// The step that a value takes inwards.
    pub(crate) fn in_step(&self, value: f64) -> Option<&InStep> {
        self.scale_in.iter().rev().find(|step| above(step.below, value))
    }

    /// The least capacity from `aimed` up to `desired` at which `value`, spread over
    /// it, crosses no scale-out threshold.
    pub(crate) fn without_flapping(&self, value: f64, desired: u32, aimed: u32) -> u32 {
        let threshold = self.scale_out.first().map(|step| step.above);
        let Some(threshold) = threshold.filter(|_| self.flapping_check && self.statistic != Statistic::Sum)
        else {
            return aimed;
        };
        let load = value * f64::from(desired);
        let crossed = |capacity: u32| above(load / f64::from(capacity.max(1)), threshold);
        if !crossed(aimed) {
            return aimed;
        }
        // With a load above 0 the value falls as the capacity rises: the first one
        // that does not cross is found by halving.
        let (mut low, mut high) = (aimed, desired);
        while low < high {
            let middle = low + (high - low) / 2;
            if crossed(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.require(!self.metric.trim().is_empty(), "/metric", "must name a metric");
        problems.require(self.for_ticks >= 1, "/for_ticks", "must be at least 1");
        if self.scale_out.is_empty() && self.scale_in.is_empty() {
            problems.add("", "needs at least one step in scale_out or scale_in");
        }
        for (at, step) in self.scale_out.iter().enumerate() {
            let path = format!("/scale_out/{at}");
            threshold(problems, &format!("{path}/above"), step.above);
            change(problems, &path, ["add", "add_percent", "set"], step.add, step.add_percent, step.set);
        }
        for (at, step) in self.scale_in.iter().enumerate() {
            let path = format!("/scale_in/{at}");
            threshold(problems, &format!("{path}/below"), step.below);
            change(
                problems,
                &path,
                ["remove", "remove_percent", "set"],
                step.remove,
                step.remove_percent,
                step.set,
            );
            if step.remove_percent.is_some_and(|percent| percent > 100.0) {
                problems.add(format!("{path}/remove_percent"), "must be at most 100");
            }
        }
        for (at, pair) in self.scale_out.windows(2).enumerate() {
            let path = format!("/scale_out/{}/above", at + 1);
            // Not `<=`, so that NaN is reported only once, as what it is.
            problems.require(
                pair[1].above > pair[0].above || pair[1].above.is_nan(),
                &path,
                "must be higher than in the step before",
            );
        }
        for (at, pair) in self.scale_in.windows(2).enumerate() {
            let path = format!("/scale_in/{}/below", at + 1);
            problems.require(
                pair[1].below < pair[0].below || pair[1].below.is_nan(),
                &path,
                "must be lower than in the step before",
            );
        }
        if let (Some(out), Some(inward)) = (self.scale_out.first(), self.scale_in.first())
            && inward.below > out.above
        {
            let text = "overlaps with the lowest scale_out threshold: a value between them would do both";
            problems.add("/scale_in/0/below", text);
        }
        steps::check_order(self, problems);
    }
}

/// Whether `one` is above `other` by more than the last bits of a sum of floats.
fn above(one: f64, other: f64) -> bool {
    one - other > 1e-9 * other.abs()
}

fn threshold(problems: &mut Problems, path: &str, value: f64) {
    problems.require(value.is_finite(), path, "must be a finite number");
}

fn change(
    problems: &mut Problems,
    path: &str,
    names: [&str; 3],
    count: Option<u32>,
    percent: Option<f64>,
    set: Option<u32>,
) {
    let given = [count.is_some(), percent.is_some(), set.is_some()].iter().filter(|&&given| given).count();
    if given != 1 {
        let [count, percent, set] = names;
        problems.add(path, format!("needs exactly one of {count}, {percent} and {set}"));
    }
    let path_of = |name: &str| format!("{path}/{name}");
    problems.require(
        count.is_none_or(|count| (1..=MAX_CAPACITY).contains(&count)),
        &path_of(names[0]),
        "must be 1 to 1000000",
    );
    problems.require(
        percent.is_none_or(|percent| percent.is_finite() && percent > 0.0),
        &path_of(names[1]),
        "must be a number above 0",
    );
    problems.require(
        set.is_none_or(|set| set <= MAX_CAPACITY),
        &path_of(names[2]),
        "must be at most 1000000",
    );
}
