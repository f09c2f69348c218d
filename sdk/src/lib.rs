//! Write Regatta scaling policies in Rust.
//!
//! A policy is a struct for its parameters, one [`Policy`] implementation with
//! one `decide`, and one line that exports it:
//!
//! ```
//! use regatta_sdk::{Describe, MetricValue, Outcome, Policy, Reason, Tick};
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! /// One more instance whenever the set is busy.
//! struct Busy;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Params {
//!     /// Utilization from which the set counts as busy, 0 to 1.
//!     above: f64,
//! }
//!
//! impl Policy for Busy {
//!     type Params = Params;
//!     type State = ();
//!
//!     fn describe() -> Describe {
//!         Describe::new("busy", "1.0.0", "One more instance whenever the set is busy.").metric("utilization")
//!     }
//!
//!     fn decide(tick: &Tick<'_>, params: &Params, _state: &mut ()) -> Result<Outcome, String> {
//!         // A metric is fresh, stale or missing; "no data" can never read as 0.
//!         Ok(match tick.mean("utilization") {
//!             MetricValue::Fresh(mean) if mean > params.above => Outcome::capacity(tick.desired + 1)
//!                 .because(Reason::new("busy", "the set is busy").number("mean", mean)),
//!             MetricValue::Fresh(_) => Outcome::keep(tick),
//!             MetricValue::Stale(_) | MetricValue::Missing => {
//!                 Outcome::keep(tick).because(Reason::new("no-data", "utilization is not known"))
//!             }
//!         })
//!     }
//! }
//!
//! regatta_sdk::export!(Busy);
//!
//! // The same policy runs natively in a unit test.
//! use regatta_sdk::testing::{TestPolicy, TestTick};
//! use regatta_sdk::InstanceState;
//! let mut policy = TestPolicy::<Busy>::new(r#"{"above": 0.8}"#).unwrap();
//! let tick = TestTick::new().desired(2).instances(InstanceState::InService, 2).metric("utilization", &[0.9, 0.95]);
//! assert_eq!(policy.tick(&tick).unwrap().capacity, 3);
//! ```
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown`; the file that comes out
//! is what a scale set's `policy.module` names. A policy has no clock, no files
//! and no randomness: it sees the observation of the tick and nothing else, so
//! that every decision can be replayed bit for bit.

#![deny(missing_docs)]

#[doc(hidden)]
pub mod bindings;
mod columns;
#[cfg(target_arch = "wasm32")]
mod guest;
pub mod log;
mod macros;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
mod outcome;
mod policy;
mod reason;
mod run;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod tick;
mod types;
mod value;
mod window;

pub use columns::{Instance, Reading};
pub use outcome::{Outcome, instances_for};
pub use policy::{Describe, NoParams, Policy, Problems, old_state, schema_of};
pub use reason::short;
pub use tick::{Tick, TickData};
pub use types::{
    Aggregate, Counts, Freshness, InstanceState, InstanceTable, LastDecision, MetricColumn, MetricRequest,
    MetricValue, MetricWindow, Problem, Reason, StaleValue,
};
pub use window::Sample;

/// What nearly every policy needs.
///
/// ```
/// use regatta_sdk::prelude::*;
///
/// fn decide(tick: &Tick<'_>) -> Result<Outcome, String> {
///     Ok(Outcome::keep(tick).because(Reason::new("content", "all is well")))
/// }
/// ```
pub mod prelude {
    pub use crate::{
        Describe, InstanceState, MetricValue, NoParams, Outcome, Policy, Problems, Reason, Tick,
        instances_for, short,
    };
}

/// Version of the contract (`sdk/wit/v…`) that this crate speaks.
///
/// ```
/// assert_eq!(regatta_sdk::CONTRACT_VERSION, "0.1.1");
/// ```
pub const CONTRACT_VERSION: &str = "0.1.1";

/// The host refuses an outcome that asks for more instances than this.
///
/// ```
/// use regatta_sdk::{MAX_CAPACITY, Outcome};
/// assert!(Outcome::capacity(u32::MAX).capacity <= MAX_CAPACITY);
/// ```
pub const MAX_CAPACITY: u32 = 1_000_000;

/// Exports a [`Policy`] from a `cdylib`. On targets other than wasm32 it does nothing.
///
/// It also writes the contract's version into the custom section
/// `regatta-contract`, which the host reads before it compiles the module.
///
/// ```
/// # use regatta_sdk::prelude::*;
/// # struct Content;
/// # impl Policy for Content {
/// #     type Params = NoParams;
/// #     type State = ();
/// #     fn describe() -> Describe {
/// #         Describe::new("content", "1.0.0", "Is content.")
/// #     }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> {
/// #         Ok(Outcome::keep(tick))
/// #     }
/// # }
/// regatta_sdk::export!(Content);
/// ```
#[macro_export]
#[rustfmt::skip]
macro_rules! export {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            #[used]
            #[unsafe(link_section = "regatta-contract")]
            static CONTRACT: [u8; $crate::CONTRACT_VERSION.len()] = $crate::__private::contract();

            struct Component;
            impl $crate::__private::Guest for Component {
                fn describe() -> $crate::__private::Manifest {
                    $crate::__private::describe::<$policy>()
                }
                fn validate(
                    params: $crate::__private::String,
                ) -> $crate::__private::Result<(), $crate::__private::Vec<$crate::Problem>> {
                    $crate::__private::validate::<$policy>(&params)
                }
                fn decide(
                    tick: $crate::TickData,
                    params: $crate::__private::String,
                    state: $crate::__private::Vec<u8>,
                ) -> $crate::__private::Result<$crate::__private::WitOutcome, $crate::__private::String>
                {
                    $crate::__private::decide::<$policy>(tick, &params, &state)
                }
            }
            impl $crate::__private::MigrationGuest for Component {
                fn migrate(
                    from_version: u32,
                    state: $crate::__private::Vec<u8>,
                ) -> $crate::__private::Result<$crate::__private::Vec<u8>, $crate::__private::String> {
                    $crate::__private::migrate::<$policy>(from_version, &state)
                }
            }
            $crate::bindings::__export_world!(Component with_types_in $crate::bindings);
        };
    };
}

/// What [`export!`] needs. Not for use by hand.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::guest::{contract, decide, describe, migrate, validate};
    pub use std::{result::Result, string::String, vec::Vec};

    pub use crate::bindings::exports::regatta::policy::migration::Guest as MigrationGuest;
    pub use crate::bindings::exports::regatta::policy::scaling::Guest;
    pub use crate::bindings::regatta::policy::types::{Manifest, Outcome as WitOutcome};
}

/// The README's policy compiles as it stands there.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So does that of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/sdk.md")]
struct Guide;
