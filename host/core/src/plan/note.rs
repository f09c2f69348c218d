//! Why something that one might expect is not in the plan.

use std::fmt;

use serde::{Deserialize, Serialize};

use regatta_util::Said;

/// Why something that one might expect is not in the plan. Its [`Display`](fmt::Display) is the text that users read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
pub enum PlanNote {
    /// Launches failed and are not tried again yet.
    LaunchesFailed {
        /// Instances short of the granted capacity.
        short: u32,
        /// Time until the next try, milliseconds.
        retry_in_ms: u64,
    },
    /// Launches wait for something.
    LaunchesHeld {
        /// Instances short of the granted capacity.
        short: u32,
        /// For what.
        why: Said,
    },
    /// The nodes have no capacity for all that are missing.
    NodesFull {
        /// Instances that stay missing.
        short: u32,
        /// What the nodes are short of.
        why: Said,
    },
    /// No node is known to create instances on.
    NoNode {
        /// Instances short of the granted capacity.
        short: u32,
    },
    /// The budget lets only some be created now.
    CreatesLimited {
        /// Instances short of the granted capacity.
        short: u32,
        /// Of these, how many are created now.
        now: u32,
    },
    /// Launches back off: one is tried at a time.
    OneAtATime {
        /// Instances short of the granted capacity.
        short: u32,
    },
    /// Unhealthy instances stay: the set does without repair.
    RepairOff {
        /// How many are due.
        unhealthy: u32,
    },
    /// Unhealthy instances stay: so many at once are rather a fault of the network, the host or the probe.
    RepairHeld {
        /// How many are unhealthy.
        unhealthy: u32,
        /// Of how many that should serve.
        of: u32,
        /// Share of them that repair takes for its own, percent.
        max_percent: u32,
    },
    /// Unhealthy instances stay: they were healthy under the manifest before.
    RepairAfterApply {
        /// How many are due.
        unhealthy: u32,
        /// When repair begins, in milliseconds.
        in_ms: u64,
    },
    /// The budget lets only some be repaired now.
    RepairLimited {
        /// How many are due.
        unhealthy: u32,
        /// Of these, how many are replaced now.
        now: u32,
        /// How many may be out of service for repairs at once.
        at_once: u32,
    },
    /// The upgrade waits at the end of a batch.
    UpgradeWaits {
        /// Instances that are replaced.
        done: u32,
        /// Of how many.
        total: u32,
        /// For how long, milliseconds.
        in_ms: u64,
    },
    /// The upgrade replaces no healthy instance: too many are unhealthy.
    UpgradeHeld {
        /// How many are unhealthy.
        unhealthy: u32,
        /// Of how many that should serve.
        of: u32,
        /// Share of them that may be, percent.
        max_percent: u32,
    },
    /// The upgrade replaces nothing.
    UpgradeFrozen {
        /// Why.
        why: Said,
    },
    /// Surplus instances stay: what is left is protected from scale-in.
    Protected {
        /// How many more than wanted.
        surplus: u32,
    },
    /// Failed or unhealthy instances stay: they are protected from all actions of the set.
    ProtectedFromActions {
        /// How many.
        instances: u32,
        /// Whether they failed; else they are unhealthy.
        failed: bool,
    },
    /// Nothing is created: that is suspended.
    LaunchSuspended {
        /// Instances short of the granted capacity.
        short: u32,
    },
    /// Surplus or unhealthy instances stay: removing them is suspended.
    RemovalSuspended {
        /// How many.
        instances: u32,
    },
    /// Unhealthy instances stay: repair is suspended.
    RepairSuspended {
        /// How many are due.
        unhealthy: u32,
    },
    /// Unhealthy instances stay: repair has suspended itself, because it does not help.
    RepairInVain {
        /// How many are due.
        unhealthy: u32,
        /// Repairs in a row that did not help.
        in_vain: u32,
    },
    /// Text of a record of version 1.
    #[serde(untagged)]
    Text(String),
}

impl fmt::Display for PlanNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LaunchesFailed { short, retry_in_ms } => {
                write!(
                    f,
                    "{} short: launches failed, retrying in {}",
                    Instances(*short),
                    Seconds(*retry_in_ms)
                )
            }
            Self::LaunchesHeld { short, why } | Self::NodesFull { short, why } => {
                write!(f, "{} short: {why}", Instances(*short))
            }
            Self::NoNode { short } => write!(f, "{} short: no node has reported capacity", Instances(*short)),
            Self::CreatesLimited { short, now } => {
                write!(f, "{} short: creating {now} now, the rest in later ticks", Instances(*short))
            }
            Self::OneAtATime { short } => {
                write!(f, "{} short: launching one at a time until one stays in service", Instances(*short))
            }
            Self::RepairOff { unhealthy } => write!(f, "{} unhealthy: repair is off", Instances(*unhealthy)),
            Self::RepairHeld { unhealthy, of, max_percent } => write!(
                f,
                "{unhealthy} of {of} instances unhealthy: more than {max_percent} % at once are rather a fault of the host, the \
                 network or the probe; repair waits (repair.max_unhealthy)"
            ),
            Self::RepairAfterApply { unhealthy, in_ms } => write!(
                f,
                "{} unhealthy since the manifest was changed: repair waits another {} (repair.hold_after_apply)",
                Instances(*unhealthy),
                Seconds(*in_ms)
            ),
            Self::RepairLimited { unhealthy, at_once: 0, .. } => {
                write!(f, "{} unhealthy: a guard stops repair", Instances(*unhealthy))
            }
            Self::RepairLimited { unhealthy, now, at_once } => {
                write!(
                    f,
                    "{} unhealthy: replacing {now} now, at most {at_once} at a time",
                    Instances(*unhealthy)
                )
            }
            Self::UpgradeWaits { done, total, in_ms } => {
                write!(f, "upgrade: {done} of {total} replaced; the next batch begins in {}", Seconds(*in_ms))
            }
            Self::UpgradeHeld { unhealthy, of, max_percent } => write!(
                f,
                "upgrade waits: {unhealthy} of {of} instances are unhealthy, more than {max_percent} % (upgrade.max_unhealthy)"
            ),
            Self::UpgradeFrozen { why } => write!(f, "upgrade waits: {why}"),
            Self::Protected { surplus } => {
                let s = if *surplus == 1 { "" } else { "s" };
                write!(f, "{surplus} surplus instance{s} kept: protected from scale-in")
            }
            Self::ProtectedFromActions { instances, failed } => {
                let s = if *instances == 1 { "" } else { "s" };
                let what = if *failed { "failed" } else { "unhealthy" };
                write!(f, "{instances} {what} instance{s} kept: protected from all actions of the set")
            }
            Self::LaunchSuspended { short } => {
                write!(f, "{} short: process launch is suspended", Instances(*short))
            }
            Self::RemovalSuspended { instances } => {
                write!(f, "{} kept: process terminate is suspended", Instances(*instances))
            }
            Self::RepairSuspended { unhealthy } => {
                write!(f, "{} unhealthy: process repair is suspended", Instances(*unhealthy))
            }
            Self::RepairInVain { unhealthy, in_vain } => write!(
                f,
                "{} unhealthy: repair suspended itself, {in_vain} repairs in a row did not help; it resumes when no instance is \
                 unhealthy, with another manifest, or by `regatta process resume SET repair`",
                Instances(*unhealthy)
            ),
            Self::Text(text) => f.write_str(text),
        }
    }
}

struct Instances(u32);

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} instance{s}", self.0)
    }
}

/// Milliseconds in seconds, rounded up to tenths: nobody is told to wait for less than it takes.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.div_ceil(100);
        match tenths % 10 {
            0 => write!(f, "{} s", tenths / 10),
            tenth => write!(f, "{}.{tenth} s", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<PlanNote> {
        let why = "the host is out of memory".into();
        vec![
            PlanNote::LaunchesFailed { short: 3, retry_in_ms: 2_500 },
            PlanNote::LaunchesFailed { short: 1, retry_in_ms: 60_000 },
            PlanNote::LaunchesHeld { short: 2, why: "the snapshot is being made".into() },
            PlanNote::NodesFull { short: 2, why },
            PlanNote::NoNode { short: 2 },
            PlanNote::CreatesLimited { short: 1_500, now: 1_000 },
            PlanNote::OneAtATime { short: 4 },
            PlanNote::RepairOff { unhealthy: 1 },
            PlanNote::RepairLimited { unhealthy: 40, now: 2, at_once: 2 },
            PlanNote::RepairLimited { unhealthy: 1, now: 0, at_once: 0 },
            PlanNote::UpgradeWaits { done: 2, total: 10, in_ms: 90_000 },
            PlanNote::UpgradeHeld { unhealthy: 3, of: 10, max_percent: 20 },
            PlanNote::UpgradeFrozen { why: "a guard lets nothing be replaced".into() },
            PlanNote::Protected { surplus: 1 },
            PlanNote::Protected { surplus: 2 },
            PlanNote::ProtectedFromActions { instances: 1, failed: true },
            PlanNote::ProtectedFromActions { instances: 2, failed: false },
            PlanNote::Text("1 unhealthy: repair is off".into()),
        ]
    }

    #[test]
    fn notes_as_users_read_them() {
        let text: Vec<String> = all().iter().map(ToString::to_string).collect();
        let expected = [
            "3 instances short: launches failed, retrying in 2.5 s",
            "1 instance short: launches failed, retrying in 60 s",
            "2 instances short: the snapshot is being made",
            "2 instances short: the host is out of memory",
            "2 instances short: no node has reported capacity",
            "1500 instances short: creating 1000 now, the rest in later ticks",
            "4 instances short: launching one at a time until one stays in service",
            "1 instance unhealthy: repair is off",
            "40 instances unhealthy: replacing 2 now, at most 2 at a time",
            "1 instance unhealthy: a guard stops repair",
            "upgrade: 2 of 10 replaced; the next batch begins in 90 s",
            "upgrade waits: 3 of 10 instances are unhealthy, more than 20 % (upgrade.max_unhealthy)",
            "upgrade waits: a guard lets nothing be replaced",
            "1 surplus instance kept: protected from scale-in",
            "2 surplus instances kept: protected from scale-in",
            "1 failed instance kept: protected from all actions of the set",
            "2 unhealthy instances kept: protected from all actions of the set",
            "1 unhealthy: repair is off",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn every_note_reads_back_and_a_text_of_version_1_is_one() {
        let json = serde_json::to_string(&all()).expect("writes");
        assert!(json.starts_with(r#"[{"note":"launches-failed","short":3,"retry_in_ms":2500},"#), "{json}");
        assert_eq!(serde_json::from_str::<Vec<PlanNote>>(&json).expect("reads"), all());
        let old: PlanNote = serde_json::from_str(r#""3 missing: launches failed""#).expect("reads");
        assert_eq!(old, PlanNote::Text("3 missing: launches failed".into()));
        serde_json::from_str::<PlanNote>(r#"{"note":"unknown"}"#).expect_err("no note of ours");
    }
}
