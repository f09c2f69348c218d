//! How much is measured.

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// As much as the figures take to hold still.
    Full,
    /// As little as shows that every part still runs to its end. The figures say nothing.
    Quick,
}

impl Effort {
    /// As `--quick` says.
    pub(crate) fn new(quick: bool) -> Self {
        if quick { Self::Quick } else { Self::Full }
    }

    /// What is said of a figure.
    pub(crate) fn verdict(self, met: bool) -> &'static str {
        match (self, met) {
            (Self::Full, true) => "met",
            (Self::Full, false) => "MISSED",
            (Self::Quick, _) => "not judged",
        }
    }

    /// One of two amounts.
    pub(crate) fn choose<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}
