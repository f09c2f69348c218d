//! What every good policy has, tried on scenarios out of a seed.
//!
//! | property | it holds when |
//! | --- | --- |
//! | `answers` | it has an outcome for every tick, also for odd ones: nothing in service, no metrics, values that are not numbers |
//! | `stays-in-bounds` | it wants at least 1 and no more than the set may have while the load could be carried by a small part of that; standby and victims make sense, whatever the tick |
//! | `monotonic-in-load` | in one and the same situation, a higher load never makes it want fewer instances |
//! | `no-oscillation` | under a constant load it comes to rest: the size stops going up and down |
//! | `waits-for-samples` | after a scale-out, instances in service without a sample yet do not make it want more than it would with theirs |
//! | `recovers-after-gap` | while the metrics are away it does not scale in, and when they are back it catches up |
//! | `deterministic` | the same ticks give the same outcomes |
//!
//! Not every good policy has all of them (one that follows the calendar is not monotonic in load):
//! each can be left out by its name. Cases begin small, so the first one that fails is an easy one
//! to understand.

use std::collections::BTreeSet;
use std::fmt;

use super::{Signal, Subject};
use crate::short;

mod closed;
mod probe;
mod samples;
mod single;
mod watch;

use watch::Watch;

/// One of the properties.
///
/// ```
/// use regatta_sdk::testing::properties::Property;
/// assert_eq!("no-oscillation".parse(), Ok(Property::NoOscillation));
/// assert_eq!(Property::ALL.len(), 7);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Property {
    /// It has an outcome for every tick.
    Answers,
    /// What it wants makes sense.
    StaysInBounds,
    /// A higher load never makes it want fewer.
    MonotonicInLoad,
    /// Under a constant load it comes to rest.
    NoOscillation,
    /// It does not ask again for what new instances will carry once they are measured.
    WaitsForSamples,
    /// It does not scale in blindly, and catches up afterwards.
    RecoversAfterGap,
    /// The same ticks give the same outcomes.
    Deterministic,
}

impl Property {
    /// All of them, in the order in which they are tried.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Property;
    /// assert!(Property::ALL.contains(&Property::Deterministic));
    /// ```
    pub const ALL: [Self; 7] = [
        Self::Answers,
        Self::StaysInBounds,
        Self::MonotonicInLoad,
        Self::NoOscillation,
        Self::WaitsForSamples,
        Self::RecoversAfterGap,
        Self::Deterministic,
    ];

    /// Its name.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Property;
    /// assert_eq!(Property::StaysInBounds.name(), "stays-in-bounds");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::StaysInBounds => "stays-in-bounds",
            Self::MonotonicInLoad => "monotonic-in-load",
            Self::NoOscillation => "no-oscillation",
            Self::WaitsForSamples => "waits-for-samples",
            Self::RecoversAfterGap => "recovers-after-gap",
            Self::Deterministic => "deterministic",
        }
    }
}

impl std::str::FromStr for Property {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|property| property.name() == name);
        found.ok_or_else(|| format!("there is no property `{name}`; there are {}", known()))
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the properties are tried.
///
/// ```
/// use regatta_sdk::testing::properties::{Options, Property};
/// let options = Options::new().seed(7).cases(100).skip(Property::MonotonicInLoad);
/// # drop(options);
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) seed: u64,
    pub(super) cases: u32,
    pub(super) full: Option<f64>,
    pub(super) signal: Signal,
    pub(super) tick_ms: u64,
    skip: BTreeSet<Property>,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Seed 1, 32 cases of a single decision and 8 of each long scenario, ticks of 15 s.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Options;
    /// let options = Options::new();
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self {
            seed: 1,
            cases: 32,
            full: None,
            signal: Signal::Utilization,
            tick_ms: 15_000,
            skip: BTreeSet::new(),
        }
    }

    /// Sets the seed that all cases come from.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Options;
    /// let options = Options::new().seed(42);
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of cases of a single decision; of long scenarios a quarter of it is tried.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Options;
    /// let thorough = Options::new().cases(400);
    /// # drop(thorough);
    /// ```
    #[must_use]
    pub fn cases(mut self, cases: u32) -> Self {
        self.cases = cases.max(4);
        self
    }

    /// Sets what the metrics read for an instance that is full, for example 100 for percent.
    /// Unless set it is found out: the least of 1, 100, 1,000 … at which four times as much makes
    /// the policy scale out.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Options;
    /// let percent = Options::new().full_at(100.0);
    /// # drop(percent);
    /// ```
    #[must_use]
    pub fn full_at(mut self, value: f64) -> Self {
        self.full = Some(value);
        self
    }

    /// Sets what the metrics measure: [`Signal::Utilization`] unless set.
    ///
    /// ```
    /// # use regatta_sdk::testing::{Signal, properties::Options};
    /// let queue = Options::new().signal(Signal::Total);
    /// # drop(queue);
    /// ```
    #[must_use]
    pub fn signal(mut self, signal: Signal) -> Self {
        self.signal = signal;
        self
    }

    /// Sets the time from tick to tick, milliseconds: longer for a policy with long cooldowns.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Options;
    /// let patient = Options::new().tick_ms(60_000);
    /// # drop(patient);
    /// ```
    #[must_use]
    pub fn tick_ms(mut self, tick_ms: u64) -> Self {
        self.tick_ms = tick_ms;
        self
    }

    /// Leaves a property out.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::{Options, Property};
    /// let options = Options::new().skip(Property::MonotonicInLoad).skip("no-oscillation".parse().unwrap());
    /// # drop(options);
    /// ```
    #[must_use]
    pub fn skip(mut self, property: Property) -> Self {
        self.skip.insert(property);
        self
    }
}

/// What came of one property.
///
/// ```
/// use regatta_sdk::testing::properties::Verdict;
/// assert!(Verdict::Held { cases: 32 }.is_ok() && Verdict::Skipped.is_ok());
/// assert!(!Verdict::Failed { story: "at tick 3 …".to_owned() }.is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No case speaks against it.
    Held {
        /// Number of cases.
        cases: u32,
    },
    /// One does.
    Failed {
        /// What happened in it, for the author of the policy.
        story: String,
    },
    /// Nobody looked.
    Skipped,
}

impl Verdict {
    /// Whether nothing is wrong.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Verdict;
    /// assert!(Verdict::Skipped.is_ok());
    /// ```
    #[must_use]
    pub fn is_ok(&self) -> bool {
        !matches!(self, Self::Failed { .. })
    }
}

/// What came of all properties; `{}` prints it for people.
///
/// ```
/// # use regatta_sdk::Outcome;
/// # use regatta_sdk::testing::{Subject, TestTick, properties::{self, Options, Property}};
/// # struct Fixed;
/// # impl Subject for Fixed {
/// #     fn reset(&mut self) {}
/// #     fn decide(&mut self, _: &TestTick) -> Result<Outcome, String> { Ok(Outcome::capacity(3)) }
/// # }
/// let report = properties::check_all(&mut Fixed, &Options::new());
/// assert!(report.verdict(Property::Deterministic).is_ok());
/// assert!(!report.reacts, "it always wants 3");
/// println!("{report}");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The seed that all cases came from.
    pub seed: u64,
    /// What a full instance read.
    pub full: f64,
    /// Whether load moved its size at all; if not, most properties hold for no reason.
    pub reacts: bool,
    /// One for each of [`Property::ALL`].
    pub verdicts: Vec<(Property, Verdict)>,
}

impl Report {
    /// Whether no property failed.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::Report;
    /// fn exit_code(report: &Report) -> i32 {
    ///     if report.passed() { 0 } else { 1 }
    /// }
    /// ```
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|(_, verdict)| verdict.is_ok())
    }

    /// What came of one property.
    ///
    /// ```
    /// # use regatta_sdk::testing::properties::{Property, Report};
    /// fn is_calm(report: &Report) -> bool {
    ///     report.verdict(Property::NoOscillation).is_ok()
    /// }
    /// ```
    #[must_use]
    pub fn verdict(&self, property: Property) -> &Verdict {
        let found = self.verdicts.iter().find(|(other, _)| *other == property);
        found.map_or(&Verdict::Skipped, |(_, verdict)| verdict)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "properties (seed {}; an instance that is full reads {})", self.seed, short(self.full))?;
        for (property, verdict) in &self.verdicts {
            let name = property.name();
            match verdict {
                Verdict::Held { cases } => writeln!(f, "  ok       {name:<19} {cases} cases")?,
                Verdict::Skipped => writeln!(f, "  skipped  {name}")?,
                Verdict::Failed { story } => {
                    writeln!(f, "  FAILED   {name}")?;
                    for line in story.lines() {
                        writeln!(f, "             {line}")?;
                    }
                }
            }
        }
        if !self.reacts {
            writeln!(
                f,
                "  note     no load made it scale out; if it should have, say what a full instance reads"
            )?;
        }
        Ok(())
    }
}

/// Tries all properties that are not left out. It never panics for what the policy wants.
///
/// ```
/// # use regatta_sdk::Outcome;
/// # use regatta_sdk::testing::{Subject, TestTick, properties::{self, Options, Property}};
/// # struct Contrary(u32);
/// # impl Subject for Contrary {
/// #     fn reset(&mut self) {}
/// #     fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
/// #         self.0 += 1;
/// #         Ok(Outcome::capacity(tick.parts().desired + self.0 % 2))
/// #     }
/// # }
/// // One that counts its calls behind the back of its state.
/// let report = properties::check_all(&mut Contrary(0), &Options::new());
/// assert!(!report.verdict(Property::Deterministic).is_ok());
/// ```
pub fn check_all<S: Subject + ?Sized>(subject: &mut S, options: &Options) -> Report {
    let (full, reacts) = probe::full(subject, options);
    let options = &Options { full: Some(full), ..options.clone() };
    let mut watch = Watch::new(subject);
    // Answers and bounds are also watched in all the others, so they are judged last.
    let order = [
        Property::MonotonicInLoad,
        Property::NoOscillation,
        Property::WaitsForSamples,
        Property::RecoversAfterGap,
        Property::Deterministic,
        Property::StaysInBounds,
        Property::Answers,
    ];
    let mut verdicts: Vec<(Property, Verdict)> = Vec::new();
    for property in order {
        let verdict = if options.skip.contains(&property) || watch.has_ended() {
            Verdict::Skipped
        } else {
            match tried(property, &mut watch, options) {
                // What it seemed to do after its end says nothing.
                _ if watch.has_ended() => Verdict::Skipped,
                Ok(cases) => Verdict::Held { cases },
                Err(story) => Verdict::Failed { story },
            }
        };
        verdicts.push((property, verdict));
    }
    verdicts.sort_by_key(|(property, _)| *property);
    Report { seed: options.seed, full, reacts, verdicts }
}

/// Tries all properties and panics with the [`Report`] when one does not hold: for a `#[test]`.
///
/// # Panics
/// When a property does not hold.
///
/// ```
/// # use regatta_sdk::Outcome;
/// # use regatta_sdk::testing::{Subject, TestTick, properties::{self, Options}};
/// # struct Fixed;
/// # impl Subject for Fixed {
/// #     fn reset(&mut self) {}
/// #     fn decide(&mut self, _: &TestTick) -> Result<Outcome, String> { Ok(Outcome::capacity(3)) }
/// # }
/// properties::assert_all(&mut Fixed, &Options::new());
/// ```
pub fn assert_all<S: Subject + ?Sized>(subject: &mut S, options: &Options) {
    let report = check_all(subject, options);
    assert!(report.passed(), "{report}");
    println!("{report}");
}

fn tried<S: Subject + ?Sized>(
    property: Property,
    watch: &mut Watch<'_, S>,
    options: &Options,
) -> Result<u32, String> {
    match property {
        Property::Answers => single::answers(watch, options),
        Property::StaysInBounds => closed::stays_in_bounds(watch, options),
        Property::MonotonicInLoad => single::monotonic(watch, options),
        Property::NoOscillation => closed::no_oscillation(watch, options),
        Property::WaitsForSamples => samples::waits_for_samples(watch, options),
        Property::RecoversAfterGap => closed::recovers(watch, options),
        Property::Deterministic => closed::deterministic(watch, options),
    }
}
