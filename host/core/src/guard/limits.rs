//! The set's `min` and `max`. Not a guard: they bind whatever came before, so they may also widen.

use crate::decision::Reason;
use crate::observation::Observation;

/// The capacity within the limits, and which of them bound it; none when `capacity` is within them.
pub(super) fn bind(observation: &Observation, capacity: u32) -> Option<(u32, Reason)> {
    let (min, max) = (observation.min, observation.max);
    let granted = capacity.max(min).min(max);
    let (name, limit) = match granted.cmp(&capacity) {
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => ("min", min),
        std::cmp::Ordering::Less => ("max", max),
    };
    let reason = Reason {
        code: format!("capped-at-{name}").into(),
        text: format!("the set's {name} is {limit}").into(),
        evidence: vec![(name.into(), limit.to_string().into())],
    };
    Some((granted, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::observation;

    #[test]
    fn they_bind_at_both_ends_and_max_wins() {
        let bound = |min, max, capacity| {
            bind(&observation(min, max, 0), capacity).map(|(granted, reason)| (granted, reason.code))
        };
        assert_eq!(bound(2, 5, 3), None);
        assert_eq!(bound(2, 5, 1), Some((2, "capped-at-min".into())));
        assert_eq!(bound(2, 5, 9), Some((5, "capped-at-max".into())));
        assert_eq!(bound(5, 2, 3), Some((2, "capped-at-max".into())));
    }
}
