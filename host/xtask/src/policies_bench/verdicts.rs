//! What is promised of the sandbox's cost, beside what was measured. Pure.

use serde_json::{Value, json};

use crate::figure::{Figure, Promise, rounded};

const METHOD: &str = "target-tracking on 8 observations of 1,000 instances in turn, by native code, sandbox, plugin and \
                      webhook in turn, this thread on one CPU; medians; peers on the same and on another CPU, the faster counts";

const WHOLE: Promise = Promise {
    name: "sandbox",
    target: "a whole call at 1,000 instances, fresh instance and folding included: median ≤ 60 µs",
    unit: "µs",
    at_most: 60.0,
    method: METHOD,
};

const COMPUTE: Promise = Promise {
    name: "sandbox-compute",
    target: "the policy inside the sandbox, crossing included: ≤ 2 × native",
    unit: "× native",
    at_most: 2.0,
    method: METHOD,
};

const GRPC: Promise = Promise {
    name: "sandbox-to-grpc",
    target: "a whole call ≥ 10 × cheaper than a plugin over gRPC",
    unit: "of the time of gRPC",
    at_most: 0.1,
    method: METHOD,
};

const WEBHOOK: Promise = Promise {
    name: "sandbox-to-webhook",
    target: "a whole call ≥ 20 × cheaper than a webhook",
    unit: "of the time of the webhook",
    at_most: 0.05,
    method: METHOD,
};

/// Medians at 1,000 instances, µs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medians {
    /// Whole calls.
    pub(crate) native: f64,
    pub(crate) sandbox: f64,
    pub(crate) grpc: f64,
    pub(crate) webhook: f64,
    /// The policy alone.
    pub(crate) native_policy: f64,
    pub(crate) sandbox_policy: f64,
}

/// The figures, in the order of the promises.
pub(crate) fn verdicts(medians: &Medians) -> Vec<Figure> {
    let Medians { native, sandbox, grpc, webhook, native_policy, sandbox_policy } = *medians;
    let against = |name: &str, other: f64| -> Value {
        json!({ "sandbox_us": sandbox, name: other, "times_cheaper": rounded(other / sandbox) })
    };
    vec![
        WHOLE.measured(sandbox, true, json!({ "native_us": native })),
        COMPUTE.measured(
            sandbox_policy / native_policy,
            true,
            json!({ "sandbox_us": sandbox_policy, "native_us": native_policy }),
        ),
        GRPC.measured(sandbox / grpc, true, against("grpc_us", grpc)),
        WEBHOOK.measured(sandbox / webhook, true, against("webhook_us", webhook)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Medians = Medians {
        native: 4.0,
        sandbox: 30.0,
        grpc: 300.0,
        webhook: 600.0,
        native_policy: 2.0,
        sandbox_policy: 4.0,
    };

    fn met(medians: &Medians) -> Vec<bool> {
        verdicts(medians).iter().map(|figure| figure.met).collect()
    }

    #[test]
    fn all_are_met_at_their_values() {
        assert_eq!(met(&GOOD), [true; 4]);
    }

    #[test]
    fn each_is_missed_by_its_own_number() {
        assert!(!met(&Medians { sandbox: 60.1, grpc: 1e3, webhook: 1e4, ..GOOD })[0]);
        assert_eq!(met(&Medians { sandbox_policy: 4.1, ..GOOD }), [true, false, true, true]);
        assert_eq!(met(&Medians { grpc: 299.0, ..GOOD }), [true, true, false, true]);
        assert_eq!(met(&Medians { webhook: 599.0, ..GOOD }), [true, true, true, false]);
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let none = Medians { grpc: f64::NAN, sandbox: f64::NAN, ..GOOD };
        assert_eq!(met(&none), [false, true, false, false]);
    }

    #[test]
    fn the_factor_is_told() {
        let figures = verdicts(&GOOD);
        assert_eq!(figures[2].detail["times_cheaper"], 10.0);
        assert_eq!(figures[3].detail["times_cheaper"], 20.0);
    }
}
