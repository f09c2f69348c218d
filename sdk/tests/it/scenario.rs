//! The model of a set does what a set does.

use regatta_sdk::testing::{Load, Row, Scenario, Signal, Subject, TestPolicy, TestTick};
use regatta_sdk::{InstanceState, MetricValue, Outcome, Reason};

use crate::policies::{PARAMS, Proportional};

/// Wants one size after the other, and keeps what it saw.
struct Script {
    sizes: Vec<Result<u32, String>>,
    victims: Vec<u32>,
    seen: Vec<TestTick>,
}

fn script(sizes: &[u32]) -> Script {
    Script { sizes: sizes.iter().copied().map(Ok).collect(), victims: Vec::new(), seen: Vec::new() }
}

impl Subject for Script {
    fn reset(&mut self) {
        self.seen.clear();
    }
    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        let wanted = self.sizes[self.seen.len().min(self.sizes.len() - 1)].clone()?;
        self.seen.push(tick.clone());
        Ok(Outcome::capacity(wanted)
            .victims(self.victims.clone())
            .because(Reason::new("script", "as written")))
    }
    fn metrics(&self) -> Vec<String> {
        vec!["load".to_owned()]
    }
}

fn column(run: &[Row], of: fn(&Row) -> u32) -> Vec<u32> {
    run.iter().map(of).collect()
}

#[test]
fn instances_boot_and_drain() {
    let mut policy = script(&[3, 3, 3, 3, 1, 1, 1]);
    let run = Scenario::new().ticks(7).boot_ticks(2).drain_ticks(1).run(&mut policy);
    assert_eq!(column(run.rows(), |row| row.in_service), [1, 1, 1, 3, 3, 1, 1]);
    assert_eq!(column(run.rows(), |row| row.warming), [0, 2, 2, 0, 0, 0, 0]);
    let draining: Vec<u32> = policy.seen.iter().map(|tick| tick.parts().counts.draining).collect();
    assert_eq!(draining, [0, 0, 0, 0, 0, 2, 0]);
    let desired: Vec<u32> = policy.seen.iter().map(|tick| tick.parts().desired).collect();
    assert_eq!(desired, [1, 3, 3, 3, 3, 1, 1]);
    let last = policy.seen[1].parts().last.unwrap();
    assert_eq!(
        (last.tick, last.wanted, last.granted, last.reasons[0].code.as_str()),
        (1, Some(3), 3, "script")
    );
    assert_eq!(policy.seen[0].parts().last, None);
    // At once.
    let run = Scenario::new().ticks(3).boot_ticks(0).drain_ticks(0).run(&mut script(&[4, 2]));
    assert_eq!(column(run.rows(), |row| row.in_service), [1, 4, 2]);
}

#[test]
fn victims_go_first_then_those_on_their_way_then_the_youngest() {
    let ids = |policy: &Script, at: usize| {
        policy.seen[at].parts().instances.in_service().map(|row| row.id).collect::<Vec<_>>()
    };
    let mut policy = script(&[2, 2]);
    policy.victims = vec![3, 1];
    Scenario::new().ticks(2).start(4).run(&mut policy);
    assert_eq!(ids(&policy, 1), [2, 4]);
    let mut policy = script(&[2, 2]);
    Scenario::new().ticks(2).start(4).run(&mut policy);
    assert_eq!(ids(&policy, 1), [1, 2]);
    let mut policy = script(&[6, 4, 4, 4, 4]);
    Scenario::new().ticks(5).start(4).boot_ticks(3).run(&mut policy);
    assert_eq!(ids(&policy, 2), [1, 2, 3, 4]);
    assert_eq!(policy.seen[2].parts().counts.booting, 0);
}

#[test]
fn the_load_is_spread_over_those_in_service() {
    let mut policy = script(&[4]);
    let scenario =
        Scenario::new().load([(4, 300.0)]).instance_capacity(100.0).start(2).boot_ticks(1).full_at(100.0);
    let run = scenario.run(&mut policy);
    let values: Vec<MetricValue> = run.rows().iter().map(|row| row.value).collect();
    assert_eq!(values, [150.0, 150.0, 75.0, 75.0].map(MetricValue::Fresh));
    assert_eq!(run.under_provisioned_ticks(), 2);
    assert_eq!(run.over_provisioned_ticks(1.0), 2);
    let table = policy.seen[1].parts();
    assert_eq!(table.instances.in_state(InstanceState::Booting).count(), 2);
    assert_eq!(table.metrics[0].values[2], MetricValue::Missing, "one on its way measures nothing");
    assert_eq!(policy.seen[3].parts().metrics[0].window.value, [150.0, 150.0, 75.0]);

    let of = |signal| {
        let mut policy = script(&[2]);
        let scenario = Scenario::new().load(300.0).instance_capacity(100.0).start(2).metric("rps", signal);
        scenario.run(&mut policy).rows()[0].value
    };
    assert_eq!(of(Signal::PerInstance), MetricValue::Fresh(150.0));
    assert_eq!(of(Signal::Total), MetricValue::Fresh(300.0));
}

#[test]
fn metrics_go_and_grow_old() {
    let run = Scenario::new().ticks(6).tick_ms(1_000).gap(3..4).stale(5..7).run(&mut script(&[1]));
    let values: Vec<MetricValue> = run.rows().iter().map(|row| row.value).collect();
    let fresh = MetricValue::Fresh(1.0);
    assert_eq!(values[..4], [fresh, fresh, MetricValue::Missing, fresh]);
    for (at, age_ms) in [(4, 1_000), (5, 2_000)] {
        let MetricValue::Stale(stale) = values[at] else { panic!("{values:?}") };
        assert_eq!((stale.value, stale.age_ms), (1.0, age_ms));
    }
}

#[test]
fn no_outcome_keeps_the_size_and_is_told() {
    let mut policy = script(&[3]);
    policy.sizes = vec![Ok(3), Err("no idea".to_owned())];
    let run = Scenario::new().ticks(5).run(&mut policy);
    assert_eq!((run.failures(), run.last_size(), run.changes()), (4, 3, 1));
    assert_eq!((run.rows()[1].wanted, run.rows()[1].granted), (None, 3));
    assert!(run.to_string().contains("no outcome: no idea"), "{run}");
}

#[test]
fn measures_tell_what_happened() {
    let run = Scenario::new().ticks(8).boot_ticks(0).run(&mut script(&[3, 5, 4, 4, 6, 2, 2, 2]));
    assert_eq!((run.first_size(), run.last_size(), run.most(), run.least()), (1, 2, 6, 1));
    assert_eq!((run.changes(), run.oscillations(), run.settled_at()), (5, 3, Some(7)));
    let run = Scenario::new().ticks(2).run(&mut script(&[1, 2]));
    assert_eq!((run.settled_at(), run.oscillations()), (None, 0));
    assert_eq!(Scenario::new().ticks(2).run(&mut script(&[1])).settled_at(), Some(1));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let scenario = Scenario::new().load(Load::new().wave(5.0, 3.0, 20, 60)).noise(0.2, seed);
        scenario.run(&mut TestPolicy::<Proportional>::new(PARAMS).unwrap())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_chart_shows_it() {
    let load = Load::new().hold(2.0, 10).ramp(8.0, 20).hold(8.0, 20).hold(2.0, 20);
    let mut policy = TestPolicy::<Proportional>::new(PARAMS).unwrap();
    let run = Scenario::new().load(load).gap(35..40).run(&mut policy);
    let text = run.to_string();
    println!("{text}");
    assert!(text.contains("size 1 → 4 (least 1, most 16); "), "{text}");
    assert!(text.contains("×××××  × no fresh metric"), "{text}");
    assert!(text.contains("tick    1  1 → 4       above-target: as much as is needed"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let empty = Scenario::new().load(Load::new()).run(&mut policy);
    assert_eq!(empty.to_string(), "no ticks\n");
    // Ten thousand ticks and instances are not larger on paper.
    let large = Scenario::new()
        .bounds(1, 100_000)
        .load(Load::new().wave(5_000.0, 4_000.0, 300, 700))
        .run(&mut policy);
    assert!(large.to_string().lines().count() < 32, "{large}");
}
