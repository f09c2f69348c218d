//! Statistics of windows against their definitions, written plainly.

use proptest::prelude::*;
use regatta_sdk::MetricWindow;

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -1e6..1e6_f64, 1 => Just(f64::NAN), 1 => Just(f64::INFINITY)]
}

prop_compose! {
    /// Times go up, now and then not at all.
    fn window()(samples in proptest::collection::vec((0..20_000_u64, value()), 0..40)) -> MetricWindow {
        let mut now_ms = 1_700_000_000_000;
        let mut window = MetricWindow { at_ms: Vec::new(), value: Vec::new() };
        for (later_ms, value) in samples {
            now_ms += later_ms.saturating_sub(2_000);
            window.at_ms.push(now_ms);
            window.value.push(value);
        }
        window
    }
}

fn finite(window: &MetricWindow) -> Vec<(u64, f64)> {
    let all = window.at_ms.iter().copied().zip(window.value.iter().copied());
    all.filter(|(_, value)| value.is_finite()).collect()
}

fn close(one: Option<f64>, other: Option<f64>, scale: f64) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= 1e-9 * scale.max(1.0),
        (None, None) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn order_statistics(window in window(), share in 0.0..=1.0_f64) {
        let samples = finite(&window);
        let mut sorted: Vec<f64> = samples.iter().map(|&(_, value)| value).collect();
        sorted.sort_by(f64::total_cmp);
        prop_assert_eq!(window.len(), sorted.len());
        prop_assert_eq!(window.is_empty(), sorted.is_empty());
        prop_assert_eq!(window.min(), sorted.first().copied());
        prop_assert_eq!(window.max(), sorted.last().copied());
        prop_assert_eq!(window.first().map(|s| (s.at_ms, s.value)), samples.first().copied());
        prop_assert_eq!(window.last().map(|s| (s.at_ms, s.value)), samples.last().copied());
        // The least value that at least that share of the samples does not exceed.
        let enough = |value: &&f64| {
            let covered = sorted.iter().filter(|other| other <= value).count();
            covered as f64 >= share * sorted.len() as f64
        };
        prop_assert_eq!(window.percentile(share), sorted.iter().find(enough).copied());
        for share in [-0.1, 1.1, f64::NAN] {
            prop_assert_eq!(window.percentile(share), None);
        }
    }

    #[test]
    fn means_and_slopes(window in window()) {
        let samples = finite(&window);
        let count = samples.len() as f64;
        let scale = samples.iter().fold(0.0, |most: f64, (_, value)| most.max(value.abs()));
        let sum: f64 = samples.iter().map(|(_, value)| value).sum();
        prop_assert!(close(window.mean(), (count > 0.0).then(|| sum / count), scale));

        let seconds = |at_ms: u64| (at_ms - 1_700_000_000_000) as f64 / 1000.0;
        let ends = samples.first().zip(samples.last()).filter(|(first, last)| last.0 > first.0);
        let rate = ends.map(|(first, last)| (last.1 - first.1) / (seconds(last.0) - seconds(first.0)));
        prop_assert!(close(window.rate_per_s(), rate, scale));

        // The normal equations, as they stand in every book.
        let mean_time = samples.iter().map(|(at, _)| seconds(*at)).sum::<f64>() / count;
        let square: f64 = samples.iter().map(|(at, _)| (seconds(*at) - mean_time).powi(2)).sum();
        let together: f64 = samples.iter().map(|(at, value)| (seconds(*at) - mean_time) * value).sum();
        let slope = (square > 1e-12).then(|| together / square);
        match (window.trend_per_s(), slope) {
            (Some(one), Some(other)) => prop_assert!((one - other).abs() <= 1e-6 * scale.max(1.0), "{one} {other}"),
            (None, None) => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn later_samples_only(window in window(), at in 0..40_usize) {
        let Some(&from_ms) = window.at_ms.get(at) else { return Ok(()) };
        let kept: Vec<(u64, f64)> = finite(&window).into_iter().filter(|(at_ms, _)| *at_ms >= from_ms).collect();
        prop_assert_eq!(finite(&window.since_ms(from_ms)), kept);
    }

    /// A straight line is found, wherever it lies.
    #[test]
    fn a_line_is_its_own_trend(slope in -100.0..100.0_f64, offset in -1e3..1e3_f64, count in 2..50_u32) {
        let times: Vec<u64> = (0..count).map(|at| 1_700_000_000_000 + u64::from(at) * 5_000).collect();
        let value = (0..count).map(|at| offset + slope * f64::from(at) * 5.0).collect();
        let window = MetricWindow { at_ms: times, value };
        prop_assert!((window.trend_per_s().unwrap() - slope).abs() < 1e-8);
        prop_assert!((window.rate_per_s().unwrap() - slope).abs() < 1e-8);
    }
}

#[test]
fn sums_that_overflow_are_no_number() {
    let window = MetricWindow { at_ms: vec![1_000, 2_000], value: vec![f64::MAX, f64::MAX] };
    assert_eq!(window.mean(), None);
    let window = MetricWindow { at_ms: vec![1_000, 2_000], value: vec![-f64::MAX, f64::MAX] };
    assert_eq!((window.rate_per_s(), window.trend_per_s()), (None, None));
    let window = MetricWindow { at_ms: vec![2_000, 1_000], value: vec![1.0, 2.0] };
    assert_eq!(window.rate_per_s(), None, "a clock that went back");
}
