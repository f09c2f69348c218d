//! When a load balancer is at its limit of connections.

use serde::{Deserialize, Serialize};

/// Share of the limit, percent, down to which connections must go before a load balancer is no longer called full: one
/// that is at its limit loses and gets connections all the time.
const ROOM_FROM_PERCENT: u64 = 90;

/// A load balancer that has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalancerFull {
    /// How many it may have.
    pub max: u32,
    /// How many it has.
    pub open: u32,
    /// How many it has refused since the tick before.
    pub refused: u64,
}

impl BalancerFull {
    /// Whether `open` connections of at most `max` are too many, `refused` of them since the tick before; none if not.
    #[must_use]
    pub fn seen(max: u32, open: u32, refused: u64, was_full: bool) -> Option<Self> {
        let stays = was_full && u64::from(open) * 100 > u64::from(max) * ROOM_FROM_PERCENT;
        (refused > 0 || open >= max || stays).then_some(Self { max, open, refused })
    }

    /// For people.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "the load balancer is full: {} connections are open of at most {}, and {} were refused since the last tick \
             (load_balancer.max_connections)",
            self.open, self.max, self.refused
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_from_the_limit_on_until_a_tenth_is_free() {
        let full = |open, refused, was_full| BalancerFull::seen(100, open, refused, was_full).is_some();
        assert!(!full(99, 0, false));
        assert!(full(100, 0, false));
        assert!(full(5, 1, false), "clients were refused between two ticks");
        assert!(full(91, 0, true));
        assert!(!full(90, 0, true));
        assert!(!full(91, 0, false));
        assert!(BalancerFull::seen(1, 0, 0, true).is_none());
        assert!(BalancerFull::seen(u32::MAX, u32::MAX, u64::MAX, true).is_some());
    }
}
