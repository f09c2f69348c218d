//! A guest, as it is and as it answers.

use crate::dice::Dice;

/// What runs in a VM.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guest {
    /// True time from which its service answers.
    pub(crate) answers_at_ms: u64,
    /// Its service is broken: probes fail.
    pub(crate) broken: bool,
    /// True time from which it is broken without anybody's doing; 0 for never.
    pub(crate) breaks_at_ms: u64,
    /// It passes probes although it is broken.
    pub(crate) lies: bool,
    /// Its kernel panicked: nothing answers.
    pub(crate) panicked: bool,
    /// How its metrics come.
    pub(crate) metrics: Metrics,
}

/// How a guest's metrics come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Metrics {
    #[default]
    True,
    /// Never.
    Missing,
    /// So long after they were measured, milliseconds.
    Late(u64),
    /// Anything at all.
    Wild,
}

/// What a probe comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probed {
    Passed,
    /// Something answered, not well.
    Answered,
    Nothing,
}

impl Guest {
    /// A guest that begins to boot.
    pub(crate) fn booting(dice: &mut Dice, now_ms: u64, calm: bool) -> Self {
        if calm {
            return Self { answers_at_ms: now_ms + dice.within(200..=4_000), ..Self::default() };
        }
        let answers_at_ms = match dice.small(0..=99) {
            0..=74 => now_ms + dice.within(200..=5_000),
            75..=89 => now_ms + dice.within(5_000..=90_000),
            _ => u64::MAX,
        };
        let metrics = match dice.small(0..=19) {
            0 => Metrics::Missing,
            1 => Metrics::Late(dice.within(500..=40_000)),
            2 => Metrics::Wild,
            _ => Metrics::True,
        };
        Self {
            answers_at_ms,
            broken: dice.per_mille(40),
            lies: dice.per_mille(300),
            metrics,
            panicked: false,
            breaks_at_ms: 0,
        }
    }

    pub(crate) fn probe(&self, now_ms: u64) -> Probed {
        if self.panicked || now_ms < self.answers_at_ms {
            Probed::Nothing
        } else if self.breaks_at_ms > 0 && now_ms >= self.breaks_at_ms || self.broken && !self.lies {
            Probed::Answered
        } else {
            Probed::Passed
        }
    }

    /// Nothing is wrong with it any more.
    pub(crate) fn heal(&mut self, now_ms: u64) {
        self.answers_at_ms = self.answers_at_ms.min(now_ms + 1_000);
        (self.broken, self.lies, self.metrics) = (false, false, Metrics::True);
        self.breaks_at_ms = 0;
    }
}
