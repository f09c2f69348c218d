//! What a policy is.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{MetricRequest, Outcome, Problem, Tick};

/// A scaling policy. See the crate's first page for a whole one.
pub trait Policy: 'static {
    /// The parameters, as users write them in a scale set's manifest. Use
    /// `#[serde(deny_unknown_fields)]`, so that a mistyped name is found.
    type Params: DeserializeOwned + JsonSchema;

    /// What is carried from one tick to the next, or `()`. When its shape changes,
    /// raise [`Describe::state_version`].
    type State: Default + Serialize + DeserializeOwned;

    /// Name, version and the metrics that it wants.
    fn describe() -> Describe;

    /// JSON schema of the parameters.
    ///
    /// Deriving it inside the guest costs some 80 KB of module. A policy that is to
    /// be small keeps it in a file instead, `include_str!("../params.schema.json")`,
    /// with a native test that compares it with [`schema_of`].
    #[must_use]
    fn params_schema() -> String {
        schema_of::<Self::Params>()
    }

    /// Checks what the types cannot. Report every problem, not just the first.
    fn validate(_params: &Self::Params, _problems: &mut Problems) {}

    /// Turns one tick into one outcome. It must be a pure function of its
    /// arguments.
    ///
    /// # Errors
    /// A message when there is no outcome; the host then keeps the set's size,
    /// unless the set's `on_failure` guard says otherwise, and `state` stays as it
    /// was.
    fn decide(tick: &Tick<'_>, params: &Self::Params, state: &mut Self::State) -> Result<Outcome, String>;
}

/// The JSON schema of a type, as indented text.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(T)).unwrap_or_else(|_| "true".to_owned())
}

/// What a policy says of itself.
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
    #[must_use]
    pub fn new(name: &'static str, version: &'static str, description: &'static str) -> Self {
        Self { name, version, description, metrics: Vec::new(), state_version: 1 }
    }

    /// Asks for a metric. A name that starts with `/` is a JSON pointer to the
    /// parameter that holds the name (or an array of them).
    #[must_use]
    pub fn metric(self, name: &str) -> Self {
        self.metric_window(name, 0)
    }

    /// Asks for a metric and its values of the last `window_ms` milliseconds.
    #[must_use]
    pub fn metric_window(mut self, name: &str, window_ms: u64) -> Self {
        self.metrics.push(MetricRequest { name: name.to_owned(), window_ms });
        self
    }

    /// Version of the shape of [`Policy::State`], 1 unless set.
    #[must_use]
    pub fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }
}

/// What is wrong with parameters.
#[derive(Debug, Default)]
pub struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    /// Adds one: where (a JSON pointer, for example `/target`) and what.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    /// Adds one unless `ok`.
    pub fn require(&mut self, ok: bool, path: &str, message: &str) {
        if !ok {
            self.add(path, message);
        }
    }
}
