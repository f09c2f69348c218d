//! How long the metric windows of a set take per tick, and how much memory they are:
//! `cargo run --release -p regatta-core --example measure_windows`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures, and prints what it measured"
)]

use std::hint::black_box;
use std::time::Instant;

use regatta_core::instance_state::InstanceState;
use regatta_core::metrics::{MetricSpec, SetWindows};
use regatta_core::observation::{InstanceRow, InstanceTable, WindowSample};

const INSTANCES: u32 = 1_000;
const METRICS: usize = 6;
const ROUNDS: u32 = 200;

fn main() {
    let mut table = InstanceTable::default();
    for id in 0..INSTANCES {
        let state = InstanceState::InService;
        table.push(InstanceRow {
            id,
            state,
            state_since_ms: 0,
            created_ms: 0,
            generation: 1,
            protected: false,
        });
    }
    println!("{INSTANCES} instances, {METRICS} metrics");
    for (tick_ms, reach, reach_ms) in [
        (5_000, "default", 0),
        (5_000, "10 minutes", 600_000),
        (5_000, "1 hour", 3_600_000),
        (5_000, "1 day", 86_400_000),
        (5_000, "7 days", 7 * 86_400_000),
        (5_000, "31 days", 31 * 86_400_000),
        (20, "10 minutes", 600_000),
    ] {
        let names: Vec<String> = (0..METRICS).map(|n| format!("metric_{n}")).collect();
        let spec = |name: &String| MetricSpec::per_instance(name, tick_ms).reaching_back(reach_ms);
        let mut windows = SetWindows::new(names.iter().map(spec));
        // The whole reach and more, measured by one instance.
        let alone =
            InstanceTable { id: vec![0], state: vec![InstanceState::InService], ..InstanceTable::default() };
        let ticks = reach_ms / tick_ms + reach_ms / tick_ms / 50 + 100;
        let mut now_ms = 0;
        for tick in 0..ticks {
            now_ms += tick_ms;
            for name in &names {
                windows.push_instance(name, 0, now_ms, (tick % 1_000) as f64 / 1_000.0);
            }
            windows.end_tick(now_ms, &alone);
        }
        let (mut build_ns, mut end_ns) = (u128::MAX, u128::MAX);
        for _ in 0..ROUNDS {
            now_ms += tick_ms;
            for (id, name) in (0..INSTANCES).flat_map(|id| names.iter().map(move |name| (id, name))) {
                windows.push_instance(name, id, now_ms, 0.5);
            }
            let start = Instant::now();
            let metrics = black_box(windows.build_metrics(now_ms, &table));
            build_ns = build_ns.min(start.elapsed().as_nanos());
            drop(metrics);
            let start = Instant::now();
            windows.end_tick(now_ms, &table);
            end_ns = end_ns.min(start.elapsed().as_nanos());
        }
        let samples: usize =
            windows.build_metrics(now_ms, &table).iter().map(|metric| metric.window.len()).sum();
        println!(
            "tick {tick_ms} ms, windows {reach}: {} samples each, {:.1} KiB per set; build {:.1} µs, end of tick {:.1} µs",
            samples / METRICS,
            (samples * size_of::<WindowSample>()) as f64 / 1024.0,
            build_ns as f64 / 1e3,
            end_ns as f64 / 1e3,
        );
    }
}
