//! What an agent does about the difference between what is wanted and what it has.
//!
//! | has \ wanted | run | stop |
//! | --- | --- | --- |
//! | nothing | `Pending`: admit and launch, or refuse. Else: report that it is not there | nothing is left |
//! | refused | report it again | nothing is left |
//! | held | watch it as the want says, restart it once per number of a restart | stop it |
//! | stopping | a stop cannot be taken back | – |
//! | cleaned | report it again | report it again |

use super::{Agent, Effect, Found, Have, Identity, Input, Instance, Key, Order, Report, Running, Want};
use crate::admission::Demand;
use crate::mutant::{self, Mutant};
use crate::phase::Phase;

impl Agent {
    /// What `input` about an instance leads to.
    pub fn on(&mut self, key: &Key, input: Input) -> Vec<Effect> {
        match input {
            Input::Want { want, demand, disk_left_bytes } => self.on_want(key, want, demand, disk_left_bytes),
            Input::Forget => {
                if self.instances.get(key).is_some_and(Instance::has_ended) {
                    self.instances.remove(key);
                }
                Vec::new()
            }
            Input::Found { found, address, demand } => self.on_found(key, found, address, demand),
            Input::News(report) => self.on_news(key, report),
        }
    }

    fn on_want(&mut self, key: &Key, want: Want, demand: Demand, disk_left_bytes: u64) -> Vec<Effect> {
        // A set that was deleted and made again begins with the same ids.
        let another =
            |it: &Instance| it.has_ended() && it.want.as_ref().is_some_and(|old| old.uid != want.uid);
        if self.instances.get(key).is_some_and(another) {
            self.instances.remove(key);
        }
        let report = |report| vec![Effect::Report { key: key.clone(), report }];
        let Some(instance) = self.instances.get_mut(key) else {
            return self.on_new(key, want, demand, disk_left_bytes);
        };
        let effects = match (&instance.have, &want.order) {
            (Have::Refused { why }, Order::Run { .. }) => report(Report::Refused { why: why.clone() }),
            (Have::Refused { .. }, Order::Stop(_)) => {
                instance.have = Have::Cleaned { note: None };
                report(Report::Cleaned { note: None })
            }
            (Have::Held, Order::Run { phase: Phase::Pending, .. }) if mutant::is(Mutant::LaunchTwice) => {
                return self.on_new(key, want, demand, disk_left_bytes);
            }
            (Have::Held, Order::Run { .. }) => {
                let mut effects = instance.watch_as_wanted(key, &want);
                effects.extend(instance.restart_as_wanted(key, &want));
                effects
            }
            (Have::Held, Order::Stop(order)) => {
                instance.have = Have::Stopping;
                let order = order.clone();
                let mut effects = instance.unwatch(key);
                effects.push(Effect::Stop { key: key.clone(), order });
                effects
            }
            (Have::Stopping, _) => Vec::new(),
            (Have::Cleaned { note }, _) => report(Report::Cleaned { note: note.clone() }),
        };
        instance.want = Some(want);
        effects
    }

    /// A want of an instance of which the agent has nothing.
    fn on_new(&mut self, key: &Key, want: Want, demand: Demand, disk_left_bytes: u64) -> Vec<Effect> {
        let mut have = Instance::held();
        let report = |report| Effect::Report { key: key.clone(), report };
        let effects = match &want.order {
            Order::Run { phase: Phase::Pending, manifest, .. } => {
                match self.take(key, &manifest.network, demand, disk_left_bytes) {
                    Ok(address) => {
                        have.address = Some(address);
                        let identity = Identity {
                            set: key.set.to_string(),
                            id: key.id,
                            uid: want.uid.clone(),
                            epoch: want.epoch,
                            generation: want.generation,
                            created_ms: want.created_ms,
                            address,
                        };
                        vec![
                            report(Report::Admitted { address }),
                            Effect::Launch { identity, manifest: manifest.clone() },
                        ]
                    }
                    Err(why) => {
                        have.have = Have::Refused { why: why.clone() };
                        vec![report(Report::Refused { why })]
                    }
                }
            }
            Order::Run { .. } => vec![report(Report::Exited { why: NOT_THERE.to_owned() })],
            // What lies about without a process is removed all the same.
            Order::Stop(order) => {
                have.have = Have::Stopping;
                vec![Effect::Stop { key: key.clone(), order: order.clone() }]
            }
        };
        have.want = Some(want);
        self.instances.insert(key.clone(), have);
        effects
    }

    fn on_found(
        &mut self,
        key: &Key,
        found: Found,
        address: Option<std::net::Ipv4Addr>,
        demand: Demand,
    ) -> Vec<Effect> {
        let instance = self.instances.entry(key.clone()).or_insert_with(Instance::held);
        // An agent that was not started again may be asked all the same, by an owner that was.
        let runs = matches!(found, Found::Running(_) | Found::Unreachable(_));
        if matches!(instance.have, Have::Held | Have::Stopping) {
            instance.runs = runs;
            self.ledger.claim(key, demand);
            if let Some(address) = address {
                if let Some(before) = instance.address.replace(address) {
                    self.addresses.release(before);
                }
                self.addresses.claim(address);
            }
        }
        let report = |report| Effect::Report { key: key.clone(), report };
        if mutant::is(Mutant::StopUnheardOf) && !runs {
            return vec![
                report(Report::Cleaned { note: None }),
                Effect::Stop { key: key.clone(), order: Default::default() },
            ];
        }
        let admitted = address.map(|address| report(Report::Admitted { address }));
        admitted.into_iter().chain([report(Report::Found(found))]).collect()
    }

    fn on_news(&mut self, key: &Key, report: Report) -> Vec<Effect> {
        let Some(instance) = self.instances.get_mut(key) else { return Vec::new() };
        let mut effects = vec![Effect::Report { key: key.clone(), report: report.clone() }];
        match report {
            Report::Booted(Running { .. }) => {
                instance.runs = true;
                if let Some(want) = instance.want.clone() {
                    effects.extend(instance.watch_as_wanted(key, &want));
                }
            }
            Report::GuestRebooted => {
                // Probes begin anew: what the guest was before says nothing of what it will be.
                if let Some(Want { order: Order::Run { phase, .. }, .. }) = &mut instance.want {
                    *phase = Phase::Booting;
                }
                instance.watched = None;
                if let Some(want) = instance.want.clone() {
                    effects.extend(instance.watch_as_wanted(key, &want));
                }
            }
            Report::LaunchFailed { .. } | Report::Exited { .. } | Report::GuestPanicked => {
                instance.runs = false;
                effects.extend(instance.unwatch(key));
            }
            Report::NotRestarted { .. } => instance.restarted = None,
            Report::Cleaned { note } => {
                instance.have = Have::Cleaned { note };
                effects.extend(instance.unwatch(key));
                self.release(key);
            }
            Report::Admitted { .. }
            | Report::Refused { .. }
            | Report::LaunchStarted
            | Report::EventsRead { .. }
            | Report::Stuck { .. }
            | Report::Found(_) => {}
        }
        effects
    }
}

impl Instance {
    /// One that is held and does not run yet.
    pub(super) fn held() -> Self {
        Self { have: Have::Held, address: None, runs: false, want: None, watched: None, restarted: None }
    }

    /// Nothing of it exists.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.have, Have::Cleaned { .. } | Have::Refused { .. })
    }

    fn watch_as_wanted(&mut self, key: &Key, want: &Want) -> Vec<Effect> {
        let (Order::Run { phase, manifest, watch }, true, Some(address)) =
            (&want.order, self.runs && self.have == Have::Held, self.address)
        else {
            return Vec::new();
        };
        if self.watched.as_ref() == Some(watch) {
            return Vec::new();
        }
        self.watched = Some(watch.clone());
        vec![Effect::Watch {
            key: key.clone(),
            address,
            phase: *phase,
            watch: watch.clone(),
            network: manifest.network.clone(),
        }]
    }

    /// Each restart once, as long as this agent remembers.
    fn restart_as_wanted(&mut self, key: &Key, want: &Want) -> Option<Effect> {
        let number = want.restart.filter(|number| self.runs && self.restarted != Some(*number))?;
        self.restarted = Some(number);
        Some(Effect::Restart { key: key.clone(), number })
    }

    fn unwatch(&mut self, key: &Key) -> Vec<Effect> {
        match self.watched.take() {
            Some(_) => vec![Effect::Unwatch { key: key.clone() }],
            None => Vec::new(),
        }
    }
}

/// What an owner is told of an instance that it believes to run and of which the node has nothing.
pub(super) const NOT_THERE: &str = "its node has nothing of it";

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::admission::HostRoom;
    use crate::agent::{StopOrder, Watch};
    use crate::manifest::{Network, read_manifest};
    use crate::node::Placement;

    const MANIFEST: &str = "
version: regatta/v1
name: web
capacity: { min: 1, max: 2 }
image: { disk: /images/golden.raw, kernel: /images/vmlinux }
network: { mode: loopback, pool: 127.40.0.0/30, port: 8080 }
policy: { module: fixed }
";

    fn agent() -> Agent {
        let host = HostRoom { memory_bytes: 100, vcpus: 100, disk_bytes: 100, open_files: 100 };
        Agent::new(Placement::default(), host)
    }

    fn key() -> Key {
        Key { set: "web".into(), id: 1 }
    }

    fn want(uid: &str, order: Order) -> Input {
        let want =
            Want { id: 1, uid: uid.into(), epoch: 1, generation: 1, created_ms: 0, restart: None, order };
        Input::Want { want, demand: Demand::default(), disk_left_bytes: 100 }
    }

    fn run() -> Order {
        let manifest = Arc::new(read_manifest(MANIFEST.as_bytes(), "web.yaml", "/").unwrap().set);
        Order::Run { phase: Phase::Pending, watch: Arc::new(Watch::of(&manifest)), manifest }
    }

    fn ended(agent: &mut Agent) {
        agent.on(&key(), want("one", run()));
        agent.on(&key(), want("one", Order::Stop(StopOrder::default())));
        agent.on(&key(), Input::News(Report::Cleaned { note: None }));
    }

    #[test]
    fn an_instance_of_a_set_that_was_made_again_is_not_mistaken_for_its_namesake() {
        let mut agent = agent();
        ended(&mut agent);
        let again = agent.on(&key(), want("one", run()));
        assert!(
            matches!(again.as_slice(), [Effect::Report { report: Report::Cleaned { .. }, .. }]),
            "{again:?}"
        );
        let another = agent.on(&key(), want("another", run()));
        assert!(another.iter().any(|effect| matches!(effect, Effect::Launch { .. })), "{another:?}");
    }

    #[test]
    fn what_has_ended_is_forgotten_when_its_owner_knows_nothing_of_it() {
        let mut agent = agent();
        ended(&mut agent);
        agent.forget_ended("web", |id| id == 1);
        assert!(agent.have(&key()).is_some());
        agent.forget_ended("web", |_| false);
        assert_eq!(agent.have(&key()), None);
    }

    #[test]
    fn an_instance_that_is_looked_for_again_keeps_its_address_until_it_has_ended() {
        let mut agent = agent();
        agent.on(&key(), want("one", run()));
        // Its owner starts over while its directory is on its way out.
        agent.on(&key(), Input::Found { found: Found::Nothing, address: None, demand: Demand::default() });
        agent.on(&key(), want("one", Order::Stop(StopOrder::default())));
        agent.on(&key(), Input::News(Report::Cleaned { note: None }));
        let pool = Network::Loopback { base: Ipv4Addr::new(127, 40, 0, 0), prefix: 30, port: 8080 };
        assert_eq!(agent.capacity(Demand::default(), &pool, 9, 100).launches, 2, "both addresses are free");
    }
}
