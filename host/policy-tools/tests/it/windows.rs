//! The windows of a scenario are those of a set.

use regatta_core::metrics::downsample::{MAX_WINDOW_MS, append};
use regatta_core::observation::WindowSample;
use regatta_sdk::testing::{Scenario, Signal, Subject, TestTick};
use regatta_sdk::{MetricValue, MetricWindow, Outcome};

/// Keeps what a set would have kept of the values that it is shown.
struct Keeps {
    kept: Vec<WindowSample>,
    tick_ms: u64,
    longest: usize,
}

impl Subject for Keeps {
    fn reset(&mut self) {}

    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        let parts = tick.parts();
        let MetricWindow { at_ms, value } = &parts.metrics[0].window;
        let seen: Vec<_> =
            at_ms.iter().zip(value).map(|(&at_ms, &value)| WindowSample { at_ms, value }).collect();
        assert_eq!(seen, self.kept, "at tick {}", parts.number);
        self.longest = self.longest.max(seen.len());
        if let MetricValue::Fresh(value) = parts.metrics[0].values[0] {
            let new = WindowSample { at_ms: parts.now_ms, value };
            append(&mut self.kept, new, self.tick_ms, MAX_WINDOW_MS);
        }
        Ok(Outcome::capacity(1))
    }
}

#[test]
fn a_scenario_has_the_windows_of_a_set() {
    for (seed, tick_ms) in [(1, 20), (2, 5_000), (3, 3_600_000)] {
        let mut keeps = Keeps { kept: Vec::new(), tick_ms, longest: 0 };
        let scenario = Scenario::new().load(50.0).ticks(1_200).tick_ms(tick_ms).noise(0.9, seed);
        scenario.metric("load", Signal::Total).gap(150..163).stale(400..401).gap(700..1_000).run(&mut keeps);
        assert!(keeps.longest > 120, "older ones were merged, not dropped: {}", keeps.longest);
    }
}
