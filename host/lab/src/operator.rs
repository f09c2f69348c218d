//! Operators: the sets that they make, and what they do to them at any moment.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::OnceLock;

use regatta_core::combine::CombineRule;
use regatta_core::event::Actor;
use regatta_core::machine::{
    Command, Input, InstanceAction, NewPolicy, NewSet, Update, UpgradeAction, create,
};
use regatta_core::manifest::{
    Capacity, Checkpoint, FlapRule, LoadBalancer, MaxCost, MissingData, Network, OnFailure, Probe, RateLimit,
    RepairAction, ScaleSet, StartMode, UpgradeMode, UpgradePolicy, read_manifest,
};
use regatta_core::plan::ScaleInOrder;
use regatta_core::protection::Protection;
use regatta_core::set_process::SetProcess;
use regatta_core::sizing::{Cron, ScheduleEntry, When, Zone};
use regatta_core::state::{ImageDigests, PolicyActivation};

use crate::dice::Dice;
use crate::event::DaemonEvent;
use crate::policy;
use crate::world::World;

/// Names of sets.
pub(crate) const NAMES: [&str; 4] = ["api", "db", "job", "web"];

/// Everything that is not varied.
const MANIFEST: &str = "
version: regatta/v1
name: web
tick: 1s
capacity: { min: 1, max: 4 }
image: { disk: /images/golden.raw, kernel: /images/vmlinux }
instance: { vcpus: 1, memory: 64MiB, boot_timeout: 30s }
network: { mode: loopback, pool: 127.40.0.0/28, port: 8080 }
health: { http: /healthz, interval: 2s, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 3 }
load_balancer: { listen: 127.0.0.1:8088, drain_timeout: 5s }
metrics:
  - { name: utilization, series: guest_utilization }
policy: { module: fixed }
";

/// Usable addresses of the pool of all sets.
pub(crate) const POOL_ADDRESSES: u32 = 14;

/// The pool of all sets that have a network.
pub(crate) fn pool() -> Network {
    Network::Loopback { base: Ipv4Addr::new(127, 40, 0, 0), prefix: 28, port: 8080 }
}

fn base() -> ScaleSet {
    static BASE: OnceLock<ScaleSet> = OnceLock::new();
    let read = || match read_manifest(MANIFEST.as_bytes(), "lab.yaml", "/") {
        Ok(manifest) => manifest.set,
        Err(problems) => panic!("the manifest of the lab is not valid: {problems:?}"),
    };
    BASE.get_or_init(read).clone()
}

/// A manifest, and the policies that it names.
fn manifest(dice: &mut Dice, name: &str) -> (ScaleSet, Vec<PolicyActivation>) {
    let mut set = base();
    name.clone_into(&mut set.name);
    set.tick_ms = dice.pick(&[1_000, 2_000, 5_000]).unwrap_or(1_000);
    let min = dice.small(0..=2);
    let max = min + dice.small(1..=5);
    set.capacity = Capacity { min, max, initial: dice.small(min..=max) };
    set.instance.memory_bytes = u64::from(dice.small(1..=2)) * (64 << 20);
    set.instance.shutdown_timeout_ms = dice.within(500..=8_000);
    set.instance.start = match dice.small(0..=19) {
        0 => StartMode::Snapshot,
        1 => StartMode::Auto,
        _ => StartMode::Cold,
    };
    set.network = if dice.per_mille(150) { Network::None } else { pool() };
    set.health.interval_ms = dice.within(500..=5_000);
    set.health.healthy_threshold = dice.small(1..=3);
    set.health.unhealthy_threshold = dice.small(1..=3);
    // Long enough for a guest that is well, and not much longer.
    set.instance.boot_timeout_ms = dice.within(10_000..=40_000) + 5 * set.health.interval_ms;
    if dice.per_mille(100) {
        set.health.probe = None::<Probe>;
    }
    let balanced = dice.per_mille(700) && set.network != Network::None;
    set.load_balancer = set.load_balancer.filter(|_| balanced).map(|mut lb: LoadBalancer| {
        lb.drain.timeout_ms = dice.within(0..=60_000);
        lb
    });
    set.combine = match dice.small(0..=9) {
        0 => CombineRule::Max,
        1 => CombineRule::Min,
        2 => CombineRule::First,
        _ => CombineRule::AnyOutAllIn,
    };
    set.guards.on_failure =
        if dice.per_mille(800) { OnFailure::Hold } else { OnFailure::Static { capacity: dice.small(0..=8) } };
    set.guards.missing_data = match dice.small(0..=9) {
        0 => MissingData::Ignore,
        1 => MissingData::Default { capacity: dice.small(0..=8) },
        2 | 3 => MissingData::Hold,
        _ => MissingData::NoScaleIn,
    };
    set.guards.scale_out_cooldown_ms = dice.within(0..=20_000) * u64::from(dice.per_mille(200));
    set.guards.scale_in_cooldown_ms = dice.within(0..=20_000) * u64::from(dice.per_mille(200));
    set.guards.tolerance_percent = dice.small(0..=40) * u32::from(dice.per_mille(100));
    if dice.per_mille(150) {
        let above = 0.3 + dice.share();
        set.guards.flapping = vec![FlapRule { metric: "utilization".to_owned(), above }];
    }
    if dice.per_mille(100) {
        let per_hour = f64::from(dice.small(1..=6));
        set.guards.max_cost = Some(MaxCost { per_instance_hour: 1.0, per_hour });
    }
    // Some keep the guards that are on by default.
    if dice.per_mille(800) {
        set.guards.warm_up_ms = dice.within(0..=15_000) * u64::from(dice.per_mille(300));
        set.guards.scale_in_stabilization_ms = dice.within(0..=30_000) * u64::from(dice.per_mille(300));
        let mut limit = || match dice.per_mille(700) {
            true => RateLimit::NONE,
            false => RateLimit {
                percent: dice.small(0..=200),
                count: dice.small(1..=4),
                period_ms: dice.within(0..=20_000),
            },
        };
        (set.guards.scale_out_limit, set.guards.scale_in_limit) = (limit(), limit());
    }
    set.scale_in.order = dice.pick(&ScaleInOrder::ALL).unwrap_or_default();
    let entry = |dice: &mut Dice, name: &str| {
        let cron = dice.pick(&["*/2 * * * *", "*/3 * * * *", "*/5 * * * *"]).unwrap_or("* * * * *");
        ScheduleEntry {
            name: name.to_owned(),
            when: When::Recurring {
                cron: Cron::parse(cron).unwrap_or_else(|why| panic!("{cron} {why}")),
                duration_ms: 60_000,
            },
            time_zone: Zone::default(),
            min: dice.per_mille(400).then(|| dice.small(min..=max)),
            max: dice.per_mille(400).then(|| max + dice.small(0..=2)),
            capacity: dice.per_mille(500).then(|| dice.small(min..=max)),
            freeze: dice.per_mille(50),
        }
    };
    if dice.per_mille(200) {
        set.schedules = vec![entry(dice, "even"), entry(dice, "odd")];
    }
    set.repair.max_unhealthy_percent = dice.small(20..=100);
    set.repair.action = if dice.per_mille(300) { RepairAction::Restart } else { RepairAction::Replace };
    set.repair.enabled = dice.per_mille(850);
    set.repair.grace_ms = dice.within(0..=15_000);
    set.repair.max_percent = dice.small(0..=100);
    set.upgrade = upgrade(dice);
    let slots = if dice.per_mille(250) { 2 } else { 1 };
    let policies: Vec<PolicyActivation> = (0..slots).map(|_| policy::any(dice)).collect();
    let Some(spec) = set.policies.first().cloned() else { return (set, policies) };
    set.policies.clear();
    for (index, policy) in policies.iter().enumerate() {
        let mut spec = spec.clone();
        spec.name = format!("slot-{index}");
        spec.module = policy.name.to_string();
        set.policies.push(spec);
    }
    (set, policies)
}

fn upgrade(dice: &mut Dice) -> UpgradePolicy {
    let mode = match dice.small(0..=9) {
        0..=3 => UpgradeMode::Manual,
        4 => UpgradeMode::AllAtOnce,
        _ => UpgradeMode::Rolling,
    };
    let surge = dice.small(0..=50) * dice.small(0..=1);
    let checkpoints = match dice.small(0..=2) {
        0 | 1 => vec![Checkpoint { percent: dice.small(1..=60), bake_ms: dice.within(0..=60_000) }],
        _ => Vec::new(),
    };
    UpgradePolicy {
        mode,
        max_batch_percent: dice.small(1..=100),
        max_surge_percent: surge,
        max_unavailable_percent: dice.small(0..=60),
        max_unhealthy_percent: dice.small(0..=100),
        max_unhealthy_upgraded_percent: dice.small(0..=60),
        pause_ms: dice.within(0..=3_000),
        checkpoints,
        rollback: dice.per_mille(700),
    }
}

/// One that rolls is paused as often as not.
fn upgrade_action(dice: &mut Dice, rolling: bool) -> UpgradeAction {
    use UpgradeAction::{Cancel, Pause, Resume, RollBack, Start};
    let any = [Start, Start, Pause, Resume, Cancel, RollBack];
    if rolling && dice.per_mille(600) { Pause } else { dice.pick(&any).unwrap_or(Start) }
}

impl World {
    /// An operator creates a set that is not there. Its answer is never lost: who creates looks whether it is there.
    pub(crate) fn create_set(&mut self, name: &str) {
        if self.daemon.is_none() || self.store_down || self.store.sets.contains_key(name) {
            return;
        }
        // Its end may be stored without its machine knowing: it is still run.
        if self.daemon.iter().any(|daemon| daemon.shells.values().any(|shell| *shell.name == *name)) {
            return;
        }
        let (set, policies) = manifest(&mut self.dice, name);
        let incarnation = self.dice.within(0..=u64::MAX);
        let new = NewSet { set, image: ImageDigests::default(), policies, incarnation };
        let (state, batch) = create(new, self.clock.time(), Actor::User("ops".to_owned()));
        if self.store.check(&batch).is_err() {
            return;
        }
        self.checks.on_commit(&self.store, &self.node, name, &batch);
        self.store.apply(&batch);
        self.story.tell(|| {
            let capacity = state.set.capacity;
            let policies: Vec<_> = state.policies.iter().map(|slot| slot.active.name.as_str()).collect();
            format!("operator: create {name}, {} to {}, policies {policies:?}", capacity.min, capacity.max)
        });
        let demand = self.dice.share() * 5.0;
        self.demand.insert(name.to_owned(), demand);
        self.open_set(name);
    }

    /// An operator wants something of a set that is there.
    pub(crate) fn command_any(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let shells: Vec<_> = daemon.shells.keys().copied().collect();
        let Some(number) = self.dice.pick(&shells) else { return };
        let Some(shell) = daemon.shells.get(&number) else { return };
        let name = shell.name.to_string();
        let ids: Vec<u32> = shell.machine.instances().map(|it| it.id).collect();
        let activations = shell.machine.state().activations;
        let rolling = shell.machine.state().upgrade.as_ref().is_some_and(|it| it.status.replaces());
        let slots: Vec<String> =
            shell.machine.state().policies.iter().map(|slot| slot.name.clone()).collect();
        let present = ScaleSet::clone(shell.machine.manifest());
        let dice = &mut self.dice;
        let slot = if dice.per_mille(300) { None } else { dice.pick(&slots) };
        let new = |dice: &mut Dice| {
            let activation = policy::any(dice);
            Box::new(NewPolicy { activation, state_origin: "built in the rehearsal".to_owned() })
        };
        let command = match dice.small(0..=99) {
            // An upgrade is short, too.
            _ if rolling && dice.per_mille(250) => Command::Upgrade(upgrade_action(dice, rolling)),
            0..=13 => Command::Scale { capacity: dice.small(0..=8) },
            14..=16 => Command::Hold {
                capacity: dice.per_mille(300).then(|| dice.small(0..=8)),
                for_ms: dice.per_mille(800).then(|| dice.within(1..=60_000)),
                reason: String::new(),
            },
            17 => Command::Resume,
            18..=19 => Command::Limits {
                min: dice.per_mille(500).then(|| dice.small(0..=4)),
                max: dice.per_mille(500).then(|| dice.small(1..=9)),
                for_ms: dice.per_mille(800).then(|| dice.within(1..=60_000)),
                reason: String::new(),
            },
            20..=21 => match dice.small(0..=5) {
                0 => Command::ClearLimits,
                1 => Command::Thaw,
                // Always with an end: what is too many may go then.
                _ => Command::Freeze { for_ms: Some(dice.within(1..=30_000)), reason: String::new() },
            },
            // What instances are made of changes, and nothing else.
            22..=27 => {
                let mut set = present;
                set.instance.memory_bytes = u64::from(dice.small(1..=2)) * (64 << 20);
                set.upgrade = upgrade(dice);
                let policies = vec![None; set.policies.len()];
                let image = ImageDigests::default();
                Command::Update(Box::new(Update { policies, set, image, rolls_back: false }))
            }
            28..=33 => {
                let (set, policies) = manifest(dice, &name);
                let policies = policies.into_iter().zip(&set.policies).map(|(activation, spec)| {
                    let keeps = slots.contains(&spec.name) && dice.per_mille(300);
                    (!keeps)
                        .then(|| NewPolicy { activation, state_origin: "built in the rehearsal".to_owned() })
                });
                let policies = policies.collect();
                Command::Update(Box::new(Update {
                    policies,
                    set,
                    image: ImageDigests::default(),
                    rolls_back: false,
                }))
            }
            34..=37 => {
                let some = SetProcess::ALL.into_iter().filter(|_| dice.per_mille(400)).collect();
                match dice.per_mille(700) {
                    true => Command::Processes { suspend: some, resume: BTreeSet::new() },
                    false => Command::Processes { suspend: BTreeSet::new(), resume: SetProcess::ALL.into() },
                }
            }
            38..=43 => {
                let id = dice.pick(&ids).unwrap_or(99);
                let action = match dice.small(0..=3) {
                    0 => InstanceAction::Replace,
                    1 | 2 => InstanceAction::Restart,
                    _ => InstanceAction::Delete { shrink: dice.per_mille(500) },
                };
                Command::Instance { id, action }
            }
            44..=53 => {
                let id = dice.pick(&ids).unwrap_or(99);
                let level = match dice.small(0..=4) {
                    0 => Protection::None,
                    1 | 2 => Protection::ScaleIn,
                    _ => Protection::All,
                };
                Command::Protect { id, protection: level }
            }
            54..=62 => Command::Swap { slot, policy: new(dice) },
            63..=66 => {
                let to = dice.per_mille(300).then(|| dice.within(1..=activations));
                Command::Rollback { slot, to }
            }
            67..=74 => Command::Shadow { slot, policy: new(dice) },
            75..=82 => Command::Canary { slot, policy: new(dice), within: dice.small(0..=2) },
            83..=86 => {
                let number = dice.per_mille(500).then(|| dice.within(1..=activations));
                Command::Promote { number }
            }
            87..=93 => Command::Upgrade(upgrade_action(dice, rolling)),
            94..=96 => Command::Drop { number: dice.within(1..=activations) },
            _ => Command::Delete,
        };
        self.command(number, command);
    }

    /// When all is calm, an operator resumes what somebody suspended.
    pub(crate) fn resume_processes(&mut self) {
        let Some(daemon) = self.daemon.as_ref().filter(|_| !self.checks.has_open_commands()) else { return };
        let suspended = |shell: &crate::shell::SetShell| {
            let state = shell.machine.state();
            !state.suspended.is_empty() && !state.deleting
        };
        let found = daemon.shells.iter().find(|(_, shell)| suspended(shell)).map(|(number, _)| *number);
        if let Some(number) = found {
            let (suspend, resume) = (BTreeSet::new(), SetProcess::ALL.into());
            self.command(number, Command::Processes { suspend, resume });
        }
    }

    /// An operator's command is on its way.
    pub(crate) fn command(&mut self, shell: u64, command: Command) {
        self.tokens += 1;
        let token = self.tokens;
        self.story.tell(|| match &command {
            Command::Update(update) => {
                let capacity = update.set.capacity;
                format!(
                    "operator: command {token}, apply {} with {} to {}",
                    update.set.name, capacity.min, capacity.max
                )
            }
            other => format!("operator: command {token} for set #{shell}, {other:?}"),
        });
        self.checks.on_command(token, &command);
        let actor = Actor::User("ops".to_owned());
        let input = Input::Command { token, actor, command };
        self.later(0, DaemonEvent::Input(shell, Box::new(input)));
    }
}
