//! `on_failure`: what stands in for a decision when no policy returned one. Never a scale-in.

use crate::decision::Reason;
use crate::manifest::OnFailure;

/// The capacity that stands in, and why.
pub(super) fn stand_in(setting: OnFailure, desired: u32) -> (u32, Reason) {
    let (capacity, text) = match setting {
        OnFailure::Hold => (desired, "no policy returned a decision; keeping current capacity".to_owned()),
        OnFailure::Static { capacity } => (
            capacity.max(desired),
            format!("no policy returned a decision; keeping at least the static capacity {capacity}"),
        ),
    };
    (capacity, Reason { code: "policy-failed".into(), text: text.into(), evidence: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_scales_in() {
        assert_eq!(stand_in(OnFailure::Hold, 7).0, 7);
        assert_eq!(stand_in(OnFailure::Static { capacity: 4 }, 7).0, 7);
        assert_eq!(stand_in(OnFailure::Static { capacity: 4 }, 2).0, 4);
    }
}
