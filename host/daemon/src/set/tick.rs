//! One tick: observe, decide, conclude, write down, act.

use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_core::admission::{Demand, Room};
use regatta_core::canary;
use regatta_core::decision::PolicyRun;
use regatta_core::instance_state::{InstanceEvent, InstanceState};
use regatta_core::manifest::PolicyLimits;
use regatta_core::narrate::events_of;
use regatta_core::observation::Observation;
use regatta_core::plan::{Action, RemovalCause, launch_backoff_ms};
use regatta_core::record::{CanaryRun, InstanceChange, PlanFacts, TickRecord};
use regatta_core::state::{Event, InstanceRecord, SetState};
use regatta_core::tick::{TickInput, conclude, last_decision};
use regatta_store::Batch;
use regatta_vmm::LaunchSpec;

use super::SetTask;
use super::driver::{Driver, Job, StopOrder};
use super::instance::Instance;
use super::policy::{Answer, Ask};
use crate::chain::chain;
use crate::clock::now_ms;
use crate::host_ledger::OPEN_FILES_PER_INSTANCE;

/// Between two looks at the size of the instances' logs.
const LOGS_LIMITED_EVERY: Duration = Duration::from_secs(60);
/// So much of each log is kept, from its end.
const LOG_KEPT_BYTES: u64 = 16 << 20;

/// What a tick is about to make true.
struct Intent {
    record: TickRecord,
    state: SetState,
    /// Instances as they will be, and how they came to be so.
    instances: Vec<(InstanceRecord, Option<InstanceChange>)>,
}

/// What the policies said in a tick.
#[derive(Default)]
struct Decided {
    runs: Vec<PolicyRun>,
    canaries: Vec<CanaryRun>,
    /// New states, by the number of the activation.
    states: Vec<(u64, String)>,
}

impl SetTask {
    pub(super) async fn tick(&mut self) {
        let now = now_ms();
        self.listen_again();
        self.limit_logs();
        self.look_after_snapshot().await;
        self.follow_events();
        self.give_up_slow_boots(now);
        self.sample(now);
        let observation = Arc::new(self.observe(now));
        let decided = self.decide(&observation).await;
        let input = TickInput {
            observation: observation.as_ref().clone(),
            changes: self.changes.clone(),
            operator: self.operator.clone(),
            facts: self.facts(),
            runs: decided.runs,
            canaries: decided.canaries,
            shadows: self.shadows.waiting(),
            wanted_metrics: self.wanted_metrics(),
        };
        let record = conclude(&self.state.set, input);
        let intent = self.intend(record, decided.states);
        match self.write_down(&intent).await {
            Ok(()) => {
                self.act(intent);
                self.ask_shadows(&observation);
            }
            Err(why) => self.leave_it(&intent, why),
        }
    }

    /// Instances that have had their time to become healthy.
    fn give_up_slow_boots(&mut self, now_ms: u64) {
        let timeout_ms = self.state.set.instance.boot_timeout_ms;
        let slow: Vec<u32> = self
            .instances
            .values()
            .map(|instance| &instance.record)
            .filter(|record| matches!(record.state, InstanceState::Booting | InstanceState::Initializing))
            // An instance does not pay for the time that the daemon was away.
            .filter(|record| {
                now_ms.saturating_sub(record.created_ms.max(record.rebooted_ms).max(self.since_ms))
                    > timeout_ms
            })
            .map(|record| record.id)
            .collect();
        for id in slow {
            let last = self
                .instances
                .get(&id)
                .and_then(|i| i.watch.as_ref())
                .and_then(super::watch::Watch::last_probe);
            let last = last.map(|last| format!(", last probe: {last}")).unwrap_or_default();
            self.meet(
                id,
                InstanceEvent::BootTimedOut,
                Some(format!("not healthy after {timeout_ms} ms{last}")),
            );
        }
    }

    /// Runs all policies that act, at once, each on a thread of its own.
    async fn decide(&self, observation: &Arc<Observation>) -> Decided {
        if self.state.deleting {
            return Decided::default();
        }
        let asks = self.state.policies.iter().flat_map(|slot| {
            let limits = self.limits_of(&slot.name);
            let ask = |activation| Ask::new(&slot.name, activation, &self.ready, limits);
            let canary = slot.canary.as_ref().map(|canary| (ask(&canary.activation), Some(canary.within)));
            std::iter::once((ask(&slot.active), None)).chain(canary)
        });
        let answers =
            asks.map(|(ask, within)| async move { (ask.decide(Arc::clone(observation)).await, within) });
        let mut decided = Decided::default();
        for (answer, within) in futures::future::join_all(answers.collect::<Vec<_>>()).await {
            let Answer { number, run, state } = answer;
            self.shared.exposition.policy_ran(&self.state.set.name, &run);
            decided.states.extend(state.map(|state| (number, state)));
            match within {
                Some(within) => decided.canaries.push(CanaryRun { within, run }),
                None => decided.runs.push(run),
            }
        }
        decided
    }

    /// What a decision for that place may cost.
    pub(super) fn limits_of(&self, slot: &str) -> PolicyLimits {
        let spec = self.state.set.policies.iter().find(|spec| spec.name == slot);
        spec.map_or_else(PolicyLimits::default, |spec| spec.limits)
    }

    /// Names of the metrics that the policies which act ask for, each once.
    fn wanted_metrics(&self) -> Vec<String> {
        let mut wanted: Vec<String> = Vec::new();
        for slot in &self.state.policies {
            let canary = slot.canary.as_ref().map(|canary| &canary.activation);
            for name in
                std::iter::once(&slot.active).chain(canary).flat_map(|it| self.ready.wanted_metrics(it))
            {
                if !wanted.contains(&name) {
                    wanted.push(name);
                }
            }
        }
        wanted
    }

    fn facts(&self) -> PlanFacts {
        let drained = |instance: &&Instance| {
            instance.record.state == InstanceState::Draining
                && self.load_balancer.as_ref().is_none_or(|lb| lb.drain_state(instance.record.id).open == 0)
        };
        PlanFacts {
            drained: self.instances.values().filter(drained).map(|instance| instance.record.id).collect(),
            next_id: self.state.next_instance_id,
            launches_resume_ms: self.state.launches_resume_ms,
            deleting: self.state.deleting,
            room: self.room(),
            hold: self.warm.hold(self.state.set.instance.start),
        }
    }

    /// Where the host is short of room for all that the set may want.
    fn room(&self) -> Option<Room> {
        let there = self.instances.values().filter(|i| i.record.state.counts_as_capacity()).count();
        let wanted = self.state.set.capacity.max.saturating_sub(u32::try_from(there).unwrap_or(u32::MAX));
        let (launches, shortage) = self.shared.ledger.room(self.demand(), wanted);
        shortage.map(|shortage| Room { launches, why: shortage.to_string() })
    }

    /// What an instance takes of the host.
    pub(super) fn demand(&self) -> Demand {
        let template = &self.state.set.instance;
        Demand {
            memory_bytes: template.memory_bytes,
            vcpus: template.vcpus.into(),
            disk_bytes: self.images.disk_demand_bytes(&self.state.set),
            open_files: OPEN_FILES_PER_INSTANCE,
        }
    }

    /// Works out what the record's plan makes of state and instances, without touching either.
    fn intend(&self, mut record: TickRecord, policy_states: Vec<(u64, String)>) -> Intent {
        let now = record.observation.now_ms;
        let mut state = self.state.clone();
        state.desired = record.guards.granted;
        state.last_tick = record.observation.tick;
        for slot in &mut state.policies {
            for activation in
                std::iter::once(&mut slot.active).chain(slot.canary.as_mut().map(|it| &mut it.activation))
            {
                let new = policy_states.iter().find(|(number, _)| *number == activation.number);
                if let Some((_, new)) = new {
                    activation.state.clone_from(new);
                }
            }
            // A policy on trial that failed is not given another tick.
            if canary::failed(&record.canaries).any(|(run, _)| run.slot == slot.name) {
                slot.canary = None;
            }
        }
        // A launch that the daemon's own end cut off says nothing about the image.
        let cut_off = |change: &InstanceChange| {
            change.from == InstanceState::Creating && change.event == InstanceEvent::VmmExited
        };
        let launch_failed = |change: &InstanceChange| {
            change.to == InstanceState::Failed
                && !cut_off(change)
                && self.instances.get(&change.id).is_some_and(|i| !i.record.served)
        };
        if record.changes.iter().any(launch_failed) {
            state.launch_failures_in_a_row = state.launch_failures_in_a_row.saturating_add(1);
            state.launches_resume_ms = now + launch_backoff_ms(state.launch_failures_in_a_row);
        }

        let mut instances = Vec::new();
        let mut without_address = 0;
        let mut without_room = None;
        let demand = self.demand();
        record.plan.actions.retain(|action| match *action {
            Action::Create { id } => {
                // Sets that tick at the same time may have taken what the plan counts on.
                if let Err(shortage) = self.shared.ledger.take(&state.set.name, id, demand) {
                    without_room = Some(shortage);
                    return false;
                }
                let Some(address) = self.shared.addresses.take(&state.set.network) else {
                    self.shared.ledger.release(&state.set.name, id);
                    without_address += 1;
                    return false;
                };
                state.next_instance_id = state.next_instance_id.max(id + 1);
                instances.push((InstanceRecord::pending(id, now, state.generation, address), None));
                true
            }
            Action::Drain { id, .. } => self.staged(id, InstanceEvent::DrainRequested, now, &mut instances),
            Action::Terminate { id, .. } => {
                self.staged(id, InstanceEvent::TerminateRequested, now, &mut instances)
            }
        });
        if without_address > 0 {
            record.plan.notes.push(format!("{without_address} missing: the address pool is used up"));
        }
        if let Some(shortage) = without_room {
            record.plan.notes.push(shortage.to_string());
        }
        Intent { record, state, instances }
    }

    fn staged(
        &self,
        id: u32,
        event: InstanceEvent,
        now: u64,
        instances: &mut Vec<(InstanceRecord, Option<InstanceChange>)>,
    ) -> bool {
        let Some(instance) = self.instances.get(&id) else { return false };
        let mut record = instance.record.clone();
        let detail = record.detail.clone();
        match record.meet(event, now, detail) {
            Ok(Some(change)) => {
                instances.push((record, Some(change)));
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// One transaction: nothing is acted on that is not written down.
    async fn write_down(&self, intent: &Intent) -> Result<(), String> {
        let name = &self.state.set.name;
        let staged = |id: u32| intent.instances.iter().any(|(record, _)| record.id == id);
        let dirty = self.instances.values().filter(|i| i.dirty && !staged(i.record.id)).map(|i| &i.record);
        let gone = |record: &&InstanceRecord| record.state == InstanceState::Gone;
        let (gone, kept): (Vec<_>, Vec<_>) = dirty.partition(gone);

        let mut events = events_of(&intent.record, self.last.as_deref());
        let nothing_left = self.instances.values().all(|i| i.record.state == InstanceState::Gone);
        let removed =
            self.state.deleting && nothing_left && intent.instances.is_empty() && self.warm.is_idle();
        events.extend(self.told.iter().cloned());
        if removed {
            events.push(Event {
                at_ms: intent.record.observation.now_ms,
                set: name.clone(),
                kind: "set-deleted".into(),
                instance: None,
                text: format!("{name} is gone"),
                actor: "daemon".into(),
                policy: None,
            });
        }
        let of_set = |record: &InstanceRecord| (name.clone(), record.clone());
        let mut batch = Batch { events, ..Batch::default() };
        if removed {
            batch.removed_sets.push(name.clone());
        } else {
            batch.sets.push(intent.state.clone());
            batch.instances = kept.into_iter().map(of_set).collect();
            batch.instances.extend(intent.instances.iter().map(|(record, _)| of_set(record)));
            batch.removed_instances = gone.into_iter().map(|record| (name.clone(), record.id)).collect();
            batch.records.push(intent.record.clone());
        }
        self.shared.writer.commit(batch).await.map_err(|error| chain(&error))
    }

    /// What was written down becomes true.
    fn act(&mut self, intent: Intent) {
        let Intent { record, state, instances } = intent;
        self.store_error = None;
        self.state = state;
        self.ready.retain_of(&self.state);
        self.shadows.written(record.shadows.len());
        self.changes.clear();
        self.operator.clear();
        self.told.clear();
        self.instances.retain(|_, instance| {
            let kept = instance.record.state != InstanceState::Gone;
            if !kept {
                self.shared.addresses.release(instance.record.address);
                self.shared.ledger.release(&self.state.set.name, instance.record.id);
            }
            kept
        });
        for instance in self.instances.values_mut() {
            instance.dirty = false;
        }
        for (staged, change) in instances {
            let id = staged.id;
            match self.instances.get_mut(&id) {
                Some(instance) => {
                    instance.record = staged;
                    instance.settle();
                    instance.dirty = false;
                }
                None => drop(self.instances.insert(id, Instance::new(staged, false))),
            }
            self.changes.extend(change);
        }
        for action in &record.plan.actions {
            match *action {
                Action::Create { id } => self.launch(id),
                Action::Drain { .. } => {}
                Action::Terminate { id, cause } => self.terminate(id, cause),
            }
        }
        self.end_what_ended();
        self.last_decision = Some(last_decision(&record));
        self.shared.exposition.ticked(&record);
        self.last = Some(Arc::new(record));
        self.shared.events.notify_waiters();
    }

    /// The tick could not be written down: nothing of it happens. What was seen
    /// is kept for the next one.
    fn leave_it(&mut self, intent: &Intent, why: String) {
        for (record, change) in &intent.instances {
            if change.is_none() {
                self.shared.addresses.release(record.address);
                self.shared.ledger.release(&self.state.set.name, record.id);
            }
        }
        if self.store_error.is_none() {
            tracing::error!(
                set = self.state.set.name,
                why,
                "nothing can be written down: the set stays as it is"
            );
        }
        self.store_error = Some(format!("the store cannot be written, the set stays as it is: {why}"));
    }

    /// Orders the removal of instances that came to be terminating without a
    /// plan: their VMM ended while they were drained.
    fn end_what_ended(&mut self) {
        let ended = |instance: &&Instance| {
            instance.record.state == InstanceState::Terminating
                && !instance.driver.as_ref().is_some_and(Driver::is_stopping)
        };
        let ended: Vec<u32> = self.instances.values().filter(ended).map(|i| i.record.id).collect();
        for id in ended {
            self.terminate(id, RemovalCause::Failed);
        }
    }

    /// Guests can print without end; nobody else shortens their logs.
    fn limit_logs(&mut self) {
        if self.logs_limited.elapsed() < LOGS_LIMITED_EVERY {
            return;
        }
        self.logs_limited = Instant::now();
        let dirs: Vec<_> =
            self.instances.values().filter_map(|i| i.vmm.as_ref()).map(|v| v.dir().clone()).collect();
        tokio::task::spawn_blocking(move || {
            for dir in dirs {
                if let Err(error) = dir.limit_logs(LOG_KEPT_BYTES) {
                    tracing::debug!(instance = dir.id(), error = chain(&error), "its logs grow on");
                }
            }
        });
    }

    fn launch(&mut self, id: u32) {
        let Some(instance) = self.instances.get(&id) else { return };
        let spec = self
            .dir_of(id)
            .map_err(|error| chain(&error))
            .and_then(|dir| self.images.launch_spec(&self.state.set, &instance.record, dir));
        match spec {
            Ok(spec) => {
                let start = self.warm.start(self.state.set.instance.start);
                let spec = LaunchSpec { start, ..spec };
                self.drive(id, Job::Launch(Box::new(spec)));
            }
            Err(why) => self.meet(id, InstanceEvent::LaunchFailed, Some(why)),
        }
    }

    pub(super) fn drive(&mut self, id: u32, job: Job) {
        let driver = Driver::start(id, job, Arc::clone(&self.shared.vmms), self.news.clone());
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.driver = Some(driver);
        }
    }

    /// Orders the end of an instance whose termination is written down.
    pub(super) fn terminate(&mut self, id: u32, cause: RemovalCause) {
        if let Some(load_balancer) = &self.load_balancer {
            load_balancer.cut(id);
        }
        // Only a guest that has served and is well is asked to shut down: one
        // that still boots or is broken would not hear it.
        let grace = match cause {
            RemovalCause::Drained | RemovalCause::DrainTimeout => {
                Duration::from_millis(self.state.set.instance.shutdown_timeout_ms)
            }
            RemovalCause::ScaleIn | RemovalCause::Failed | RemovalCause::Unhealthy => Duration::ZERO,
        };
        let Some(instance) = self.instances.get(&id) else { return };
        if let Some(driver) = &instance.driver {
            // What went wrong in a guest that runs on is in its logs.
            let failure = instance.record.detail.clone().filter(|_| cause == RemovalCause::Failed);
            driver.stop(StopOrder { grace, failure });
            return;
        }
        match self.dir_of(id) {
            Ok(dir) => {
                // Only one that had run has left logs of interest.
                let failure = instance.record.vmm.and_then(|_| instance.record.detail.clone());
                self.drive(id, Job::Remains { dir, failure });
                if let Some(driver) = self.instances.get(&id).and_then(|i| i.driver.as_ref()) {
                    driver.stop(StopOrder { grace, failure: None });
                }
            }
            // Without a directory there is nothing to remove.
            Err(_) => self.meet(id, InstanceEvent::Cleaned, None),
        }
    }
}
