//! Policies: the built-in ones in native code, and some that no one should use.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use regatta_core::decision::{Decision, FailureKind, PolicyFailure, PolicyRun};
use regatta_core::machine::{Answer, Ask};
use regatta_core::metrics::MetricWish;
use regatta_core::observation::Observation;
use regatta_core::state::PolicyActivation;

use crate::dice::Dice;
use crate::native;

/// Policies that a set may have, with parameters and the metric that they ask for.
const KINDS: [(&str, &str, Option<&str>); 8] = [
    ("target-tracking", r#"{"metric":"utilization","target":0.6}"#, Some("utilization")),
    ("target-tracking", r#"{"metric":"utilization","target":0.3,"tolerance":0.2}"#, Some("utilization")),
    (
        "step",
        r#"{"metric":"utilization","scale_out":[{"above":0.7,"add":1},{"above":0.95,"add":3}],"scale_in":[{"below":0.3,"remove":1}],"scale_in_cooldown_ms":20000}"#,
        Some("utilization"),
    ),
    ("fixed", "3", None),
    ("fixed", "1", None),
    ("flaky", "2", Some("utilization")),
    ("wild", "0", None),
    ("broken", "0", None),
];

/// Any of them, as an operator would bring it.
pub(crate) fn any(dice: &mut Dice) -> PolicyActivation {
    let kind = match dice.per_mille(500) {
        true => dice.within(0..=2),
        false => dice.within(0..=KINDS.len() as u64 - 1),
    };
    let (name, params, wish) = KINDS[usize::try_from(kind).unwrap_or(0)];
    let state_version = if name == "flaky" { dice.small(1..=2) } else { 1 };
    PolicyActivation {
        number: 0,
        digest: format!("digest-of-{name}-{kind}-{state_version}").into(),
        name: name.to_owned().into(),
        version: format!("1.{state_version}.0").into(),
        source: format!("{name}.wasm").into(),
        params: params.to_owned(),
        state_version,
        state: String::new(),
        since_ms: 0,
        wishes: wish
            .map(|name| MetricWish { name: name.to_owned(), window_ms: 60_000 })
            .into_iter()
            .collect(),
    }
}

/// How policies behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Any may fail at any time.
    Wild,
    /// Nobody fails; what is neither built in nor fixed keeps the capacity.
    Calm,
    /// All keep the capacity: policies that disagree may chase each other forever.
    Content,
}

/// What a policy answers.
pub(crate) fn answer(dice: &mut Dice, observation: &Observation, ask: &Ask, mood: Mood) -> Answer {
    let policy = &ask.activation;
    let calm = mood != Mood::Wild;
    let unlucky = !calm && dice.per_mille(15);
    let (result, state) = match policy.name.as_str() {
        _ if mood == Mood::Content => (Ok(wanted(observation.desired)), None),
        _ if unlucky => (failure(dice), None),
        "target-tracking" => built_in::<target_tracking::TargetTracking>(observation, policy),
        "step" => built_in::<step::Step>(observation, policy),
        "fixed" => (Ok(wanted(policy.params.parse().unwrap_or(1))), None),
        _ if calm => (Ok(wanted(observation.desired)), None),
        "flaky" if dice.per_mille(600) => {
            // It counts its decisions.
            let count = policy.state.len();
            (Ok(wanted(dice.small(0..=6))), Some("x".repeat(count % 8 + 1)))
        }
        "wild" => (Ok(wild(dice, observation)), Some(BASE64_STANDARD.encode("wild"))),
        _ => (failure(dice), None),
    };
    answered(ask, result, state)
}

/// What a policy answers that is built in; another one fails.
pub(crate) fn decide(observation: &Observation, ask: &Ask) -> Answer {
    let (result, state) = match ask.activation.name.as_str() {
        "target-tracking" => built_in::<target_tracking::TargetTracking>(observation, &ask.activation),
        "step" => built_in::<step::Step>(observation, &ask.activation),
        name => {
            let message = format!("{name} is not built in: only target-tracking and step are here");
            (Err(PolicyFailure { kind: FailureKind::Refused, message: message.into() }), None)
        }
    };
    answered(ask, result, state)
}

/// An answer with that outcome.
pub(crate) fn answered(ask: &Ask, result: Result<Decision, PolicyFailure>, state: Option<String>) -> Answer {
    let policy = &ask.activation;
    let run = PolicyRun {
        slot: ask.slot.clone(),
        name: policy.name.clone(),
        version: policy.version.clone(),
        digest: policy.digest.clone(),
        params: policy.params.clone(),
        state_in: policy.state.clone(),
        result,
        fuel: 1_000,
        duration_us: 100,
        log: Vec::new(),
    };
    Answer { number: policy.number, run, state }
}

fn wanted(capacity: u32) -> Decision {
    Decision { capacity, standby: None, victims: Vec::new(), wake_after_ms: None, reasons: Vec::new() }
}

fn wild(dice: &mut Dice, observation: &Observation) -> Decision {
    let capacity = match dice.small(0..=5) {
        0 => 0,
        1 => u32::MAX,
        2 => observation.max + 1,
        _ => dice.small(0..=12),
    };
    let victims = (0..dice.small(0..=6)).map(|_| dice.small(0..=40)).collect();
    Decision { standby: Some(u32::MAX), victims, wake_after_ms: Some(0), ..wanted(capacity) }
}

fn failure(dice: &mut Dice) -> Result<Decision, PolicyFailure> {
    let kinds = [FailureKind::Trap, FailureKind::Deadline, FailureKind::OutOfFuel, FailureKind::Refused];
    let kind = dice.pick(&kinds).unwrap_or(FailureKind::Host);
    Err(PolicyFailure { kind, message: "it failed, as it shall".into() })
}

fn built_in<P: regatta_sdk::Policy>(
    observation: &Observation,
    policy: &PolicyActivation,
) -> (Result<Decision, PolicyFailure>, Option<String>) {
    let decided =
        BASE64_STANDARD.decode(&policy.state).map_err(|error| error.to_string()).and_then(|state| {
            let tick = native::fold(observation, policy.wishes.iter().map(|wish| wish.name.as_str()));
            native::decide::<P>(tick, &policy.params, &state)
        });
    match decided.map(native::decision) {
        Ok((decision, state)) => (Ok(decision), Some(BASE64_STANDARD.encode(state))),
        Err(message) => (Err(PolicyFailure { kind: FailureKind::Refused, message: message.into() }), None),
    }
}
