//! VMs and instance directories that no stored set knows: listed, and removed when an operator says so.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use regatta_core::batch::{Batch, History};
use regatta_core::event::{Actor, Event, EventKind};

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::recovery_types::{
    ConditionKind, DaemonCondition, DeleteOrphansOutcome, DeleteOrphansRequest, FailedOrphan, OrphanInfo,
    RemovedOrphan,
};
use crate::api::types::ErrorCode;
use crate::clock;
use crate::node::Orphan;
use regatta_util::chain;

/// How long the guest of an orphan may take to shut down: what manifests say unless they say otherwise.
const GRACE: Duration = Duration::from_secs(30);
/// Names that a message gives in full.
const NAMED: usize = 5;

/// By set and instance, as their directories are named.
pub(super) type Orphans = BTreeMap<(String, String), Orphan>;

impl Fleet {
    pub(super) fn orphans_now(&self) -> MutexGuard<'_, Orphans> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells that something was found that no stored set knows. Written down once, told in the log at each start.
    pub(super) async fn adopt_orphans(&self, found: Vec<(Orphan, bool)>) {
        let mut events = Vec::new();
        for (orphan, is_new) in found {
            let (name, why) = (orphan.name(), orphan.why);
            let pid = orphan.process.as_ref().map(|process| process.pid);
            let path = orphan.dir.path().display().to_string();
            match pid {
                Some(pid) => tracing::error!(
                    orphan = name, pid, path, %why,
                    "a VM runs that the store does not know; it is kept: `regatta recover`, or `regatta orphans delete`"
                ),
                None => tracing::warn!(
                    orphan = name, path, %why,
                    "an instance directory that the store does not know; it is kept: `regatta orphans`"
                ),
            }
            if is_new {
                let what = if pid.is_some() { "a VM runs" } else { "a directory was found" };
                let text = format!("{name} is an orphan: {what}, and {why}; it is kept");
                events.push(event_of(&orphan, EventKind::OrphanFound, text, Actor::Daemon));
            }
            self.orphans_now().insert((orphan.dir.set().to_owned(), orphan.dir.id().to_owned()), orphan);
        }
        self.tell(events).await;
    }

    /// Writes events down. What they tell of has happened, whether that succeeds or not.
    pub(super) async fn tell(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let batch = Batch { history: History { events, records: Vec::new() }, ..Batch::default() };
        if let Err(why) = self.shared.commit(batch).await {
            tracing::warn!(why = chain(&why), "events are lost");
        }
        self.shared.events.notify_waiters();
    }

    /// Orphans whose VMM has ended meanwhile take nothing any more; their directories stay.
    pub(super) fn look_after_orphans(&self) {
        for orphan in self.orphans_now().values_mut() {
            if orphan.process.take_if(|process| !process.is_running()).is_some() {
                tracing::warn!(
                    orphan = orphan.name(),
                    "the VMM of an orphan has ended; its directory is kept"
                );
                self.shared.node.give_orphan_back(orphan);
            }
        }
    }

    pub(super) fn list_orphans(&self) -> Vec<OrphanInfo> {
        self.look_after_orphans();
        self.orphans_now().values().map(info).collect()
    }

    /// What `status` says of orphans.
    pub(super) fn orphan_condition(&self) -> Option<DaemonCondition> {
        self.look_after_orphans();
        let orphans = self.orphans_now();
        if orphans.is_empty() {
            return None;
        }
        let running = orphans.values().filter(|orphan| orphan.process.is_some()).count();
        let message = format!(
            "{} that no stored set knows, {running} running ({}): adopt with `regatta recover`, or remove with \
             `regatta orphans delete`",
            counted(orphans.len()),
            named(orphans.values())
        );
        Some(DaemonCondition { kind: ConditionKind::Orphans, message })
    }

    /// Refuses a new set of a name that orphans have: its instances would meet their directories and addresses.
    pub(super) fn refuse_over_orphans(&self, set: &str) -> Answer<()> {
        let orphans = self.orphans_now();
        let of_name: Vec<&Orphan> = orphans.values().filter(|orphan| orphan.dir.set() == set).collect();
        if of_name.is_empty() {
            return Ok(());
        }
        let message = format!(
            "set {set}: {} of that name that no stored set knows ({}), nothing was applied: adopt with `regatta \
             recover {set}`, or remove with `regatta orphans delete {set}`",
            counted(of_name.len()),
            named(of_name.iter().copied())
        );
        Err(error(ErrorCode::Conflict, message))
    }

    pub(super) async fn remove_orphans(
        &self,
        request: DeleteOrphansRequest,
        actor: &str,
    ) -> Answer<DeleteOrphansOutcome> {
        let _one_at_a_time = self.orphan_work.lock().await;
        let chosen = self.choose_orphans(&request.names)?;
        let removals = chosen.into_iter().map(|orphan| async move {
            let removed = self.shared.node.remove_orphan(&orphan, GRACE).await;
            (orphan, removed)
        });
        let mut outcome = DeleteOrphansOutcome::default();
        let mut events = Vec::new();
        for (orphan, removed) in futures::future::join_all(removals.collect::<Vec<_>>()).await {
            let name = orphan.name();
            match removed {
                Ok(how) => {
                    self.orphans_now().remove(&(orphan.dir.set().to_owned(), orphan.dir.id().to_owned()));
                    let text = format!("orphan {name} removed: {how}");
                    events.push(event_of(&orphan, EventKind::OrphanRemoved, text, actor.into()));
                    outcome.removed.push(RemovedOrphan { name, how });
                }
                Err(why) => outcome.failed.push(FailedOrphan { name, why }),
            }
        }
        self.tell(events).await;
        Ok(outcome)
    }

    /// The orphans that these names mean; all names that mean none at once.
    fn choose_orphans(&self, names: &[String]) -> Answer<Vec<Orphan>> {
        let orphans = self.orphans_now();
        let mut chosen = BTreeMap::new();
        let mut unknown = Vec::new();
        for name in names {
            let meant: Vec<&Orphan> =
                orphans.values().filter(|it| it.dir.set() == name || it.name() == *name).collect();
            if meant.is_empty() {
                unknown.push(name.as_str());
            }
            chosen.extend(meant.into_iter().map(|orphan| (orphan.name(), orphan.clone())));
        }
        if unknown.is_empty() && !names.is_empty() {
            return Ok(chosen.into_values().collect());
        }
        let there = if orphans.is_empty() { "there are none".to_owned() } else { named(orphans.values()) };
        let what = if names.is_empty() { "no orphan is named".to_owned() } else { unknown.join(", ") };
        Err(error(
            ErrorCode::NotFound,
            format!("not an orphan: {what}; nothing was removed (orphans: {there})"),
        ))
    }
}

/// An event about an orphan.
pub(super) fn event_of(orphan: &Orphan, kind: EventKind, text: String, actor: Actor) -> Event {
    Event {
        at_ms: clock::now_ms(),
        set: orphan.dir.set().to_owned(),
        kind,
        instance: orphan.dir.id().parse().ok(),
        text: text.into(),
        actor,
        policy: None,
    }
}

fn info(orphan: &Orphan) -> OrphanInfo {
    let identity = orphan.birth.as_ref().map(|birth| &birth.identity);
    OrphanInfo {
        name: orphan.name(),
        uid: identity.map(|identity| identity.uid.clone()).filter(|uid| !uid.is_empty()),
        generation: identity.map(|identity| identity.generation),
        since_ms: orphan.since_ms,
        address: identity.map(|it| it.address).filter(|it| !it.is_unspecified()).map(|it| it.to_string()),
        pid: orphan.process.as_ref().map(|process| process.pid),
        why: orphan.why.to_string(),
    }
}

fn counted(count: usize) -> String {
    if count == 1 { "1 orphan".to_owned() } else { format!("{count} orphans") }
}

/// The first of them by name.
fn named<'a>(orphans: impl Iterator<Item = &'a Orphan>) -> String {
    let mut names: Vec<String> = orphans.map(Orphan::name).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", names.join(", "))
}
