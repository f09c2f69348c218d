//! The policies of a set: who is active in each slot, who acts within bounds, who is only judged.

use crate::event::{Event, EventKind};
use crate::manifest::PolicyLimits;
use crate::state::{CanaryPolicy, PolicyActivation, PolicySlot, SetState, ShadowPolicy};

use super::commands::{Change, Step};
use super::{CommandError, Done, Migration, NewPolicy, Placed, SetMachine, Switched};

/// Shadows of one set.
pub const SHADOWS_MAX: usize = 8;

/// A change of the set's policies whose new ones may still need migrated states.
#[derive(Debug)]
pub(super) struct Seating {
    pub(super) change: Change,
    pub(super) seats: Vec<Seat>,
    /// A swap: its event says how the state came to be.
    pub(super) switch: bool,
}

/// A new active policy.
#[derive(Debug)]
pub(super) struct Seat {
    /// Index of its slot.
    pub(super) place: usize,
    pub(super) state: Origin,
}

/// Where the state of a policy that follows another comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// This state, and how it came to be.
    Known(String, String),
    /// The old one's, once migrated; else this one.
    Migrated { migration: Migration, otherwise: (String, String) },
}

impl Origin {
    /// The state that `new` begins with when it follows `from`. The state of an earlier version is migrated; what cannot be
    /// is built anew.
    pub(super) fn of(new: &NewPolicy, from: Option<&PolicyActivation>, limits: PolicyLimits) -> Self {
        let anew = (new.activation.state.clone(), new.state_origin.clone());
        let Some(from) = from else { return Self::Known(anew.0, anew.1) };
        if new.activation.reads_state_of(from) {
            return Self::Known(from.state.clone(), "carried over".to_owned());
        }
        if new.activation.name != from.name || from.state.is_empty() {
            return Self::Known(anew.0, anew.1);
        }
        let migration = Migration {
            digest: new.activation.digest.clone(),
            from_version: from.state_version,
            state: from.state.clone(),
            limits,
        };
        Self::Migrated { migration, otherwise: anew }
    }
}

/// Shadows and canaries, with their slots.
fn candidates(state: &SetState) -> impl Iterator<Item = (&str, &PolicyActivation)> {
    let canaries = state
        .policies
        .iter()
        .filter_map(|slot| slot.canary.as_ref().map(|canary| (slot.name.as_str(), &canary.activation)));
    canaries.chain(state.shadows.iter().map(|shadow| (shadow.slot.as_str(), &shadow.activation)))
}

/// The shadows and canaries that a change ends without naming them, and why.
fn ended<'a>(
    before: &'a SetState,
    after: &'a SetState,
    named: Option<u64>,
) -> impl Iterator<Item = (&'a str, &'a PolicyActivation, String)> {
    let lost = candidates(before).filter(move |(_, it)| {
        named != Some(it.number) && candidates(after).all(|(_, kept)| kept.number != it.number)
    });
    lost.map(move |(slot, it)| {
        let role = if before.shadows.iter().any(|shadow| shadow.activation.number == it.number) {
            "shadow"
        } else {
            "canary"
        };
        let why = match after.slot(slot) {
            None => format!("the manifest has no slot {slot} anymore"),
            Some(now) if now.canary.is_some() => "another canary took its place".to_owned(),
            Some(now) => format!("slot {slot} now has {} {}", now.active.name, now.active.version),
        };
        (slot, it, format!("{role} {} {} (#{}) ended: {why}", it.name, it.version, it.number))
    })
}

/// What a manifest made of a slot.
pub(super) fn applied(before: Option<&PolicyActivation>, now: &PolicyActivation) -> String {
    let from = before.map(|before| format!("{} {} → ", before.name, before.version)).unwrap_or_default();
    format!("{from}{} {} from the manifest", now.name, now.version)
}

impl Seating {
    /// The states to be migrated, in the order of the seats.
    pub(super) fn migrations(&self) -> Vec<Migration> {
        let of = |seat: &Seat| match &seat.state {
            Origin::Known(..) => None,
            Origin::Migrated { migration, .. } => Some(migration.clone()),
        };
        self.seats.iter().filter_map(of).collect()
    }
}

impl SetMachine {
    /// Puts the states in; `migrated` has one for each of [`Seating::migrations`].
    pub(super) fn seated(&self, seating: Seating, migrated: Vec<Result<String, String>>) -> Change {
        let Seating { mut change, seats, switch } = seating;
        let mut migrated = migrated.into_iter();
        for Seat { place, state } in seats {
            let (state, origin) = match state {
                Origin::Known(state, origin) => (state, origin),
                Origin::Migrated { migration, otherwise: (state, origin) } => {
                    let version = migration.from_version;
                    match migrated.next() {
                        Some(Ok(state)) => (state, format!("migrated from version {version}")),
                        Some(Err(why)) => {
                            (state, format!("not migrated from version {version}: {why}; {origin}"))
                        }
                        None => (state, format!("not migrated from version {version}; {origin}")),
                    }
                }
            };
            let Some(slot) = change.next.policies.get_mut(place) else { continue };
            slot.active.state = state;
            if switch {
                change.text.push_str(&origin);
                if let (Done::Switched(switched), Some((_, activation))) =
                    (&mut change.done, &mut change.policy)
                {
                    switched.to = slot.active.clone();
                    switched.state_origin = origin;
                    activation.clone_from(&slot.active);
                }
            }
        }
        change
    }

    /// The slot that a command means.
    fn slot_index(&self, slot: Option<&str>) -> Result<usize, CommandError> {
        let set = &self.state.set.name;
        let names = || self.state.policies.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        match slot {
            Some(name) => self.state.policies.iter().position(|it| it.name == name).ok_or_else(|| {
                CommandError::NotFound(format!("set {set} has no policy slot {name}; it has: {}", names()))
            }),
            None if self.state.policies.len() == 1 => Ok(0),
            None => Err(CommandError::Conflict(format!(
                "set {set} has several policy slots ({}): choose one with --policy",
                names()
            ))),
        }
    }

    pub(super) fn swap(&self, slot: Option<&str>, policy: NewPolicy) -> Result<Step, CommandError> {
        let place = self.slot_index(slot)?;
        let PolicySlot { name, active: from, .. } = &self.state.policies[place];
        // Only now is it known what the old policy's last state is.
        let state = Origin::of(&policy, Some(from), self.limits_of(name));
        let how = EventKind::PolicySwapped;
        let change = self.install(place, policy.activation, how, String::new(), PolicySlot::take_over);
        let seats = vec![Seat { place, state }];
        Ok(Step::Seat(Box::new(Seating { change, seats, switch: true })))
    }

    pub(super) fn rollback(&self, slot: Option<&str>, to: Option<u64>) -> Result<Step, CommandError> {
        let place = self.slot_index(slot)?;
        let slot = &self.state.policies[place];
        let past: Vec<&PolicyActivation> = slot.past().collect();
        let index = match to {
            None => 0,
            Some(number) => past.iter().position(|it| it.number == number).unwrap_or(past.len()),
        };
        let Some(&target) = past.get(index) else {
            let SetState { set, .. } = &self.state;
            let (set, name) = (&set.name, &slot.name);
            let kept: Vec<String> = past.iter().map(|it| format!("#{}", it.number)).collect();
            return Err(CommandError::Conflict(match (to, kept.is_empty()) {
                (Some(number), false) => format!(
                    "slot {name} does not keep policy #{number}; it can roll back to {}; `regatta policy history {set}` shows \
                     digests, and `regatta policy swap {set} NAME@DIGEST` takes any of them",
                    kept.join(", ")
                ),
                _ => format!("no previous policy in slot {name}: nothing to roll back to"),
            }));
        };
        let origin = "as it was when the policy was replaced".to_owned();
        let how = EventKind::PolicyRolledBack;
        let change = self.install(place, target.clone(), how, origin, |slot, to| slot.go_back(index, to));
        Ok(Step::Store(Box::new(change)))
    }

    /// Makes a policy the active one. A canary of that slot ends.
    fn install(
        &self,
        place: usize,
        mut to: PolicyActivation,
        kind: EventKind,
        state_origin: String,
        seat: impl FnOnce(&mut PolicySlot, PolicyActivation),
    ) -> Change {
        let mut next = self.state.clone();
        // A shadow that is promoted is none anymore.
        next.shadows.retain(|shadow| shadow.activation.number != to.number);
        next.activations += 1;
        to.number = next.activations;
        to.since_ms = self.now.wall_ms;
        let slot = &mut next.policies[place];
        let from = slot.active.clone();
        seat(slot, to.clone());
        let slot = slot.name.clone();
        let text =
            format!("{} {} → {} {}, state {state_origin}", from.name, from.version, to.name, to.version);
        let switched = Switched {
            slot: slot.clone(),
            from,
            to: to.clone(),
            after_tick: self.state.last_tick,
            state_origin,
            ended: Vec::new(),
        };
        let change = Change::new(next, kind, text).about(&slot, &to);
        Change { done: Done::Switched(Box::new(switched)), ..change }
    }

    pub(super) fn shadow(&self, slot: Option<&str>, policy: &NewPolicy) -> Result<Step, CommandError> {
        let place = self.slot_index(slot)?;
        if self.state.shadows.len() >= SHADOWS_MAX {
            let set = &self.state.set.name;
            return Err(CommandError::Conflict(format!(
                "set {set} already has {SHADOWS_MAX} shadows; remove one first with `regatta policy drop {set} NUMBER`"
            )));
        }
        let mut next = self.state.clone();
        let (activation, slot) = self.candidate(&mut next, place, policy);
        next.shadows.push(ShadowPolicy { slot: slot.clone(), activation: activation.clone(), failure: None });
        let text =
            format!("{} {} runs as shadow #{}", activation.name, activation.version, activation.number);
        Ok(self.place(next, EventKind::PolicyShadowed, text, slot, activation))
    }

    pub(super) fn canary(
        &self,
        slot: Option<&str>,
        policy: &NewPolicy,
        within: u32,
    ) -> Result<Step, CommandError> {
        let place = self.slot_index(slot)?;
        let mut next = self.state.clone();
        let (activation, slot) = self.candidate(&mut next, place, policy);
        next.policies[place].canary = Some(CanaryPolicy { activation: activation.clone(), within });
        let text = format!(
            "{} {} runs as canary #{}, within {within} of the active policy",
            activation.name, activation.version, activation.number
        );
        Ok(self.place(next, EventKind::PolicyCanary, text, slot, activation))
    }

    fn place(
        &self,
        next: SetState,
        kind: EventKind,
        text: String,
        slot: String,
        activation: PolicyActivation,
    ) -> Step {
        let change = Change::new(next, kind, text).about(&slot, &activation);
        let placed = Placed { slot, activation, after_tick: self.state.last_tick, ended: Vec::new() };
        Step::Store(Box::new(Change { done: Done::Placed(Box::new(placed)), ..change }))
    }

    /// A number for a policy beside the active one.
    fn candidate(&self, next: &mut SetState, place: usize, policy: &NewPolicy) -> (PolicyActivation, String) {
        next.activations += 1;
        let (number, since_ms) = (next.activations, self.now.wall_ms);
        let activation = PolicyActivation { number, since_ms, ..policy.activation.clone() };
        (activation, self.state.policies[place].name.clone())
    }

    fn find_candidate(&self, number: Option<u64>) -> Result<(String, PolicyActivation), CommandError> {
        let set = &self.state.set.name;
        let found: Vec<_> = candidates(&self.state)
            .filter(|(_, it)| number.is_none_or(|number| it.number == number))
            .collect();
        match (found.as_slice(), number) {
            ([(slot, activation)], _) => Ok(((*slot).to_owned(), (*activation).clone())),
            ([], Some(number)) => {
                Err(CommandError::NotFound(format!("set {set} has no shadow or canary #{number}")))
            }
            ([], None) => Err(CommandError::Conflict(format!("set {set} has no shadow and no canary"))),
            (several, _) => {
                let numbers: Vec<String> = several.iter().map(|(_, it)| format!("#{}", it.number)).collect();
                let numbers = numbers.join(", ");
                Err(CommandError::Conflict(format!(
                    "set {set} has several shadows and canaries: choose one of {numbers}"
                )))
            }
        }
    }

    pub(super) fn promote(&self, number: Option<u64>) -> Result<Step, CommandError> {
        let (slot, activation) = self.find_candidate(number)?;
        let place = self.slot_index(Some(&slot))?;
        let named = Some(activation.number);
        let how = EventKind::PolicyPromoted;
        let change = self.install(place, activation, how, "its own".to_owned(), PolicySlot::take_over);
        Ok(Step::Store(Box::new(Change { named, ..change })))
    }

    pub(super) fn drop_candidate(&self, number: u64) -> Result<Step, CommandError> {
        let (slot, activation) = self.find_candidate(Some(number))?;
        let mut next = self.state.clone();
        next.shadows.retain(|shadow| shadow.activation.number != number);
        for slot in &mut next.policies {
            slot.canary = slot.canary.take().filter(|canary| canary.activation.number != number);
        }
        let text = format!("{} {} (#{number}) removed", activation.name, activation.version);
        let mut step = self.place(next, EventKind::PolicyDropped, text, slot, activation);
        if let Step::Store(change) = &mut step {
            change.named = Some(number);
        }
        Ok(step)
    }

    /// What else a change does to the policies, as events: shadows and canaries that end, policies that a manifest brings.
    pub(super) fn beside(&self, change: &mut Change, main: &Event) -> Vec<Event> {
        let ended: Vec<_> = ended(&self.state, &change.next, change.named).collect();
        let texts: Vec<String> = ended.iter().map(|(_, _, text)| text.clone()).collect();
        match &mut change.done {
            Done::Switched(switched) => switched.ended = texts,
            Done::Placed(placed) => placed.ended = texts,
            Done::Applied(ended) => *ended = texts,
            Done::Ok => {}
        }
        let event = |kind, slot: &str, activation: &PolicyActivation, text: String| Event {
            kind,
            text: text.into(),
            policy: Some(activation.as_ref_in(slot)),
            ..main.clone()
        };
        let mut events: Vec<Event> = ended
            .into_iter()
            .map(|(slot, activation, text)| event(EventKind::PolicyDropped, slot, activation, text))
            .collect();
        if main.kind == EventKind::ManifestApplied {
            for slot in &change.next.policies {
                let before = self.state.slot(&slot.name).map(|slot| &slot.active);
                if before.is_none_or(|before| before.number != slot.active.number) {
                    let text = applied(before, &slot.active);
                    events.push(event(EventKind::PolicyApplied, &slot.name, &slot.active, text));
                }
            }
        }
        events
    }
}
