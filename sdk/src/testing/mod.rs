//! Native tests of policies: ticks made by hand, a policy that runs over them as it would in the
//! host (parameters and state as text and all), scenarios of a whole set, and properties that
//! every good policy has.
//!
//! ```
//! # use regatta_sdk::prelude::*;
//! # struct Proportional;
//! # impl Policy for Proportional {
//! #     type Params = NoParams;
//! #     type State = ();
//! #     fn describe() -> Describe {
//! #         Describe::new("proportional", "1.0.0", "Half full.").metric("utilization")
//! #     }
//! #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> {
//! #         Ok(match tick.sum("utilization").known("utilization") {
//! #             Ok(sum) => Outcome::capacity(instances_for(sum / 0.5).unwrap_or(tick.desired).max(1)),
//! #             Err(why) => Outcome::keep(tick).because(why),
//! #         })
//! #     }
//! # }
//! use regatta_sdk::testing::{Load, Scenario, TestPolicy, TestTick, properties};
//!
//! let mut policy = TestPolicy::<Proportional>::new("{}").unwrap();
//!
//! // One tick.
//! let tick = TestTick::new().instances(InstanceState::InService, 2).metric("utilization", &[0.9, 0.8]);
//! assert_eq!(policy.tick(&tick).unwrap().capacity, 4);
//!
//! // A set in the course of time: calm, a rush, calm again.
//! let run = Scenario::new().load(Load::new().hold(2.0, 10).ramp(8.0, 20).hold(8.0, 20).hold(2.0, 20)).run(&mut policy);
//! println!("{run}"); // a chart, and why it changed when
//! assert_eq!((run.most(), run.last_size()), (16, 4));
//!
//! // What every good policy has.
//! properties::assert_all(&mut policy, &properties::Options::new());
//! ```

use std::cell::RefCell;

use crate::bindings::regatta::policy::types::{Manifest, Outcome as WitOutcome};
use crate::log::Level;
use crate::{Policy, Problem, Tick, run, schema_of};

mod chart;
mod downsample;
mod fold;
mod history;
mod load;
mod model;
mod parts;
pub mod properties;
mod random;
mod scenario;
mod seen;
mod subject;
mod tick;

pub use history::{Row, Run};
pub use load::Load;
pub use parts::{Scope, TestMetric, TickParts};
pub use scenario::{Scenario, Signal};
pub use subject::{Subject, TestPolicy};
pub use tick::TestTick;

use seen::Seen;

thread_local! {
    static LOG: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Lines that are kept until someone takes them.
const LOG_LINES: usize = 10_000;

pub(crate) fn capture(level: Level, message: &str) {
    LOG.with_borrow_mut(|log| {
        if log.len() < LOG_LINES {
            log.push((level, message.to_owned()));
        }
    });
}

/// Takes what the policies of this thread have logged so far (the first 10,000 lines of it).
///
/// ```
/// use regatta_sdk::log::Level;
/// regatta_sdk::info!("a new day");
/// assert_eq!(regatta_sdk::testing::take_log(), [(Level::Info, "a new day".to_owned())]);
/// assert!(regatta_sdk::testing::take_log().is_empty());
/// ```
#[must_use]
pub fn take_log() -> Vec<(Level, String)> {
    LOG.take()
}

/// What the export `describe` answers.
///
/// ```
/// # use regatta_sdk::prelude::*;
/// # struct Busy;
/// # impl Policy for Busy {
/// #     type Params = NoParams;
/// #     type State = ();
/// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "").metric("load") }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> { Ok(Outcome::keep(tick)) }
/// # }
/// assert_eq!(regatta_sdk::testing::describe::<Busy>().metrics[0].name, "load");
/// ```
#[must_use]
pub fn describe<P: Policy>() -> Manifest {
    run::describe::<P>()
}

/// What the export `validate` answers.
///
/// # Errors
/// All problems of the parameters.
///
/// ```
/// # use regatta_sdk::prelude::*;
/// # struct Busy;
/// # impl Policy for Busy {
/// #     type Params = NoParams;
/// #     type State = ();
/// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "") }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> { Ok(Outcome::keep(tick)) }
/// # }
/// assert!(regatta_sdk::testing::validate::<Busy>("{}").is_ok());
/// assert!(regatta_sdk::testing::validate::<Busy>(r#"{"tarqet": 1}"#).is_err());
/// ```
pub fn validate<P: Policy>(params: &str) -> Result<(), Vec<Problem>> {
    run::validate::<P>(params)
}

/// What the export `decide` answers, new state included. [`TestPolicy`] is easier.
///
/// # Errors
/// What the policy says when it has no outcome.
///
/// ```
/// # use regatta_sdk::{testing::TestTick, prelude::*};
/// # struct Busy;
/// # impl Policy for Busy {
/// #     type Params = NoParams;
/// #     type State = u32;
/// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "") }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, ticks: &mut u32) -> Result<Outcome, String> {
/// #         *ticks += 1;
/// #         Ok(Outcome::keep(tick))
/// #     }
/// # }
/// // A policy that counts its ticks.
/// let outcome = regatta_sdk::testing::decide::<Busy>(&TestTick::new(), "{}", b"7").unwrap();
/// assert_eq!(outcome.state, b"8");
/// ```
pub fn decide<P: Policy>(tick: &TestTick, params: &str, state: &[u8]) -> Result<WitOutcome, String> {
    let value = serde_json::from_str(params).unwrap_or(serde_json::Value::Null);
    let seen = Seen::new(tick, &P::describe().metrics, &value);
    run::decide::<P>(&Tick::new(seen.data(), &seen), params, state)
}

/// What the export `migrate` answers: today's state, serialized.
///
/// # Errors
/// What the policy says when it cannot read the state.
///
/// ```
/// # use regatta_sdk::{testing, prelude::*};
/// # struct Busy;
/// # impl Policy for Busy {
/// #     type Params = NoParams;
/// #     type State = u32;
/// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "").state_version(2) }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut u32) -> Result<Outcome, String> { Ok(Outcome::keep(tick)) }
/// #     fn migrate(from: u32, state: &[u8]) -> Result<u32, String> {
/// #         if from == 1 { Ok(regatta_sdk::old_state::<[u32; 1]>(state)?[0]) } else { Err("too old".to_owned()) }
/// #     }
/// # }
/// assert_eq!(testing::migrate::<Busy>(1, b"[3]"), Ok(b"3".to_vec()));
/// assert!(testing::migrate::<Busy>(0, b"[3]").is_err());
/// ```
pub fn migrate<P: Policy>(from_version: u32, state: &[u8]) -> Result<Vec<u8>, String> {
    run::migrate::<P>(from_version, state)
}

/// Checks that the schema which a policy keeps in a file (see [`Policy::params_schema`]) is that
/// of its parameters. With `REGATTA_BLESS=1` in the environment it writes the file instead.
///
/// # Panics
/// When it is another one.
///
/// ```no_run
/// # use regatta_sdk::prelude::*;
/// # struct Busy;
/// # impl Policy for Busy {
/// #     type Params = NoParams;
/// #     type State = ();
/// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "") }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> { Ok(Outcome::keep(tick)) }
/// # }
/// regatta_sdk::testing::assert_schema_file::<Busy>(concat!(env!("CARGO_MANIFEST_DIR"), "/params.schema.json"));
/// ```
pub fn assert_schema_file<P: Policy>(path: &str) {
    let schema = schema_of::<P::Params>() + "\n";
    if std::env::var_os("REGATTA_BLESS").is_some() {
        std::fs::write(path, &schema).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        return;
    }
    assert!(
        P::params_schema().trim() == schema.trim(),
        "{path} is not the schema of the parameters; run the test again with REGATTA_BLESS=1 to write it"
    );
}
