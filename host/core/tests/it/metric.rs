use proptest::prelude::*;
use regatta_core::metric::{Aggregate, MetricValue, quantize};

#[test]
fn no_data_never_reads_as_zero() {
    let none = Aggregate::of([]);
    assert_eq!(none.mean, MetricValue::Missing);
    assert_eq!(none.sum, MetricValue::Missing);
    let missing = Aggregate::of([MetricValue::Missing; 3]);
    assert_eq!((missing.mean, missing.missing), (MetricValue::Missing, 3));
}

#[test]
fn stale_values_stand_in_only_when_nothing_is_fresh() {
    let stale = MetricValue::Stale { value: 9.0, age_ms: 700 };
    let mixed = Aggregate::of([MetricValue::Fresh(1.0), stale, MetricValue::Fresh(3.0)]);
    assert_eq!(mixed.mean, MetricValue::Fresh(2.0));
    assert_eq!((mixed.fresh, mixed.stale), (2, 1));
    let old = Aggregate::of([stale, MetricValue::Stale { value: 1.0, age_ms: 900 }]);
    assert_eq!(old.mean, MetricValue::Stale { value: 5.0, age_ms: 900 });
}

fn any_value() -> impl Strategy<Value = MetricValue> {
    prop_oneof![
        (-1e12..1e12).prop_map(MetricValue::Fresh),
        ((-1e12..1e12), any::<u64>()).prop_map(|(value, age_ms)| MetricValue::Stale { value, age_ms }),
        Just(MetricValue::Missing),
    ]
}

proptest! {
    #[test]
    fn values_survive_json(value in any_value()) {
        let text = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(serde_json::from_str::<MetricValue>(&text).unwrap(), value);
    }

    #[test]
    fn quantizing_twice_changes_nothing_and_stays_close(value in -1e15f64..1e15) {
        let once = quantize(value);
        prop_assert_eq!(quantize(once).to_bits(), once.to_bits());
        prop_assert!((once - value).abs() <= value.abs() * 5e-4);
    }

    /// Also of ties and of those next to a tie, which are rounded by other means.
    #[test]
    fn quantizing_rounds_as_decimal_text_does(
        value in prop_oneof![
            any::<f64>(),
            (1_000_u32..10_000, -30_i32..30).prop_map(|(digits, shift)| f64::from(digits) * 10_f64.powi(shift)),
            (10_000_u32..100_000, -30_i32..30, -2_i64..=2).prop_map(|(digits, shift, ulps)| {
                let tie = f64::from(digits / 10 * 10 + 5) * 10_f64.powi(shift);
                f64::from_bits(tie.to_bits().saturating_add_signed(ulps))
            }),
        ]
        .prop_filter("a number", |value| value.is_finite()),
    ) {
        let text: f64 = format!("{value:.3e}").parse().unwrap();
        prop_assert_eq!(quantize(value).to_bits(), text.to_bits());
    }

    #[test]
    fn every_value_is_counted_once(values in prop::collection::vec(any_value(), 0..50)) {
        let aggregate = Aggregate::of(values.iter().copied());
        prop_assert_eq!((aggregate.fresh + aggregate.stale + aggregate.missing) as usize, values.len());
    }
}
