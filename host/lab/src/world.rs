//! A world: one node, one daemon with up to four sets, everything around them, and what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regatta_core::admission::HostRoom;
use regatta_core::agent::Key;
use regatta_core::manifest::ScaleSet;

use crate::chaos::Temper;
use crate::clock::Clock;
use crate::daemon::Daemon;
use crate::dice::Dice;
use crate::event::{DaemonEvent, Event};
use crate::invariants::{Checks, Violation, unsettled};
use crate::node::Node;
use crate::operator::NAMES;
use crate::policy::Mood;
use crate::store::{Store, StoredSet};
use crate::story::Story;

/// The disk is never what is short.
pub(crate) const DISK_LEFT_BYTES: u64 = 1 << 40;

/// After faults have stopped, everything is as it shall be within this time.
const SETTLE_MS: u64 = 20 * 60_000;

/// A world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) dice: Dice,
    pub(crate) story: Story,
    pub(crate) checks: Checks,
    pub(crate) store: Store,
    pub(crate) node: Node,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) host: HostRoom,
    pub(crate) temper: Temper,
    /// Load on each set, in instances' worth.
    pub(crate) demand: BTreeMap<String, f64>,
    /// No more faults.
    pub(crate) calm: bool,
    calm_since_ms: Option<u64>,
    pub(crate) store_down: bool,
    /// The daemon is killed after this many effects.
    pub(crate) fuse: Option<u32>,
    pub(crate) boots: u64,
    pub(crate) shells: u64,
    pub(crate) tokens: u64,
    /// Every instance that there ever was.
    pub(crate) keys_ever: BTreeSet<Key>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub(crate) steps: u64,
}

impl World {
    /// A world that begins.
    pub(crate) fn new(seed: u64, story: Story) -> Self {
        let mut world = Self {
            clock: Clock::default(),
            dice: Dice::new(seed),
            story,
            checks: Checks::default(),
            store: Store::default(),
            node: Node::default(),
            daemon: None,
            host: HostRoom { memory_bytes: 0, vcpus: 1_000, disk_bytes: u64::MAX, open_files: 10_000 },
            temper: Temper::default(),
            demand: BTreeMap::new(),
            calm: false,
            calm_since_ms: None,
            store_down: false,
            fuse: None,
            boots: 0,
            shells: 0,
            tokens: 0,
            keys_ever: BTreeSet::new(),
            queue: BTreeMap::new(),
            queued: 0,
            steps: 0,
        };
        world.host.memory_bytes = u64::from(world.dice.small(4..=24)) * (64 << 20);
        world.draw_temper();
        world.start();
        for name in NAMES {
            if world.demand.is_empty() || world.dice.per_mille(300) {
                world.create_set(name);
            }
        }
        world.at(500, Event::Chaos);
        world
    }

    /// Something happens after so long.
    pub(crate) fn at(&mut self, delay_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.clock.real_ms + delay_ms, self.queued), event);
    }

    /// Something happens in the daemon that runs now.
    pub(crate) fn later(&mut self, delay_ms: u64, event: DaemonEvent) {
        if let Some(daemon) = &self.daemon {
            let boot = daemon.boot;
            self.at(delay_ms, Event::Daemon(boot, event));
        }
    }

    /// How policies behave now.
    pub(crate) fn mood(&self) -> Mood {
        match self.calm_since_ms {
            None => Mood::Wild,
            Some(since_ms) if self.clock.real_ms < since_ms + SETTLE_MS / 2 => Mood::Calm,
            Some(_) => Mood::Content,
        }
    }

    /// A delay: short when all is calm.
    pub(crate) fn delay_ms(&mut self, usual: u64, most: u64) -> u64 {
        if self.calm { self.dice.within(0..=usual) } else { self.dice.delay_ms(usual, most) }
    }

    /// The manifest that an instance of that generation is made from.
    pub(crate) fn manifest_of(&self, set: &StoredSet, generation: u64) -> Arc<ScaleSet> {
        let digest = set.state.manifests.get(&generation);
        let manifest = digest.and_then(|digest| self.store.manifests.get(digest));
        manifest.map_or_else(|| Arc::new(set.state.set.clone()), Arc::clone)
    }

    /// Runs the wild part for `steps` steps, then the calm one until everything has settled.
    pub(crate) fn run(&mut self, wild_steps: u64) -> Result<(), Violation> {
        while self.steps < wild_steps {
            self.step()?;
        }
        self.calm_down();
        let until_ms = self.clock.real_ms + SETTLE_MS;
        loop {
            if self.queue.is_empty() {
                let invariant = "settles";
                return unsettled(self).map_or(Ok(()), |text| Err(Violation { invariant, text }));
            }
            self.step()?;
            if self.steps.is_multiple_of(8) {
                self.resume_processes();
            }
            let Some(why) = self.steps.is_multiple_of(8).then(|| unsettled(self)) else { continue };
            match why {
                None => return Ok(()),
                Some(why) if self.clock.real_ms > until_ms => {
                    return Err(Violation { invariant: "settles", text: why });
                }
                Some(_) => {}
            }
        }
    }

    /// The next thing happens.
    fn step(&mut self) -> Result<(), Violation> {
        let Some(((at_ms, _), event)) = self.queue.pop_first() else {
            return Err(Violation { invariant: "settles", text: "nothing ever happens again".to_owned() });
        };
        self.clock.to(at_ms);
        self.story.at(at_ms, self.steps);
        match event {
            Event::Daemon(boot, event) => {
                if self.daemon.as_ref().is_none_or(|daemon| daemon.boot != boot) {
                    return Ok(());
                }
                if let Some(until_ms) = self.clock.stopped_until() {
                    self.at(until_ms - self.clock.real_ms, Event::Daemon(boot, event));
                    return Ok(());
                }
                self.in_daemon(event);
            }
            Event::Start => self.start(),
            Event::Chaos => self.chaos(),
            Event::StoreBack => self.store_down = false,
        }
        self.steps += 1;
        self.checks.on_step(&self.store, &self.node);
        self.checks.violation.take().map_or(Ok(()), Err)
    }

    /// What happened.
    pub(crate) fn into_story(self) -> Vec<String> {
        self.story.into_lines()
    }

    fn in_daemon(&mut self, event: DaemonEvent) {
        match event {
            DaemonEvent::Tick(shell) => self.tick(shell),
            DaemonEvent::Input(shell, input) => self.feed(shell, *input),
            DaemonEvent::Commit(shell, batch) => self.commit(shell, &batch),
            DaemonEvent::Agent(key, what) => self.on_agent(&key, *what),
            DaemonEvent::Launch(key, uid, step) => self.launch(key, uid, step),
            DaemonEvent::Stop(key, order) => self.stop(key, order),
            DaemonEvent::Probe(key, watch) => self.probe(key, watch),
            DaemonEvent::Scrape(shell) => self.scrape(shell),
            DaemonEvent::Reload(name) => self.open_set(&name),
        }
    }

    /// Faults stop: the store works, guests are well, nobody wants anything any more.
    fn calm_down(&mut self) {
        self.story.tell(|| "from here on all is calm".to_owned());
        (self.calm, self.store_down, self.fuse) = (true, false, None);
        let now_ms = self.clock.real_ms;
        self.calm_since_ms = Some(now_ms);
        for vm in self.node.vms.values_mut() {
            vm.guest.heal(now_ms);
        }
        if self.daemon.is_none() {
            self.at(100, Event::Start);
        }
    }
}
