//! What decides in a test.

use super::fold::resolve;
use super::{TestTick, decide};
use crate::{Outcome, Policy, Problem, run};

/// A policy with its parameters and its state, in whatever form: a [`TestPolicy`], or a compiled
/// module in a sandbox. Scenarios and properties work on any of them.
///
/// ```
/// use regatta_sdk::Outcome;
/// use regatta_sdk::testing::{Scenario, Subject, TestTick};
///
/// /// Not even a policy: it wants what it is told.
/// struct Fixed(u32);
/// impl Subject for Fixed {
///     fn reset(&mut self) {}
///     fn decide(&mut self, _tick: &TestTick) -> Result<Outcome, String> {
///         Ok(Outcome::capacity(self.0))
///     }
/// }
/// assert_eq!(Scenario::new().run(&mut Fixed(3)).last_size(), 3);
/// ```
pub trait Subject {
    /// Forgets its state, as if no tick had been yet.
    ///
    /// ```
    /// # use regatta_sdk::testing::Subject;
    /// fn anew(subject: &mut impl Subject) {
    ///     subject.reset();
    /// }
    /// ```
    fn reset(&mut self);

    /// Decides one tick and keeps the state that comes out.
    ///
    /// # Errors
    /// What it says when it has no outcome; the state is then as it was.
    ///
    /// ```
    /// # use regatta_sdk::testing::{Subject, TestTick};
    /// fn wanted(subject: &mut impl Subject, tick: &TestTick) -> Option<u32> {
    ///     subject.decide(tick).ok().map(|outcome| outcome.capacity)
    /// }
    /// ```
    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String>;

    /// Names of the metrics that it asks for, so that a scenario can provide them. None unless
    /// overridden.
    ///
    /// ```
    /// # use regatta_sdk::testing::Subject;
    /// fn needs_metrics(subject: &impl Subject) -> bool {
    ///     !subject.metrics().is_empty()
    /// }
    /// ```
    fn metrics(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether it decides nothing anymore: properties that are not tried by then are skipped. False unless overridden.
    ///
    /// ```
    /// # use regatta_sdk::testing::Subject;
    /// fn can_decide(subject: &impl Subject) -> bool {
    ///     !subject.has_ended()
    /// }
    /// ```
    fn has_ended(&self) -> bool {
        false
    }
}

/// A policy with its parameters and its state, as a scale set has it.
///
/// ```
/// # use regatta_sdk::prelude::*;
/// # struct Doubling;
/// # impl Policy for Doubling {
/// #     type Params = NoParams;
/// #     type State = ();
/// #     fn describe() -> Describe { Describe::new("doubling", "1.0.0", "") }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> {
/// #         Ok(Outcome::capacity(tick.desired * 2))
/// #     }
/// # }
/// use regatta_sdk::testing::{TestPolicy, TestTick};
/// let mut policy = TestPolicy::<Doubling>::new("{}").unwrap();
/// assert_eq!(policy.tick(&TestTick::new().desired(4)).unwrap().capacity, 8);
/// ```
pub struct TestPolicy<P> {
    params: String,
    state: Vec<u8>,
    policy: std::marker::PhantomData<P>,
}

// Not derived: a policy need not be `Debug` for that.
impl<P> std::fmt::Debug for TestPolicy<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = String::from_utf8_lossy(&self.state);
        f.debug_struct("TestPolicy").field("params", &self.params).field("state", &state).finish()
    }
}

impl<P: Policy> TestPolicy<P> {
    /// Starts a policy with these parameters, given as JSON text.
    ///
    /// # Errors
    /// All problems of the parameters.
    ///
    /// ```
    /// # use regatta_sdk::{testing::TestPolicy, prelude::*};
    /// # struct Busy;
    /// # impl Policy for Busy {
    /// #     type Params = NoParams;
    /// #     type State = ();
    /// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "") }
    /// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> { Ok(Outcome::keep(tick)) }
    /// # }
    /// let problems = TestPolicy::<Busy>::new(r#"{"tarqet": 1}"#).unwrap_err();
    /// assert!(problems[0].message.contains("tarqet"));
    /// ```
    pub fn new(params: &str) -> Result<Self, Vec<Problem>> {
        run::validate::<P>(params)?;
        Ok(Self { params: params.to_owned(), state: Vec::new(), policy: std::marker::PhantomData })
    }

    /// Runs one tick and keeps the state that comes out.
    ///
    /// # Errors
    /// What the policy says when it has no outcome.
    ///
    /// ```
    /// # use regatta_sdk::{testing::{TestPolicy, TestTick}, prelude::*};
    /// # struct Busy;
    /// # impl Policy for Busy {
    /// #     type Params = NoParams;
    /// #     type State = ();
    /// #     fn describe() -> Describe { Describe::new("busy", "1.0.0", "") }
    /// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> { Ok(Outcome::keep(tick)) }
    /// # }
    /// let mut policy = TestPolicy::<Busy>::new("{}").unwrap();
    /// assert_eq!(policy.tick(&TestTick::new().desired(2)).unwrap().capacity, 2);
    /// ```
    pub fn tick(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        let outcome = decide::<P>(tick, &self.params, &self.state)?;
        self.state = outcome.state;
        Ok(Outcome {
            capacity: outcome.capacity,
            standby: outcome.standby,
            victims: outcome.victims,
            wake_after_ms: outcome.wake_after_ms,
            reasons: outcome.reasons,
        })
    }

    /// The state that the next tick gets.
    ///
    /// ```
    /// # use regatta_sdk::{testing::{TestPolicy, TestTick}, prelude::*};
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
    /// let mut policy = TestPolicy::<Busy>::new("{}").unwrap();
    /// policy.tick(&TestTick::new()).unwrap();
    /// assert_eq!(policy.state(), b"1");
    /// ```
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }
}

impl<P: Policy> Subject for TestPolicy<P> {
    fn reset(&mut self) {
        self.state.clear();
    }

    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        self.tick(tick)
    }

    fn metrics(&self) -> Vec<String> {
        let params = serde_json::from_str(&self.params).unwrap_or(serde_json::Value::Null);
        resolve(&P::describe().metrics, &params).into_iter().map(|request| request.name).collect()
    }
}
