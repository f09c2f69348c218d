//! What a policy is.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{MetricRequest, Outcome, Problem, Tick};

/// A scaling policy. See the [crate's first page](crate) for a whole one.
///
/// ```
/// use regatta_sdk::prelude::*;
///
/// /// As many as the set may have.
/// struct AllOfThem;
///
/// impl Policy for AllOfThem {
///     type Params = NoParams;
///     type State = ();
///
///     fn describe() -> Describe {
///         Describe::new("all-of-them", "1.0.0", "As many as the set may have.")
///     }
///
///     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> {
///         Ok(Outcome::capacity(tick.max).because(Reason::new("greedy", "more is more")))
///     }
/// }
/// # use regatta_sdk::testing::{TestPolicy, TestTick};
/// # let outcome = TestPolicy::<AllOfThem>::new("{}").unwrap().tick(&TestTick::new().bounds(1, 9)).unwrap();
/// # assert_eq!(outcome.capacity, 9);
/// ```
pub trait Policy: 'static {
    /// The parameters, as users write them in a scale set's manifest. Use
    /// `#[serde(deny_unknown_fields)]`, so that a mistyped name is found; or [`NoParams`].
    type Params: DeserializeOwned + JsonSchema;

    /// What is carried from one tick to the next, or `()`. It is kept as JSON. When its shape
    /// changes, raise [`Describe::state_version`] and teach [`Policy::migrate`] the old one.
    type State: Default + Serialize + DeserializeOwned;

    /// Name, version and the metrics that it wants.
    ///
    /// ```
    /// # use regatta_sdk::prelude::*;
    /// fn describe() -> Describe {
    ///     Describe::new("busy", env!("CARGO_PKG_VERSION"), "One more whenever the set is busy.").metric("load")
    /// }
    /// ```
    fn describe() -> Describe;

    /// JSON schema of the parameters.
    ///
    /// Deriving it inside the guest costs some 80 KB of module. A policy that is to
    /// be small keeps it in a file instead, `include_str!("../params.schema.json")`,
    /// with a native test that calls
    /// [`testing::assert_schema_file`](crate::testing::assert_schema_file).
    ///
    /// ```
    /// fn params_schema() -> String {
    ///     // include_str!("../params.schema.json").to_owned()
    ///     r#"{"type": "object"}"#.to_owned()
    /// }
    /// ```
    #[must_use]
    fn params_schema() -> String {
        schema_of::<Self::Params>()
    }

    /// Checks what the types cannot. Report every problem, not just the first.
    ///
    /// ```
    /// # use regatta_sdk::prelude::*;
    /// struct Params { target: f64 }
    /// fn validate(params: &Params, problems: &mut Problems) {
    ///     problems.require(params.target > 0.0, "/target", "must be above 0");
    /// }
    /// ```
    fn validate(_params: &Self::Params, _problems: &mut Problems) {}

    /// Turns one tick into one outcome. It must be a pure function of its
    /// arguments.
    ///
    /// # Errors
    /// A message when there is no outcome; the host then keeps the set's size,
    /// unless the set's `on_failure` guard says otherwise, and `state` stays as it
    /// was.
    ///
    /// ```
    /// # use regatta_sdk::prelude::*;
    /// fn decide(tick: &Tick<'_>, _: &NoParams, ticks: &mut u32) -> Result<Outcome, String> {
    ///     *ticks += 1;
    ///     if tick.max == 0 { Err("the set may have no instance".to_owned()) } else { Ok(Outcome::keep(tick)) }
    /// }
    /// ```
    fn decide(tick: &Tick<'_>, params: &Self::Params, state: &mut Self::State) -> Result<Outcome, String>;

    /// Makes today's state of one that another version of this policy left, when a set swaps
    /// versions whose [`Describe::state_version`] differs. `state` is what that version
    /// serialized (JSON, read with [`old_state`]); it is never empty.
    ///
    /// # Errors
    /// Why it cannot be; the policy then starts with `State::default()`, and the record tells the
    /// message. That is also what happens unless this is overridden.
    ///
    /// ```
    /// # use regatta_sdk::{old_state, testing, prelude::*};
    /// # #[derive(serde::Deserialize)]
    /// struct StateV1 { high_ticks: u32 }
    ///
    /// #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// struct State { high_since_ms: Option<u64>, ticks: u32 }
    ///
    /// fn migrate(from_version: u32, state: &[u8]) -> Result<State, String> {
    ///     match from_version {
    ///         1 => Ok(State { high_since_ms: None, ticks: old_state::<StateV1>(state)?.high_ticks }),
    ///         _ => Err(format!("version {from_version} is not known")),
    ///     }
    /// }
    /// assert_eq!(migrate(1, br#"{"high_ticks":3}"#).unwrap().ticks, 3);
    /// ```
    fn migrate(from_version: u32, _state: &[u8]) -> Result<Self::State, String> {
        Err(format!("this policy cannot read a state of version {from_version}"))
    }
}

/// Parameters of a policy that has none: an empty object, in which any name is a mistake.
///
/// ```
/// use regatta_sdk::NoParams;
/// assert!(serde_json::from_str::<NoParams>("{}").is_ok());
/// assert!(serde_json::from_str::<NoParams>(r#"{"target": 1}"#).is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// Reads the state that another version of a policy left: see [`Policy::migrate`].
///
/// # Errors
/// What serde says, when it has another shape.
///
/// ```
/// assert_eq!(regatta_sdk::old_state::<Vec<u32>>(b"[1,2]"), Ok(vec![1, 2]));
/// assert!(regatta_sdk::old_state::<u32>(b"{}").is_err());
/// ```
pub fn old_state<T: DeserializeOwned>(state: &[u8]) -> Result<T, String> {
    serde_json::from_slice(state).map_err(|error| format!("the old state is not as expected: {error}"))
}

/// The JSON schema of a type, as indented text.
///
/// ```
/// #[derive(schemars::JsonSchema)]
/// struct Params {
///     /// Value to keep.
///     target: f64,
/// }
/// assert!(regatta_sdk::schema_of::<Params>().contains("Value to keep."));
/// ```
#[must_use]
pub fn schema_of<T: JsonSchema>() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(T)).unwrap_or_else(|_| "true".to_owned())
}

/// What a policy says of itself.
///
/// ```
/// use regatta_sdk::Describe;
/// let describe = Describe::new("busy", "1.2.0", "One more whenever the set is busy.")
///     .metric("utilization")
///     .metric_window("/queue", 300_000)
///     .state_version(2);
/// # drop(describe);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Describe {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) description: &'static str,
    pub(crate) metrics: Vec<MetricRequest>,
    pub(crate) state_version: u32,
}

impl Describe {
    /// Name (lower-case letters, digits, `-`), semantic version, and one sentence.
    ///
    /// ```
    /// # use regatta_sdk::Describe;
    /// let describe = Describe::new("busy", env!("CARGO_PKG_VERSION"), "One more whenever the set is busy.");
    /// # drop(describe);
    /// ```
    #[must_use]
    pub fn new(name: &'static str, version: &'static str, description: &'static str) -> Self {
        Self { name, version, description, metrics: Vec::new(), state_version: 1 }
    }

    /// Asks for a metric. A name that starts with `/` is a JSON pointer to the
    /// parameter that holds the name (or an array of them).
    ///
    /// ```
    /// # use regatta_sdk::Describe;
    /// // `utilization`, and whatever the user's parameter `metric` names.
    /// let describe = Describe::new("busy", "1.0.0", "").metric("utilization").metric("/metric");
    /// # drop(describe);
    /// ```
    #[must_use]
    pub fn metric(self, name: &str) -> Self {
        self.metric_window(name, 0)
    }

    /// Asks for a metric and its values of the last `window_ms` milliseconds, at most 31 days. A set that has to reach
    /// further back than before begins with what it has.
    ///
    /// ```
    /// # use regatta_sdk::Describe;
    /// let describe = Describe::new("busy", "1.0.0", "").metric_window("utilization", 10 * 60_000);
    /// # drop(describe);
    /// ```
    #[must_use]
    pub fn metric_window(mut self, name: &str, window_ms: u64) -> Self {
        self.metrics.push(MetricRequest { name: name.to_owned(), window_ms });
        self
    }

    /// Version of the shape of [`Policy::State`], 1 unless set.
    ///
    /// ```
    /// # use regatta_sdk::Describe;
    /// let describe = Describe::new("busy", "2.0.0", "").state_version(2);
    /// # drop(describe);
    /// ```
    #[must_use]
    pub fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }
}

/// What is wrong with parameters.
///
/// ```
/// use regatta_sdk::Problems;
///
/// fn check(steps: &[f64], problems: &mut Problems) {
///     problems.require(!steps.is_empty(), "/steps", "needs at least one");
///     for (at, step) in steps.iter().enumerate().filter(|(_, step)| **step <= 0.0) {
///         problems.add(format!("/steps/{at}"), format!("must be above 0, not {step}"));
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    /// Adds one: where (a JSON pointer, for example `/target`) and what.
    ///
    /// ```
    /// let mut problems = regatta_sdk::Problems::default();
    /// problems.add("/target", "must be above 0");
    /// ```
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    /// Adds one unless `ok`.
    ///
    /// ```
    /// let mut problems = regatta_sdk::Problems::default();
    /// let tolerance = 0.1;
    /// problems.require((0.0..1.0).contains(&tolerance), "/tolerance", "must be at least 0 and below 1");
    /// ```
    pub fn require(&mut self, ok: bool, path: &str, message: &str) {
        if !ok {
            self.add(path, message);
        }
    }
}
