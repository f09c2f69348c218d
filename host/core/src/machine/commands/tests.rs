//! What becomes of commands when their set ends or starts over.

use std::collections::BTreeMap;

use crate::agent::Report;
use crate::batch::{Batch, Revision};
use crate::event::Actor;
use crate::machine::{
    Command, CommandError, CommitError, Effect, Input, NewSet, SetMachine, Start, TickFacts, create,
};
use crate::manifest::read_manifest;
use crate::node::Placement;
use crate::record::NodeCapacity;
use crate::state::{ImageDigests, PolicyActivation};
use crate::time::Time;

const MANIFEST: &str = "
version: regatta/v1
name: web
capacity: { min: 0, max: 4, initial: 1 }
image: { disk: /images/golden.raw, kernel: /images/vmlinux }
network: { mode: none }
policy: { module: fixed }
";

const NOW: Time = Time { wall_ms: 1_700_000_000_000, mono_ms: 0 };

/// A machine that is ready for its first tick.
fn machine() -> SetMachine {
    let set = read_manifest(MANIFEST.as_bytes(), "web.yaml", "/").unwrap().set;
    let policy = PolicyActivation {
        number: 0,
        digest: "digest".into(),
        name: "fixed".into(),
        version: "1.0.0".into(),
        source: "fixed.wasm".into(),
        params: "{}".into(),
        state_version: 1,
        state: String::new(),
        since_ms: 0,
        wishes: Vec::new(),
    };
    let new = NewSet { set, image: ImageDigests::default(), policies: vec![policy], incarnation: 1 };
    let (state, _) = create(new, NOW, Actor::Daemon);
    let start = Start {
        state,
        revision: Revision(1),
        instances: Vec::new(),
        manifests: BTreeMap::new(),
        last: None,
        listening: false,
        image_problem: None,
    };
    let mut machine = SetMachine::new(start, NOW);
    machine.on(NOW, Input::InventoryComplete);
    machine
}

fn command(token: u64, command: Command) -> Input {
    Input::Command { token, actor: Actor::Daemon, command }
}

fn batches(effects: &[Effect]) -> Vec<&Batch> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Commit(batch) = effect { Some(&**batch) } else { None })
        .collect()
}

#[test]
fn commands_that_wait_are_answered_when_the_set_starts_over() {
    let mut machine = machine();
    machine.on(NOW, command(1, Command::Scale { capacity: 2 }));
    assert!(machine.on(NOW, command(2, Command::Scale { capacity: 3 })).is_empty(), "it waits");
    let conflict = CommitError::Conflict("set web is at revision 2, not 1".into());
    let effects = machine.on(NOW, Input::Committed(Err(conflict)));
    let refused = effects
        .iter()
        .any(|effect| matches!(effect, Effect::Reply { token: 2, result: Err(CommandError::Conflict(_)) }));
    assert!(refused, "{effects:?}");
}

#[test]
fn an_instance_that_is_gone_cannot_be_protected() {
    let mut machine = machine();
    let tick = |capacity| {
        let nodes = vec![NodeCapacity { placement: Placement::default(), launches: capacity, why: None }];
        Input::Tick(Box::new(TickFacts { nodes, ..TickFacts::default() }))
    };
    // The only policy has no answer: the initial capacity of one is kept, and made.
    machine.on(NOW, tick(4));
    machine.on(NOW, Input::Decided { tick: 1, answers: vec![failed()] });
    machine.on(NOW, Input::Committed(Ok(Revision(2))));
    machine.on(NOW, Input::Report { id: 1, report: Report::Refused { why: "full".into() } });
    machine.on(NOW, tick(0));
    machine.on(NOW, Input::Decided { tick: 2, answers: vec![failed()] });
    machine.on(NOW, Input::Committed(Ok(Revision(3))));
    machine.on(NOW, Input::Report { id: 1, report: Report::Cleaned { note: None } });
    let effects = machine.on(NOW, command(1, Command::Protect { id: 1, protected: true }));
    assert!(batches(&effects).is_empty(), "{effects:?}");
    assert!(
        matches!(effects.as_slice(), [Effect::Reply { result: Err(CommandError::NotFound(_)), .. }]),
        "{effects:?}"
    );
}

fn failed() -> crate::machine::Answer {
    use crate::decision::{FailureKind, PolicyFailure, PolicyRun};
    let failure = PolicyFailure { kind: FailureKind::Trap, message: "unreachable".into() };
    let run = PolicyRun {
        slot: "fixed".into(),
        name: "fixed".into(),
        version: "1.0.0".into(),
        digest: "digest".into(),
        params: "{}".into(),
        state_in: String::new(),
        result: Err(failure),
        fuel: 0,
        duration_us: 0,
        log: Vec::new(),
    };
    crate::machine::Answer { number: 1, run, state: None }
}
