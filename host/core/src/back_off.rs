//! Why launches of a set back off.

use serde::{Deserialize, Serialize};

/// How long launches wait after failures in a row: 1 s, doubling up to 1 min.
#[must_use]
pub fn launch_backoff_ms(failures_in_a_row: u32) -> u64 {
    match failures_in_a_row {
        0 => 0,
        n => 1_000u64.saturating_mul(1 << (n - 1).min(6)).min(60_000),
    }
}

/// Launches that fail, or a crash loop. Until one instance stays, others are launched one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// Launches that failed since the last instance came into service.
    pub failed: u32,
    /// How many times in a row a new instance died soon after it was launched, though it had been in service.
    pub died: u32,
    /// What the last of them came to.
    pub why: String,
}

/// Longest reason that is kept, bytes.
const WHY_MAX_BYTES: usize = 500;

impl BackOff {
    /// The back-off after these, if any: what died once is replaced at once.
    #[must_use]
    pub fn after(failed: u32, died: u32, why: &str) -> Option<Self> {
        let why = || why[..why.floor_char_boundary(WHY_MAX_BYTES)].to_owned();
        (failed > 0 || died > 1).then(|| Self { failed, died, why: why() })
    }

    /// How long launches wait after the last of them.
    #[must_use]
    pub fn wait_ms(&self) -> u64 {
        launch_backoff_ms(self.failed.max(self.died.saturating_sub(1)))
    }

    /// For people.
    #[must_use]
    pub fn told(&self) -> String {
        let times = |count| if count == 1 { "once".to_owned() } else { format!("{count} times in a row") };
        let what = match (self.failed, self.died) {
            (failed, 0 | 1) => format!("launches failed {}", times(failed)),
            (0, died) => format!("new instances died soon after their launch {}", times(died)),
            (failed, died) => format!(
                "launches failed {}, and new instances died soon after their launch {}",
                times(failed),
                times(died)
            ),
        };
        format!("launches back off: {what}; the last one: {}", self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_up_to_a_minute() {
        assert_eq!(
            [0, 1, 2, 3, 7, 40, u32::MAX].map(launch_backoff_ms),
            [0, 1_000, 2_000, 4_000, 60_000, 60_000, 60_000]
        );
    }

    #[test]
    fn a_single_death_is_replaced_at_once_and_a_failed_launch_is_not() {
        assert_eq!(BackOff::after(0, 0, "x"), None);
        assert_eq!(BackOff::after(0, 1, "x"), None);
        let waits =
            |failed, died| BackOff::after(failed, died, "x").map(|back_off| back_off.wait_ms()).expect("one");
        assert_eq!(
            [waits(1, 0), waits(1, 1), waits(0, 2), waits(0, 3), waits(3, 2)],
            [1_000, 1_000, 1_000, 2_000, 4_000]
        );
    }

    #[test]
    fn it_says_what_happens_and_why() {
        let told = |failed, died| {
            BackOff::after(failed, died, "no nft").map(|back_off| back_off.told()).expect("one")
        };
        assert_eq!(told(1, 1), "launches back off: launches failed once; the last one: no nft");
        assert_eq!(
            told(0, 3),
            "launches back off: new instances died soon after their launch 3 times in a row; the last one: no nft"
        );
        assert!(told(3, 2).contains("launches failed 3 times in a row, and new instances died"));
        let long = BackOff::after(1, 0, &"ü".repeat(1_000)).expect("one");
        assert_eq!(long.why.len(), WHY_MAX_BYTES);
    }
}
