//! When faults stop, every set comes to what is wanted of it, and nothing is left over.

use regatta_core::admission::Demand;
use regatta_core::agent::{Agent, Key};
use regatta_core::machine::SetMachine;
use regatta_core::manifest::Network;
use regatta_core::phase::Phase;
use regatta_core::state::InstanceRecord;
use regatta_core::upgrade::{Upgrade, UpgradeStatus};

use crate::daemon::demand_of;
use crate::world::World;

/// Why the world is not yet as it shall be; none when it is.
pub(crate) fn unsettled(world: &World) -> Option<String> {
    let Some(daemon) = &world.daemon else { return Some("no daemon runs".to_owned()) };
    if world.checks.has_open_commands() {
        return Some("a command has no reply".to_owned());
    }
    if world.agent_is_behind() {
        return Some("orders and reports are under way".to_owned());
    }
    for name in world.store.sets.keys() {
        let shell = daemon.shells.values().find(|shell| *shell.name == **name);
        let Some(shell) = shell else { return Some(format!("set {name} is not run")) };
        if let Some(why) = of_set(&shell.machine, &daemon.agent) {
            return Some(format!("set {name}: {why}"));
        }
        let stored = &world.store.sets[name];
        let seen: Vec<_> = shell.machine.instances().map(|it| (it.id, it.phase)).collect();
        let kept: Vec<_> = stored.instances.values().map(|it| (it.id, it.phase)).collect();
        if seen != kept {
            return Some(format!("set {name}: stored is {kept:?}, the machine has {seen:?}"));
        }
    }
    left_over(world, &daemon.agent)
}

fn of_set(machine: &SetMachine, agent: &Agent) -> Option<String> {
    let state = machine.state();
    if state.deleting {
        return Some("it is being deleted".to_owned());
    }
    let limits = machine.limits();
    if !limits.contains(state.desired) {
        return Some(format!(
            "{} are wanted, the limits are {} to {}",
            state.desired, limits.min, limits.max
        ));
    }
    // What is protected from all actions stays as it is.
    let kept = |it: &InstanceRecord| {
        it.protection.from_actions() && matches!(it.phase, Phase::Failed | Phase::Unhealthy)
    };
    if let Some((id, requested)) = machine.instances().find_map(|it| Some((it.id, it.requested?))) {
        return Some(format!("{} of instance {id} is not done", requested.as_str()));
    }
    if let Some(other) = machine.instances().find(|it| it.phase != Phase::InService && !kept(it)) {
        return Some(format!("instance {} is {}", other.id, other.phase));
    }
    let count = |wanted: fn(&InstanceRecord) -> bool| {
        let counted = machine.instances().filter(|it| it.phase.counts_as_capacity() && wanted(it));
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    };
    let running = count(|_| true);
    let protected = count(|it| it.protection.from_scale_in());
    if running > state.desired && protected < running {
        return Some(format!("{running} run, {} are wanted, {protected} are protected", state.desired));
    }
    let room = agent.capacity(demand_of(&state.set), &state.set.network, 1, u64::MAX).launches;
    let under_way = state.upgrade.as_ref().filter(|it| !it.status.has_ended());
    // One that is paused waits for its operator; one that needs more room than there is, for that.
    let waits = |upgrade: &Upgrade| upgrade.status == UpgradeStatus::Paused || room == 0;
    if let Some(upgrade) = under_way.filter(|upgrade| !waits(upgrade)) {
        return Some(format!("its upgrade is {}", upgrade.status.as_str()));
    }
    if running < state.desired && room > 0 {
        return Some(format!("{running} run, {} are wanted, and there is room", state.desired));
    }
    None
}

/// Node, agent and store have the same, and the agent's sums agree.
fn left_over(world: &World, agent: &Agent) -> Option<String> {
    let stored: Vec<Key> = world
        .store
        .sets
        .iter()
        .flat_map(|(name, set)| set.instances.keys().map(|id| Key { set: name.as_str().into(), id: *id }))
        .collect();
    let same = |what: &str, mut keys: Vec<Key>| {
        keys.sort();
        (keys != stored).then(|| format!("the {what} has {keys:?}, stored is {stored:?}"))
    };
    // Of one that failed and is kept there may be nothing: its launch failed.
    let failed =
        |key: &&Key| world.store.instance(&key.set, key.id).is_some_and(|it| it.phase == Phase::Failed);
    let mut on_node: Vec<Key> = world.node.vms.keys().chain(stored.iter().filter(failed)).cloned().collect();
    on_node.sort();
    on_node.dedup();
    same("node", on_node)
        .or_else(|| same("agent", agent.held().map(|(key, _)| key.clone()).collect()))
        .or_else(|| {
            let forgotten = world.keys_ever.iter().filter(|key| !stored.contains(key));
            let kept = forgotten.into_iter().find(|key| agent.have(key).is_some())?;
            Some(format!("the agent still has {}-{}: {:?}", kept.set, kept.id, agent.have(kept)))
        })
        .or_else(|| {
            let taken: u64 = world
                .store
                .sets
                .values()
                .flat_map(|set| {
                    set.instances
                        .values()
                        .map(|it| world.manifest_of(set, it.generation).instance.memory_bytes)
                })
                .sum();
            let mebibyte = Demand { memory_bytes: 1 << 20, ..Demand::default() };
            let left = agent.capacity(mebibyte, &Network::None, u32::MAX, u64::MAX).launches;
            let due = world.host.memory_bytes.saturating_sub(taken) >> 20;
            (u64::from(left) != due).then(|| format!("the agent has {left} MiB left, {due} MiB are free"))
        })
        .or_else(|| {
            let pool = &crate::operator::pool();
            let left = agent.capacity(Demand::default(), pool, u32::MAX, u64::MAX).launches;
            let used = world.node.vms.values().filter(|vm| !vm.identity.address.is_unspecified()).count();
            let due = crate::operator::POOL_ADDRESSES - u32::try_from(used).unwrap_or(0);
            (left != due).then(|| format!("the agent has {left} addresses left, {due} are free"))
        })
}
