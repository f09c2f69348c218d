//! Statistics over the past values of a metric.
//!
//! All of them skip samples that are not finite numbers, and give none when nothing is
//! left or when the result would not be finite: there is no default that a policy could
//! mistake for a measurement.

use crate::MetricWindow;

/// A past value of a metric: see [`MetricWindow::samples`].
///
/// ```
/// use regatta_sdk::{MetricWindow, Sample};
/// let window = MetricWindow { at_ms: vec![1_000], value: vec![0.5] };
/// assert_eq!(window.last(), Some(Sample { at_ms: 1_000, value: 0.5 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was sampled, Unix milliseconds.
    pub at_ms: u64,
    /// The value, finite.
    pub value: f64,
}

impl MetricWindow {
    /// The samples, oldest first, without those that are not finite numbers.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: vec![1_000, 2_000], value: vec![f64::NAN, 0.5] };
    /// assert_eq!(window.samples().map(|sample| sample.at_ms).collect::<Vec<_>>(), [2_000]);
    /// ```
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = Sample> + '_ {
        let samples = self.at_ms.iter().zip(&self.value);
        samples.map(|(&at_ms, &value)| Sample { at_ms, value }).filter(|sample| sample.value.is_finite())
    }

    /// Number of samples that count.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// assert_eq!(MetricWindow { at_ms: vec![1, 2], value: vec![0.5, f64::NAN] }.len(), 1);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples().count()
    }

    /// Whether no sample counts.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// assert!(MetricWindow { at_ms: vec![1], value: vec![f64::NAN] }.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples().next().is_none()
    }

    /// The oldest sample.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: vec![1, 2], value: vec![0.5, 0.7] };
    /// assert_eq!(window.first().map(|sample| sample.value), Some(0.5));
    /// ```
    #[must_use]
    pub fn first(&self) -> Option<Sample> {
        self.samples().next()
    }

    /// The youngest sample. The value of this very tick is not in the window: it is
    /// [`Tick::mean`](crate::Tick::mean).
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: vec![1, 2], value: vec![0.5, 0.7] };
    /// assert_eq!(window.last().map(|sample| sample.value), Some(0.7));
    /// ```
    #[must_use]
    pub fn last(&self) -> Option<Sample> {
        self.samples().next_back()
    }

    /// The samples taken at `at_ms` (Unix milliseconds) or later.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: vec![1_000, 2_000, 3_000], value: vec![1.0, 2.0, 3.0] };
    /// assert_eq!(window.since_ms(2_000).mean(), Some(2.5));
    /// ```
    #[must_use]
    pub fn since_ms(&self, at_ms: u64) -> Self {
        let kept = self.samples().filter(|sample| sample.at_ms >= at_ms);
        let (at_ms, value) = kept.map(|sample| (sample.at_ms, sample.value)).unzip();
        Self { at_ms, value }
    }

    /// Their mean, each sample with the same weight. Samples older than 60 ticks stand for several ticks each, so in a
    /// longer window the recent past counts for more; [`MetricWindow::mean_over_time`] weighs them.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// assert_eq!(MetricWindow { at_ms: vec![1, 2, 9], value: vec![1.0, 2.0, 6.0] }.mean(), Some(3.0));
    /// assert_eq!(MetricWindow { at_ms: vec![], value: vec![] }.mean(), None);
    /// ```
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let (count, sum) =
            self.samples().fold((0.0, 0.0), |(count, sum), sample| (count + 1.0, sum + sample.value));
        finite(sum / count)
    }

    /// Their mean over time: each sample counts for the time since the one before it, the first like the second.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// // The first two stand for four ticks each, the last two for one.
    /// let window = MetricWindow { at_ms: vec![4_000, 8_000, 9_000, 10_000], value: vec![1.0, 1.0, 6.0, 6.0] };
    /// assert_eq!((window.mean(), window.mean_over_time()), (Some(3.5), Some(2.0)));
    /// ```
    #[must_use]
    pub fn mean_over_time(&self) -> Option<f64> {
        let (first, second) = (self.first()?, self.samples().nth(1));
        let Some(second) = second else { return Some(first.value) };
        let mut before_ms = first.at_ms.saturating_sub(second.at_ms.saturating_sub(first.at_ms));
        let (mut time, mut sum) = (0.0, 0.0);
        for sample in self.samples() {
            let span = seconds(before_ms, sample.at_ms).max(0.0);
            (time, sum) = (time + span, sum + span * sample.value);
            before_ms = sample.at_ms;
        }
        finite(sum / time)
    }

    /// The least.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// assert_eq!(MetricWindow { at_ms: vec![1, 2], value: vec![3.0, 2.0] }.min(), Some(2.0));
    /// ```
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        self.samples().map(|sample| sample.value).reduce(f64::min)
    }

    /// The greatest.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// assert_eq!(MetricWindow { at_ms: vec![1, 2], value: vec![3.0, 2.0] }.max(), Some(3.0));
    /// ```
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.samples().map(|sample| sample.value).reduce(f64::max)
    }

    /// The value that a `share` (0 to 1) of the samples does not exceed, by the
    /// nearest-rank rule: the ⌈share · n⌉-th smallest, at least the first. It is always a
    /// value that was measured. None for a share outside 0 to 1.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: (1..=20).collect(), value: (1..=20).map(f64::from).collect() };
    /// assert_eq!(window.percentile(0.95), Some(19.0));
    /// assert_eq!(window.percentile(0.0), Some(1.0));
    /// assert_eq!(window.percentile(1.0), Some(20.0));
    /// assert_eq!(window.percentile(95.0), None);
    /// ```
    #[must_use]
    pub fn percentile(&self, share: f64) -> Option<f64> {
        if !(0.0..=1.0).contains(&share) {
            return None;
        }
        let mut values: Vec<f64> = self.samples().map(|sample| sample.value).collect();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a length that fits into memory"
        )]
        let rank = (share * values.len() as f64).ceil() as usize;
        let at = rank.saturating_sub(1).min(values.len().checked_sub(1)?);
        Some(*values.select_nth_unstable_by(at, f64::total_cmp).1)
    }

    /// Change per second from the oldest sample to the youngest: (last − first) / time. None
    /// for fewer than two samples, or when no time lies between them. Counters have become
    /// rates before they get here, so a fall is a fall, never a restart.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: vec![0, 5_000, 10_000], value: vec![1.0, 9.0, 3.0] };
    /// assert_eq!(window.rate_per_s(), Some(0.2));
    /// ```
    #[must_use]
    pub fn rate_per_s(&self) -> Option<f64> {
        let (first, last) = (self.first()?, self.last()?);
        let elapsed_s = seconds(first.at_ms, last.at_ms);
        if elapsed_s > 0.0 { finite((last.value - first.value) / elapsed_s) } else { None }
    }

    /// Slope of the straight line that fits the samples best (least squares), per second.
    /// Unlike [`MetricWindow::rate_per_s`] it does not hang on two samples. None for fewer
    /// than two samples, or when all were taken at one time.
    ///
    /// ```
    /// use regatta_sdk::MetricWindow;
    /// let window = MetricWindow { at_ms: vec![0, 1_000, 2_000, 3_000], value: vec![1.0, 3.0, 5.0, 7.0] };
    /// assert_eq!(window.trend_per_s(), Some(2.0));
    /// ```
    #[must_use]
    pub fn trend_per_s(&self) -> Option<f64> {
        let from_ms = self.first()?.at_ms;
        let time = |sample: &Sample| seconds(from_ms, sample.at_ms);
        let (mut count, mut times) = (0.0, 0.0);
        for sample in self.samples() {
            (count, times) = (count + 1.0, times + time(&sample));
        }
        let (mean_time, mean) = (times / count, self.mean()?);
        let (mut together, mut square) = (0.0, 0.0);
        for sample in self.samples() {
            let away = time(&sample) - mean_time;
            together += away * (sample.value - mean);
            square += away * away;
        }
        if square > 0.0 { finite(together / square) } else { None }
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// From one time to another, negative when it lies before.
#[expect(clippy::cast_precision_loss, reason = "windows are far shorter than 2^53 ms")]
fn seconds(from_ms: u64, to_ms: u64) -> f64 {
    let ms = if to_ms >= from_ms { (to_ms - from_ms) as f64 } else { -((from_ms - to_ms) as f64) };
    ms / 1000.0
}
