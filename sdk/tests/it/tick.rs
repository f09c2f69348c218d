//! What a policy sees through its views.

use std::cell::RefCell;

use regatta_sdk::prelude::*;
use regatta_sdk::testing::{TestPolicy, TestTick, migrate};
use regatta_sdk::{Instance, Reading, StaleValue};

use crate::policies::Proportional;

thread_local! {
    static SEEN: RefCell<Vec<(u32, Reading)>> = const { RefCell::new(Vec::new()) };
    static QUIET: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

struct Look;

impl Policy for Look {
    type Params = NoParams;
    type State = ();
    fn describe() -> Describe {
        Describe::new("look", "1.0.0", "Looks.").metric("load")
    }
    fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> {
        SEEN.set(tick.rows_with("load").map(|(row, reading)| (row.id, reading)).collect());
        QUIET.set(tick.quietest("load", 3));
        assert!(std::ptr::eq(tick.instances(), tick.instances()), "fetched once");
        Ok(Outcome::keep(tick))
    }
}

fn look(tick: &TestTick) -> (Vec<(u32, Reading)>, Vec<u32>) {
    let mut policy = TestPolicy::<Look>::new("{}").expect("it has no parameters");
    policy.tick(tick).expect("it has an outcome for everything");
    (SEEN.take(), QUIET.take())
}

#[test]
fn rows_come_with_their_readings() {
    let stale = MetricValue::Stale(StaleValue { value: 0.1, age_ms: 5 });
    let protected = Instance {
        id: 9,
        state: InstanceState::InService,
        state_since_ms: 1,
        created_ms: 1,
        generation: 1,
        protected: true,
    };
    let tick = TestTick::new()
        .instances(InstanceState::InService, 4)
        .instances(InstanceState::Draining, 1)
        .instance(protected)
        .metric_rows(
            "load",
            &[
                MetricValue::Fresh(0.5),
                stale,
                MetricValue::Fresh(0.2),
                MetricValue::Fresh(0.5),
                MetricValue::Fresh(0.0),
                MetricValue::Fresh(0.0),
            ],
        );
    let (rows, quiet) = look(&tick);
    assert_eq!(rows[..3], [(1, Reading::Fresh(0.5)), (2, Reading::Stale(0.1)), (3, Reading::Fresh(0.2))]);
    // The least first, equals by age, the unknown last; none that drains or is protected.
    assert_eq!(quiet, [3, 1, 4]);
    let (rows, quiet) = look(
        &TestTick::new().instances(InstanceState::InService, 2).set_metric("load", MetricValue::Fresh(9.0)),
    );
    assert_eq!(rows, [(1, Reading::Missing), (2, Reading::Missing)]);
    assert_eq!(quiet, [1, 2]);
}

#[test]
fn a_state_of_another_version_is_migrated_or_refused() {
    assert_eq!(migrate::<Proportional>(1, br#"{"ticks_below":2}"#), Ok(br#"{"below":2}"#.to_vec()));
    let error = migrate::<Proportional>(1, b"[]").unwrap_err();
    assert!(error.starts_with("the old state is not as expected: "), "{error}");
    assert_eq!(migrate::<Proportional>(7, b"{}"), Err("version 7 is not known".to_owned()));
    // Nothing was kept, so nothing has to be read.
    assert_eq!(migrate::<Proportional>(7, b""), Ok(br#"{"below":0}"#.to_vec()));
    let error = migrate::<Look>(3, b"{}").unwrap_err();
    assert_eq!(error, "this policy cannot read a state of version 3");
}

#[test]
fn demands_become_whole_instances() {
    for (demand, wanted) in [(0.0, 0), (0.1, 1), (3.0, 3), (3.000_000_000_1, 3), (3.000_001, 4)] {
        assert_eq!(instances_for(demand), Some(wanted), "{demand}");
    }
    for none in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -1.0] {
        assert_eq!(instances_for(none), None, "{none}");
        let refused = Outcome::for_demand(none).unwrap_err();
        let line = line!() - 1;
        assert!(
            refused.contains(&format!("{none}")) && refused.ends_with(&format!("tick.rs:{line})")),
            "{refused}"
        );
    }
}

thread_local! {
    static WINDOWS: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

struct LooksBack;

impl Policy for LooksBack {
    type Params = serde_json::Value;
    type State = ();
    fn describe() -> Describe {
        Describe::new("looks-back", "1.0.0", "Looks back.")
            .metric("a")
            .metric_window("b", 3_000)
            .metric_window("/metric", 5_000)
    }
    fn decide(tick: &Tick<'_>, _: &serde_json::Value, _: &mut ()) -> Result<Outcome, String> {
        WINDOWS.set(["a", "b", "c", "d"].map(|name| tick.window(name).at_ms).to_vec());
        Ok(Outcome::keep(tick))
    }
}

#[test]
fn a_window_is_as_long_as_was_asked_for() {
    let past: Vec<(u64, f64)> = (1..=9).map(|s| (s * 1_000, 0.5)).collect();
    let mut tick = TestTick::new().at(10_000, 1);
    for name in ["a", "b", "c", "d"] {
        tick = tick.set_metric(name, MetricValue::Fresh(0.5)).window(&past);
    }
    let windows = |params: &str| {
        TestPolicy::<LooksBack>::new(params).expect("it takes any").tick(&tick).expect("it has an outcome");
        WINDOWS.take()
    };
    let seconds = |from: u64| (from..=9).map(|s| s * 1_000).collect::<Vec<_>>();
    assert_eq!(windows(r#"{"metric": "c"}"#), [vec![], seconds(7), seconds(5), vec![]]);
    assert_eq!(windows(r#"{"metric": ["b", "d"]}"#), [vec![], seconds(5), vec![], seconds(5)], "the longest");
}
