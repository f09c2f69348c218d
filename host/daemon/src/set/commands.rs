//! What operators do to a set, between two ticks. Each is written down before it
//! is true, and before it is answered.

use regatta_core::manifest::ScaleSet;
use regatta_core::state::{Event, PolicyActivation, PolicyRef, SetState};
use regatta_store::Batch;
use regatta_traffic::LoadBalancer;
use tokio::sync::oneshot;

use super::policy::NewPolicy;
use super::policy_commands::PolicyCommand;
use super::{SetTask, observe};
use crate::chain::chain;
use crate::clock::now_ms;
use crate::images::SetImages;

/// A manifest with what it names.
pub(crate) struct Manifest {
    /// The set.
    pub(crate) set: ScaleSet,
    /// What its instances start from.
    pub(crate) images: SetImages,
    /// Its policies, in its order; none keeps the one that has that place.
    pub(crate) policies: Vec<Option<NewPolicy>>,
}

/// A command, with where its answer goes.
pub(crate) enum Command {
    /// Another manifest, already checked. The module of its policy is stored.
    Update {
        /// The manifest.
        manifest: Box<Manifest>,
        /// Who.
        actor: String,
        /// The new generation.
        reply: oneshot::Sender<Result<u64, CommandError>>,
    },
    /// Another capacity.
    Scale {
        /// The capacity.
        capacity: u32,
        /// Who.
        actor: String,
        /// Done.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// Protection of an instance from scale-in.
    Protect {
        /// Which.
        id: u32,
        /// Or no longer.
        protected: bool,
        /// Who.
        actor: String,
        /// Done.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    /// What concerns its policies.
    Policy(Box<PolicyCommand>),
    /// The end of the set.
    Delete {
        /// Who.
        actor: String,
        /// Begun.
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
}

/// Why a command was not carried out; nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// Not in the present state.
    Conflict(String),
    /// There is no such thing.
    NotFound(String),
    /// The store cannot be written.
    Store(String),
}

/// What the event log says of a change.
pub(super) struct Told {
    kind: &'static str,
    text: String,
    policy: Option<PolicyRef>,
}

impl Told {
    pub(super) fn new(kind: &'static str, text: String) -> Self {
        Self { kind, text, policy: None }
    }

    /// It is about this policy.
    pub(super) fn of(self, slot: &str, activation: &PolicyActivation) -> Self {
        Self { policy: Some(activation.as_ref_in(slot)), ..self }
    }
}

impl SetTask {
    pub(super) async fn on_command(&mut self, command: Command) {
        // A caller that has gone away does not want its answer.
        match command {
            Command::Update { manifest, actor, reply } => {
                let _ = reply.send(self.update(*manifest, &actor).await);
            }
            Command::Scale { capacity, actor, reply } => {
                let _ = reply.send(self.scale(capacity, &actor).await);
            }
            Command::Protect { id, protected, actor, reply } => {
                let _ = reply.send(self.protect(id, protected, &actor).await);
            }
            Command::Policy(command) => self.on_policy_command(*command).await,
            Command::Delete { actor, reply } => {
                let _ = reply.send(self.delete(&actor).await);
            }
        }
    }

    async fn update(&mut self, manifest: Manifest, actor: &str) -> Result<u64, CommandError> {
        let Manifest { set, images, policies } = manifest;
        self.refuse_if_deleting()?;
        let load_balancer = self.listen(&set)?;
        let mut next = SetState {
            generation: self.state.generation + 1,
            image: images.digests(),
            // A new manifest may mend what kept launches from succeeding.
            launch_failures_in_a_row: 0,
            launches_resume_ms: 0,
            set,
            ..self.state.clone()
        };
        let ready = self.seat(&mut next, policies).await;
        let text = format!("generation {} is in force", next.generation);
        if let Err(why) = self.write(next, Told::new("manifest-applied", text), actor).await {
            self.listen_as_before();
            return Err(why);
        }
        self.images = images;
        for (number, compiled) in ready {
            self.ready.insert(number, Ok(compiled));
        }
        self.load_balancer = load_balancer.or_else(|| {
            let keep = self.state.set.load_balancer.is_some();
            self.load_balancer.take().filter(|_| keep)
        });
        if let (Some(load_balancer), Some(spec)) = (&self.load_balancer, &self.state.set.load_balancer) {
            load_balancer.set_max_connections(spec.max_connections);
        }
        self.windows.reconfigure(observe::specs_of(&self.state.set));
        self.watch_again();
        Ok(self.state.generation)
    }

    /// Listens where the manifest wants it. A listener that moves keeps its open
    /// connections; a new one is returned. One that is no longer wanted stays
    /// until the manifest is written down.
    fn listen(&self, set: &ScaleSet) -> Result<Option<LoadBalancer>, CommandError> {
        let Some(spec) = &set.load_balancer else { return Ok(None) };
        let conflict = |error| CommandError::Conflict(chain(&error));
        match &self.load_balancer {
            Some(present) => present.rebind(spec.listen).map(|()| None).map_err(conflict),
            None => super::bind(spec).map(Some).map_err(conflict),
        }
    }

    /// A load balancer that could not listen when the daemon came back tries again
    /// at each tick: whoever holds the address may let go of it.
    pub(super) fn listen_again(&mut self) {
        if self.load_balancer.is_some() || self.state.deleting {
            return;
        }
        let why = match self.listen(&self.state.set) {
            Ok(listening) => {
                self.load_balancer = listening;
                self.listen_error = None;
                return;
            }
            Err(CommandError::Conflict(why) | CommandError::NotFound(why) | CommandError::Store(why)) => why,
        };
        if self.listen_error.is_none() {
            tracing::error!(set = self.state.set.name, why, "the load balancer cannot listen");
        }
        self.listen_error = Some(format!("the load balancer cannot listen, it tries again: {why}"));
    }

    /// Takes a listener back to where the manifest in force wants it.
    fn listen_as_before(&self) {
        if let (Some(load_balancer), Some(spec)) = (&self.load_balancer, &self.state.set.load_balancer)
            && let Err(why) = load_balancer.rebind(spec.listen)
        {
            tracing::error!(set = self.state.set.name, why = chain(&why), "the load balancer cannot go back");
        }
    }

    /// Probes and scrapes follow the manifest.
    fn watch_again(&mut self) {
        for instance in self.instances.values_mut().filter(|instance| instance.watch.is_some()) {
            instance.watch = super::watch::start(
                &self.shared.watching,
                &self.state.set,
                &instance.record,
                &self.probes,
                &self.scrapes,
            );
        }
    }

    async fn scale(&mut self, capacity: u32, actor: &str) -> Result<(), CommandError> {
        self.refuse_if_deleting()?;
        let limits = self.state.set.capacity;
        if !(limits.min..=limits.max).contains(&capacity) {
            return Err(CommandError::Conflict(format!(
                "{capacity} is outside of the set's capacity, {} to {}: change the manifest first",
                limits.min, limits.max
            )));
        }
        let text = format!("capacity {} → {capacity} by hand", self.state.desired);
        let next = SetState { desired: capacity, ..self.state.clone() };
        self.write(next, Told::new("scaled-by-hand", text), actor).await
    }

    async fn protect(&mut self, id: u32, protected: bool, actor: &str) -> Result<(), CommandError> {
        let name = format!("{}-{id}", self.state.set.name);
        let Some(instance) = self.instances.get_mut(&id) else {
            return Err(CommandError::NotFound(format!("there is no instance {name}")));
        };
        let before = std::mem::replace(&mut instance.record.protected, protected);
        instance.dirty = true;
        let what =
            if protected { "is protected from scale-in" } else { "is no longer protected from scale-in" };
        let written =
            self.write(self.state.clone(), Told::new("protection", format!("{name} {what}")), actor).await;
        if written.is_err()
            && let Some(instance) = self.instances.get_mut(&id)
        {
            instance.record.protected = before;
        }
        written
    }

    async fn delete(&mut self, actor: &str) -> Result<(), CommandError> {
        if self.state.deleting {
            return Ok(());
        }
        let next = SetState { deleting: true, ..self.state.clone() };
        let text = format!("{} is being deleted", self.state.set.name);
        self.write(next, Told::new("set-deleting", text), actor).await
    }

    pub(super) fn refuse_if_deleting(&self) -> Result<(), CommandError> {
        if self.state.deleting {
            return Err(CommandError::Conflict(format!("{} is being deleted", self.state.set.name)));
        }
        Ok(())
    }

    /// Writes a new state of the set with its event; only then is it true.
    pub(super) async fn write(
        &mut self,
        next: SetState,
        told: Told,
        actor: &str,
    ) -> Result<(), CommandError> {
        let Told { kind, text, policy } = told;
        let name = self.state.set.name.clone();
        let event = Event {
            at_ms: now_ms(),
            set: name.clone(),
            kind: kind.to_owned(),
            instance: None,
            text: text.clone(),
            actor: actor.to_owned(),
            policy,
        };
        let dirty = self.instances.values().filter(|instance| {
            instance.dirty && instance.record.state != regatta_core::instance_state::InstanceState::Gone
        });
        let batch = Batch {
            sets: vec![next.clone()],
            instances: dirty.map(|instance| (name.clone(), instance.record.clone())).collect(),
            events: vec![event],
            ..Batch::default()
        };
        self.shared.writer.commit(batch).await.map_err(|error| CommandError::Store(chain(&error)))?;
        self.state = next;
        self.operator.push(format!("{text} ({actor})"));
        self.shared.events.notify_waiters();
        Ok(())
    }
}
