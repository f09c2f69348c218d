//! The limits in force, and where each comes from.

use serde::{Deserialize, Serialize};

use super::Term;
use crate::manifest::Capacity;

/// Other limits than those of the manifest, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsOverride {
    /// Least capacity; none leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Greatest capacity; none leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// For how long.
    pub term: Term,
}

impl LimitsOverride {
    /// Its values as people read them: `min 4, max 20`.
    #[must_use]
    pub fn values(&self) -> String {
        let values = [("min", self.min), ("max", self.max)];
        let given = values.iter().filter_map(|(name, value)| Some(format!("{name} {}", (*value)?)));
        given.collect::<Vec<_>>().join(", ")
    }
}

/// Where a limit comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The manifest's `capacity`.
    #[default]
    Manifest,
    /// An entry of the schedules, by name.
    Schedule(String),
    /// An operator's override.
    Override,
    /// A freeze: the size may not be above the greatest capacity, and nothing may be removed.
    Freeze,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Manifest => f.write_str("manifest"),
            Self::Schedule(name) => write!(f, "schedule {name}"),
            Self::Override => f.write_str("override"),
            Self::Freeze => f.write_str("freeze"),
        }
    }
}

/// Least and greatest capacity in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Least capacity, never above `max`.
    pub min: u32,
    /// Where it comes from.
    pub min_from: Source,
    /// Greatest capacity.
    pub max: u32,
    /// Where it comes from.
    pub max_from: Source,
    /// What the least capacity would be, when that is above `max`: the greatest capacity wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond_max: Option<u32>,
}

impl Limits {
    /// Those of the manifest.
    #[must_use]
    pub fn of(capacity: Capacity) -> Self {
        let (min, max) = (capacity.min, capacity.max);
        Self { min, min_from: Source::Manifest, max, max_from: Source::Manifest, beyond_max: None }
    }

    /// With others in their place, as far as they are given.
    #[must_use]
    pub fn with(mut self, min: Option<u32>, max: Option<u32>, from: &Source) -> Self {
        if let Some(min) = min {
            (self.min, self.min_from) = (min, from.clone());
        }
        if let Some(max) = max {
            (self.max, self.max_from) = (max, from.clone());
        }
        self
    }

    /// Where they contradict each other, the greatest capacity wins.
    #[must_use]
    pub(super) fn reconciled(self) -> Self {
        match self.min > self.max {
            true => Self { beyond_max: Some(self.min), min: self.max, ..self },
            false => self,
        }
    }

    /// No greatest capacity below `desired`: for as long as nothing may be removed.
    #[must_use]
    pub(super) fn frozen_at(self, desired: u32) -> Self {
        match self.max < desired {
            true => Self { max: desired, max_from: Source::Freeze, ..self },
            false => self,
        }
    }

    /// Whether `capacity` is within them.
    #[must_use]
    pub fn contains(&self, capacity: u32) -> bool {
        (self.min..=self.max).contains(&capacity)
    }

    /// How they contradict each other, for people.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let min = self.beyond_max?;
        Some(format!("min {min} ({}) is above max {} ({}): max wins", self.min_from, self.max, self.max_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_capacity_wins_and_the_contradiction_is_told() {
        let limits = Limits::of(Capacity { min: 4, max: 9, initial: 4 });
        let reconciled = limits.with(None, Some(3), &Source::Override).reconciled();
        assert_eq!((reconciled.min, reconciled.max), (3, 3));
        let told = reconciled.contradiction();
        assert_eq!(told.as_deref(), Some("min 4 (manifest) is above max 3 (override): max wins"));
        let frozen = reconciled.frozen_at(7);
        assert_eq!((frozen.min, frozen.max, frozen.max_from), (3, 7, Source::Freeze));
    }
}
