//! What must hold in every world, after every step. Each has a name; the first that is broken ends the run.
//!
//! | name | what |
//! | --- | --- |
//! | `guarded` | a batch says which revision it expects of its set |
//! | `ticks`, `ids` | numbers of ticks, ids and unique ids are never used twice; counters never go back |
//! | `phases` | no phase is left that is final; an instance leaves the store only after its removal |
//! | `intent` | every action of a stored plan is stored as the phase that it leads to |
//! | `generation` | a tick is decided by the manifest and the policies that are stored, with the states that are stored |
//! | `minimum`, `maximum`, `canary` | missing data and failures never scale in; limits bind; a canary stays near |
//! | `cooldown` | nothing grows again before its cooldown is over |
//! | `hold` | nothing but the limits moves a size that is held; a hold ends with its time |
//! | `override` | other limits count for their time and no longer |
//! | `schedule` | the entries that cover the moment are in force; the capacity of each beginning counts once |
//! | `freeze` | nothing that serves is removed from a frozen set; a freeze ends with its time |
//! | `protected` | no protected instance goes for a scale-in |
//! | `upgrade`, `floor`, `bake` | an upgrade replaces only what is outdated, keeps enough in service, waits at its checkpoints, and ends when its instances fail |
//! | `protected` | no protected instance goes for a scale-in; one protected from all actions does not go at all |
//! | `boot-time`, `repair-time`, `drain-time`, `back-off` | nothing expires before its time has been lived |
//! | `replay` | a stored record decides itself again |
//! | `launch`, `stop`, `restart` | what is launched, stopped or restarted is stored as such |
//! | `suspended` | what is suspended does not happen |
//! | `in-vain` | repair that does not help suspends itself |
//! | `requested` | only what an operator asked for goes because of that, and it is carried out |
//! | `unique` | no two live instances with one address, one directory or one unique id |
//! | `accounted` | everything on the node has its record in the store |
//! | `death` | nothing that runs is called dead |
//! | `drained` | what ends as drained has no connection and gets none |
//! | `no-data` | a metric without a sample never reads as a value |
//! | `replies` | one reply to each command, and it is true by then |
//! | `reload` | no machine starts over without a reason |
//! | `settles` | when faults stop, every set comes to what is wanted, and nothing is left over |

mod act;
mod commit;
mod limits;
mod node;
mod settle;
mod sizing;
mod time;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};

use regatta_core::machine::Token;

pub(crate) use self::settle::unsettled;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which; see the table above.
    pub invariant: &'static str,
    /// How.
    pub text: String,
}

/// What the invariants remember of a world.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) violation: Option<Violation>,
    /// When the present tick of a set began, on the clock of lived time.
    tick_awake_ms: BTreeMap<String, u64>,
    /// Unique ids that were ever stored, and when they were, in lived time.
    created_ms: BTreeMap<String, u64>,
    /// Unique ids that were ever launched.
    launched: BTreeSet<String>,
    /// Unique ids that drain, and since when.
    drains_since_ms: BTreeMap<String, u64>,
    /// Instances whose probes fail, and since when their machine may know.
    unhealthy_since_ms: BTreeMap<(String, u32), u64>,
    /// When a launch of a set last failed, and how many had in a row.
    failed_launch: BTreeMap<String, (u64, u32, u64)>,
    /// Instances of which a sample ever reached their machine, by unique id.
    sampled: BTreeSet<String>,
    /// Sets for which the answer of the store was lost.
    answers_lost: BTreeSet<String>,
    /// Commands without a reply.
    asked: BTreeMap<Token, act::Asked>,
    /// When a tick last let a set grow, in its lived time, by incarnation and generation.
    grew_ms: BTreeMap<String, ((u64, u64), u64)>,
    /// Since when an upgrade is at its present batch, in lived time.
    batch_since_ms: BTreeMap<String, u64>,
    records: u64,
}

impl Checks {
    /// Remembers the first broken promise.
    pub(crate) fn fail(&mut self, invariant: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { invariant, text: text() });
        }
    }

    fn hold(&mut self, holds: bool, invariant: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.fail(invariant, text);
        }
    }

    /// A tick reaches a machine that is not busy.
    pub(crate) fn on_tick(&mut self, set: &str, awake_ms: u64) {
        self.tick_awake_ms.insert(set.to_owned(), awake_ms);
    }

    /// The store has stored, and said that it had not.
    pub(crate) fn on_answer_lost(&mut self, set: &str) {
        self.answers_lost.insert(set.to_owned());
    }

    /// A machine starts over.
    pub(crate) fn on_reload(&mut self, set: &str, why: &str) {
        let known = self.answers_lost.remove(set);
        self.hold(known, "reload", || format!("set {set} is read again although no answer was lost: {why}"));
    }

    /// A sample reaches a machine.
    pub(crate) fn on_sample(&mut self, uid: &str) {
        if !self.sampled.contains(uid) {
            self.sampled.insert(uid.to_owned());
        }
    }
}
