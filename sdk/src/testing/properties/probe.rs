//! What a full instance reads, found out by trying.

use super::Options;
use super::single::{Situation, steady};
use crate::testing::Subject;

const SCALES: [f64; 6] = [1.0, 100.0, 1_000.0, 10_000.0, 1_000_000.0, 1_000_000_000.0];
/// Ticks that a policy may hesitate before it scales out.
const TICKS: u64 = 40;

/// The value of a full instance, and whether the policy scales out at four times as much.
pub(super) fn full<S: Subject + ?Sized>(subject: &mut S, options: &Options) -> (f64, bool) {
    let scales = options.full.map_or(SCALES.to_vec(), |full| vec![full]);
    let found = scales.iter().copied().find(|&scale| reacts(subject, options, scale));
    (found.or(options.full).unwrap_or(1.0), found.is_some())
}

fn reacts<S: Subject + ?Sized>(subject: &mut S, options: &Options, scale: f64) -> bool {
    let situation = Situation { in_service: 10, warming: 0, max: 1_000 };
    subject.reset();
    let scales_out = (1..=TICKS).any(|number| {
        let tick = steady(subject.metrics(), options, situation, 40.0 * scale, number);
        subject.decide(&tick).is_ok_and(|outcome| outcome.capacity > 10)
    });
    subject.reset();
    scales_out
}
