//! The load of a scenario in the course of time.

use std::fmt;
use std::rc::Rc;

/// The load on a set, tick by tick, in whatever unit [`Scenario::instance_capacity`] is given in
/// (by default in instances' worth). Parts follow each other; after the last one its last value
/// goes on.
///
/// [`Scenario::instance_capacity`]: super::Scenario::instance_capacity
///
/// ```
/// use regatta_sdk::testing::Load;
///
/// let load = Load::new().hold(2.0, 10).ramp(8.0, 3).spike(20.0, 2).hold(4.0, 5);
/// let ticks: Vec<f64> = (9..=17).map(|tick| load.at(tick)).collect();
/// assert_eq!(ticks, [2.0, 2.0, 4.0, 6.0, 8.0, 20.0, 20.0, 8.0, 4.0]);
/// assert_eq!(load.ticks(), 21);
///
/// // The same can be written as a list of (ticks, load), and a number is a constant load.
/// assert_eq!(Load::from([(10, 2.0), (5, 4.0)]).at(11), 4.0);
/// assert_eq!(Load::from(3.0).at(1_000), 3.0);
/// ```
#[derive(Clone, Default)]
pub struct Load {
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    ticks: u64,
    shape: Shape,
}

#[derive(Clone)]
enum Shape {
    Hold(f64),
    Ramp { from: f64, to: f64 },
    Wave { mean: f64, amplitude: f64, period: u64 },
    Follow(Rc<dyn Fn(u64) -> f64>),
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load").field("ticks", &self.ticks()).finish_non_exhaustive()
    }
}

impl Load {
    /// No load, for no time: the beginning of all others.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// assert_eq!(Load::new().at(1), 0.0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Then `load`, for a number of ticks.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// assert_eq!(Load::new().hold(2.0, 10).at(10), 2.0);
    /// ```
    #[must_use]
    pub fn hold(self, load: f64, ticks: u64) -> Self {
        self.push(ticks, Shape::Hold(load))
    }

    /// Then in a straight line from where it is, reaching `to` after a number of ticks.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// let load = Load::new().hold(2.0, 1).ramp(4.0, 4);
    /// assert_eq!((load.at(3), load.at(5)), (3.0, 4.0));
    /// ```
    #[must_use]
    pub fn ramp(self, to: f64, ticks: u64) -> Self {
        let from = self.end();
        self.push(ticks, Shape::Ramp { from, to })
    }

    /// Then `load` for a number of ticks, and for one tick more back where it was.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// let load = Load::new().hold(2.0, 1).spike(9.0, 1);
    /// assert_eq!([load.at(1), load.at(2), load.at(3), load.at(99)], [2.0, 9.0, 2.0, 2.0]);
    /// ```
    #[must_use]
    pub fn spike(self, load: f64, ticks: u64) -> Self {
        let back = self.end();
        self.hold(load, ticks).hold(back, 1)
    }

    /// Then a sine around `mean`, never below 0, that begins at `mean` and rises.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// let day = Load::new().wave(4.0, 3.0, 24, 48);
    /// assert_eq!([day.at(7), day.at(19)].map(f64::round), [7.0, 1.0]);
    /// ```
    #[must_use]
    pub fn wave(self, mean: f64, amplitude: f64, period_ticks: u64, ticks: u64) -> Self {
        self.push(ticks, Shape::Wave { mean, amplitude, period: period_ticks.max(1) })
    }

    /// Then what a function says, for a number of ticks; it is given the number of the tick in the
    /// scenario, from 1.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// let sawtooth = Load::new().follow(60, |tick| 1.0 + (tick % 10) as f64);
    /// assert_eq!(sawtooth.at(19), 10.0);
    /// ```
    #[must_use]
    pub fn follow(self, ticks: u64, function: impl Fn(u64) -> f64 + 'static) -> Self {
        self.push(ticks, Shape::Follow(Rc::new(function)))
    }

    /// How many ticks its parts take together.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// assert_eq!(Load::new().hold(1.0, 10).ramp(2.0, 5).ticks(), 15);
    /// ```
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.parts.iter().map(|part| part.ticks).sum()
    }

    /// The load at a tick, from 1.
    ///
    /// ```
    /// # use regatta_sdk::testing::Load;
    /// assert_eq!(Load::from([(1, 2.0), (1, 3.0)]).at(2), 3.0);
    /// ```
    #[must_use]
    pub fn at(&self, tick: u64) -> f64 {
        let mut before = 0;
        let mut last = 0.0;
        for part in &self.parts {
            let within = tick.saturating_sub(before);
            if within <= part.ticks {
                return part.shape.at(within, part.ticks, tick);
            }
            before += part.ticks;
            last = part.shape.at(part.ticks, part.ticks, before);
        }
        last
    }

    fn end(&self) -> f64 {
        self.at(self.ticks().max(1))
    }

    fn push(mut self, ticks: u64, shape: Shape) -> Self {
        self.parts.push(Part { ticks, shape });
        self
    }
}

impl Shape {
    /// The load at the `within`-th of `ticks` ticks.
    #[expect(clippy::cast_precision_loss, reason = "scenarios are far shorter than 2^53 ticks")]
    fn at(&self, within: u64, ticks: u64, tick: u64) -> f64 {
        match self {
            Self::Hold(load) => *load,
            Self::Ramp { from, to } if within < ticks => from + (to - from) * within as f64 / ticks as f64,
            Self::Ramp { to, .. } => *to,
            Self::Wave { mean, amplitude, period } => {
                let turn = within.saturating_sub(1) as f64 / *period as f64 * std::f64::consts::TAU;
                (mean + amplitude * turn.sin()).max(0.0)
            }
            Self::Follow(function) => function(tick),
        }
    }
}

/// Ticks that a load which is just a number lasts.
const CONSTANT_TICKS: u64 = 60;

impl From<f64> for Load {
    fn from(load: f64) -> Self {
        Self::new().hold(load, CONSTANT_TICKS)
    }
}

impl From<&[(u64, f64)]> for Load {
    fn from(parts: &[(u64, f64)]) -> Self {
        parts.iter().fold(Self::new(), |load, &(ticks, value)| load.hold(value, ticks))
    }
}

impl<const N: usize> From<[(u64, f64); N]> for Load {
    fn from(parts: [(u64, f64); N]) -> Self {
        Self::from(parts.as_slice())
    }
}
