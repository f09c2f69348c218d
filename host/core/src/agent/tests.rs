//! What an agent does about each want, whatever it has; and what holds whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;

use super::reconcile::NOT_THERE;
use super::*;
use crate::machine::testing::manifest;

const LEFT: u64 = 1 << 40;

fn key(id: u32) -> Key {
    Key { set: "web".into(), id }
}

fn host() -> HostRoom {
    HostRoom { memory_bytes: 4 << 30, vcpus: 100, disk_bytes: LEFT, open_files: 1_000 }
}

fn demand() -> Demand {
    Demand { memory_bytes: 1 << 30, vcpus: 1, disk_bytes: 1 << 20, open_files: 4 }
}

fn agent() -> Agent {
    Agent::new(Placement::default(), host())
}

fn set() -> Arc<ScaleSet> {
    static SET: LazyLock<Arc<ScaleSet>> = LazyLock::new(|| Arc::new(manifest("")));
    Arc::clone(&SET)
}

fn want(id: u32, order: Order) -> Input {
    let want =
        Want { id, uid: format!("7-{id}"), epoch: 3, generation: 2, created_ms: 1_000, restart: None, order };
    Input::Want { want, demand: demand(), disk_left_bytes: LEFT }
}

fn run(id: u32, phase: Phase) -> Input {
    let manifest = set();
    let watch = Arc::new(Watch::of(&manifest));
    want(id, Order::Run { phase, manifest, watch })
}

fn stop(id: u32) -> Input {
    want(id, Order::Stop(StopOrder { grace_ms: 9, failure: None }))
}

fn reported(effects: &[Effect]) -> Vec<&Report> {
    let reports = effects.iter().filter_map(|effect| match effect {
        Effect::Report { report, .. } => Some(report),
        _ => None,
    });
    reports.collect()
}

fn only_report(effects: &[Effect]) -> &Report {
    match effects {
        [Effect::Report { report, .. }] => report,
        _ => panic!("one report: {effects:?}"),
    }
}

fn nothing_is_taken(agent: &Agent) -> bool {
    let network = &set().network;
    let fresh = super::tests::agent();
    agent.capacity(demand(), network, 1_000, LEFT) == fresh.capacity(demand(), network, 1_000, LEFT)
        && agent.addresses.left(network) == fresh.addresses.left(network)
}

/// An agent that has instance 1 in that state.
fn having(have: &Have) -> Agent {
    let mut agent = agent();
    match have {
        Have::Refused { .. } => {
            let Input::Want { want, demand, .. } = run(1, Phase::Pending) else { unreachable!() };
            agent.on(&key(1), Input::Want { want, demand, disk_left_bytes: 0 });
        }
        Have::Held => drop(agent.on(&key(1), run(1, Phase::Pending))),
        Have::Stopping => {
            agent.on(&key(1), run(1, Phase::Pending));
            agent.on(&key(1), stop(1));
        }
        Have::Cleaned { note } => {
            agent.on(&key(1), run(1, Phase::Pending));
            agent.on(&key(1), stop(1));
            agent.on(&key(1), Input::News(Report::Cleaned { note: note.clone() }));
        }
    }
    agent
}

#[test]
fn a_new_instance_is_admitted_and_launched_with_its_identity() {
    let mut agent = agent();
    let effects = agent.on(&key(1), run(1, Phase::Pending));
    let address = Ipv4Addr::new(127, 40, 0, 1);
    let [Effect::Report { report, .. }, Effect::Launch { identity, manifest }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(report, &Report::Admitted { address });
    assert_eq!(manifest, &set());
    let expected = Identity {
        set: "web".into(),
        id: 1,
        uid: "7-1".into(),
        epoch: 3,
        generation: 2,
        created_ms: 1_000,
        address,
    };
    assert_eq!(identity, &expected);
}

#[test]
fn what_does_not_fit_is_refused_and_takes_nothing() {
    let mut agent = agent();
    for id in 1..=4 {
        assert_eq!(agent.on(&key(id), run(id, Phase::Pending)).len(), 2);
    }
    let effects = agent.on(&key(5), run(5, Phase::Pending));
    let Report::Refused { why } = only_report(&effects) else { panic!("{effects:?}") };
    assert!(why.starts_with("not enough memory on the host"), "{why}");
    let capacity = agent.capacity(demand(), &set().network, 3, LEFT);
    assert_eq!((capacity.launches, capacity.why.is_some()), (0, true));
    assert_eq!(agent.held().count(), 4);

    let small =
        Arc::new(manifest("network: { mode: loopback, pool: 127.50.0.0/30 }\ncapacity: { min: 0, max: 2 }"));
    let watch = Arc::new(Watch::of(&small));
    let mut agent = super::tests::agent();
    let run =
        |id| want(id, Order::Run { phase: Phase::Pending, manifest: small.clone(), watch: watch.clone() });
    agent.on(&key(1), run(1));
    agent.on(&key(2), run(2));
    let effects = agent.on(&key(3), run(3));
    assert_eq!(only_report(&effects), &Report::Refused { why: "no free address in the set's pool".into() });
    let capacity = agent.capacity(demand(), &small.network, 3, LEFT);
    assert_eq!((capacity.launches, capacity.why.as_deref()), (0, Some(NO_ADDRESS)));
    for id in [1, 2] {
        agent.on(&key(id), stop(id));
        agent.on(&key(id), Input::News(Report::Cleaned { note: None }));
    }
    assert!(nothing_is_taken(&agent), "what was refused had given its memory back");
}

#[test]
fn every_want_meets_everything_that_an_agent_has() {
    let note = Some("killed".to_owned());
    let all = [
        Have::Refused { why: String::new() },
        Have::Held,
        Have::Stopping,
        Have::Cleaned { note: note.clone() },
    ];
    for have in all {
        for phase in [Phase::Pending, Phase::Booting, Phase::InService, Phase::Draining] {
            let mut agent = having(&have);
            let before = agent.have(&key(1)).cloned();
            for again in 0..2 {
                let effects = agent.on(&key(1), run(1, phase));
                match &have {
                    Have::Refused { .. } => {
                        assert!(matches!(only_report(&effects), Report::Refused { .. }), "{effects:?}");
                    }
                    Have::Cleaned { .. } => {
                        assert_eq!(only_report(&effects), &Report::Cleaned { note: note.clone() });
                    }
                    Have::Held | Have::Stopping => {
                        assert!(effects.is_empty(), "{have:?}, {phase}, {again}: {effects:?}");
                    }
                }
                assert_eq!(agent.have(&key(1)).cloned(), before, "a want to run changes nothing");
            }
        }
        let mut agent = having(&have);
        let effects = agent.on(&key(1), stop(1));
        match &have {
            Have::Refused { .. } => assert_eq!(only_report(&effects), &Report::Cleaned { note: None }),
            Have::Held => {
                assert!(matches!(
                    effects.as_slice(),
                    [Effect::Stop { order: StopOrder { grace_ms: 9, .. }, .. }]
                ));
            }
            Have::Stopping => assert!(effects.is_empty(), "asked again, nothing changes"),
            Have::Cleaned { .. } => {
                assert_eq!(only_report(&effects), &Report::Cleaned { note: note.clone() });
            }
        }
    }
    // Of what it knows nothing, only a pending one is launched.
    for phase in [Phase::Creating, Phase::Booting, Phase::InService, Phase::Unhealthy, Phase::Draining] {
        let effects = agent().on(&key(1), run(1, phase));
        assert_eq!(only_report(&effects), &Report::Exited { why: NOT_THERE.into() }, "{phase}");
    }
    assert!(
        matches!(agent().on(&key(1), stop(1)).as_slice(), [Effect::Stop { .. }]),
        "its remains are removed"
    );
}

#[test]
fn an_instance_is_forgotten_when_nothing_is_left_and_its_owner_knows() {
    let note = None;
    for have in [
        Have::Refused { why: String::new() },
        Have::Held,
        Have::Stopping,
        Have::Cleaned { note: note.clone() },
    ] {
        let mut agent = having(&have);
        assert!(agent.on(&key(1), Input::Forget).is_empty());
        let kept = matches!(have, Have::Held | Have::Stopping);
        assert_eq!(agent.have(&key(1)).is_some(), kept, "{have:?}");
        assert_eq!(nothing_is_taken(&agent), !kept);
    }
}

#[test]
fn a_guest_is_watched_while_it_runs() {
    let mut agent = agent();
    agent.on(&key(1), run(1, Phase::Pending));
    let booted = Input::News(Report::Booted(Running::default()));
    let watches = |effects: &[Effect]| {
        let phase = |effect: &Effect| match effect {
            Effect::Watch { phase, .. } => Some(*phase),
            _ => None,
        };
        effects.iter().filter_map(phase).collect::<Vec<_>>()
    };
    assert_eq!(watches(&agent.on(&key(1), booted)), [Phase::Pending]);
    assert!(agent.on(&key(1), run(1, Phase::InService)).is_empty(), "the same again changes nothing");

    let other = Arc::new(manifest("health: { http: /other }"));
    let watch = Arc::new(Watch::of(&other));
    let order = Order::Run { phase: Phase::InService, manifest: set(), watch: watch.clone() };
    let effects = agent.on(&key(1), want(1, order));
    assert!(
        matches!(effects.as_slice(), [Effect::Watch { watch: now, phase: Phase::InService, .. }] if *now == watch)
    );
    assert_eq!(watches(&agent.on(&key(1), Input::News(Report::GuestRebooted))), [Phase::Booting]);

    let ends = [
        Report::Exited { why: "killed".into() },
        Report::GuestPanicked,
        Report::LaunchFailed { why: "no kernel".into() },
    ];
    for end in ends {
        let mut agent = agent.clone();
        let effects = agent.on(&key(1), Input::News(end.clone()));
        assert!(matches!(effects.as_slice(), [Effect::Report { .. }, Effect::Unwatch { .. }]), "{end:?}");
        assert!(agent.on(&key(1), run(1, Phase::InService)).is_empty(), "what does not run is not watched");
    }
    let effects = agent.on(&key(1), stop(1));
    assert!(matches!(effects.as_slice(), [Effect::Unwatch { .. }, Effect::Stop { .. }]));
}

#[test]
fn a_want_that_comes_before_the_boot_says_how_it_is_watched() {
    let mut agent = agent();
    agent.on(&key(1), run(1, Phase::Pending));
    let watch = Arc::new(Watch::of(&manifest("health: { http: /other }")));
    let order = Order::Run { phase: Phase::Creating, manifest: set(), watch: watch.clone() };
    assert!(agent.on(&key(1), want(1, order)).is_empty());
    let effects = agent.on(&key(1), Input::News(Report::Booted(Running::default())));
    assert!(matches!(effects.last(), Some(Effect::Watch { watch: now, .. }) if *now == watch));
}

#[test]
fn an_agent_that_was_started_again_keeps_what_runs() {
    let at = Ipv4Addr::new(127, 40, 0, 9);
    let address = Some(at);
    for found in [
        Found::Running(Running::default()),
        Found::Unreachable(Running::default()),
        Found::HalfMade,
        Found::Nothing,
    ] {
        let mut agent = agent();
        let effects = agent.on(&key(1), Input::Found { found: found.clone(), address, demand: demand() });
        let admitted = Report::Admitted { address: at };
        assert_eq!(reported(&effects), [&admitted, &Report::Found(found.clone())]);
        assert_eq!(agent.capacity(demand(), &set().network, 9, LEFT).launches, 3, "it is counted");
        let effects = agent.on(&key(1), run(1, Phase::InService));
        let runs = matches!(found, Found::Running(_) | Found::Unreachable(_));
        assert_eq!(effects.len(), usize::from(runs), "{found:?}: {effects:?}");
        assert!(effects.iter().all(|effect| matches!(effect, Effect::Watch { phase: Phase::InService, .. })));
        assert!(matches!(agent.on(&key(1), stop(1)).last(), Some(Effect::Stop { .. })));
        agent.on(&key(1), Input::News(Report::Cleaned { note: None }));
        assert!(nothing_is_taken(&agent));
    }
}

#[test]
fn an_owner_that_asks_again_stops_nothing_and_takes_no_stop_back() {
    let address = Some(Ipv4Addr::new(127, 40, 0, 1));
    let found = Input::Found { found: Found::Running(Running::default()), address, demand: demand() };
    let all = [Have::Held, Have::Stopping, Have::Cleaned { note: None }];
    for have in all {
        let mut agent = having(&have);
        agent.on(&key(1), found.clone());
        assert_eq!(agent.have(&key(1)), Some(&have));
        assert_eq!(nothing_is_taken(&agent), matches!(have, Have::Cleaned { .. }));
    }
}

#[test]
fn what_belongs_to_no_owner_is_counted_too() {
    let mut agent = agent();
    let template = key(u32::MAX);
    let taken = agent.take_apart(template.clone(), &set().network, demand(), LEFT).expect("there is room");
    assert_eq!(agent.held().collect::<Vec<_>>(), [(&template, Some(taken))]);
    agent.take_apart(key(9), &set().network, demand(), 0).expect_err("the disk is full");
    agent.give_back(&template);
    assert!(nothing_is_taken(&agent) && agent.held().count() == 0);
}

#[derive(Debug, Clone)]
enum Step {
    Run(u32, Phase),
    Stop(u32),
    Forget(u32),
    News(u32, Report),
    FoundAgain(u32),
    DiskFull(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let ids = 1..9_u32;
    let phases = [Phase::Pending, Phase::Pending, Phase::Booting, Phase::InService, Phase::Draining];
    let why = || "why".to_owned();
    let news = [
        Report::LaunchStarted,
        Report::Booted(Running::default()),
        Report::LaunchFailed { why: why() },
        Report::Exited { why: why() },
        Report::GuestPanicked,
        Report::GuestRebooted,
        Report::NotRestarted { why: "why".into() },
        Report::EventsRead { bytes: 9 },
        Report::Stuck { why: why() },
    ];
    prop_oneof![
        4 => (ids.clone(), proptest::sample::select(phases.to_vec())).prop_map(|(id, phase)| Step::Run(id, phase)),
        2 => ids.clone().prop_map(Step::Stop),
        1 => ids.clone().prop_map(Step::Forget),
        4 => (ids.clone(), proptest::sample::select(news.to_vec())).prop_map(|(id, news)| Step::News(id, news)),
        2 => ids.clone().prop_map(|id| Step::News(id, Report::Cleaned { note: None })),
        1 => ids.clone().prop_map(Step::FoundAgain),
        1 => ids.prop_map(Step::DiskFull),
    ]
}

proptest! {
    #[test]
    fn whatever_happens(steps in vec(step(), 1..150)) {
        let mut agent = agent();
        // Those that were told to stop, and whose end was not told yet.
        let mut stopping = BTreeSet::new();
        let mut asked_to_stop = BTreeSet::new();
        for step in steps {
            let (id, input) = match step {
                Step::Run(id, phase) => (id, run(id, phase)),
                Step::Stop(id) => {
                    asked_to_stop.insert(id);
                    (id, stop(id))
                }
                Step::Forget(id) => (id, Input::Forget),
                // A node tells the end only of what it was told to end.
                Step::News(id, Report::Cleaned { .. }) if !stopping.contains(&id) => continue,
                Step::News(id, news) => (id, Input::News(news)),
                Step::FoundAgain(id) => {
                    let Some((_, address)) = agent.held().find(|(held, _)| held.id == id) else { continue };
                    (id, Input::Found { found: Found::Running(Running::default()), address, demand: demand() })
                }
                Step::DiskFull(id) => {
                    let Input::Want { want, demand, .. } = run(id, Phase::Pending) else { unreachable!() };
                    (id, Input::Want { want, demand, disk_left_bytes: 0 })
                }
            };
            let cleaned = matches!(input, Input::News(Report::Cleaned { .. }));
            for effect in agent.on(&key(id), input) {
                match effect {
                    Effect::Stop { key, .. } => {
                        prop_assert!(asked_to_stop.contains(&key.id), "nobody wanted it stopped");
                        prop_assert!(stopping.insert(key.id), "stopped twice");
                    }
                    Effect::Launch { identity, .. } => {
                        prop_assert!(!stopping.contains(&identity.id), "launched while it is stopped");
                    }
                    Effect::Watch { key, .. } => prop_assert_eq!(agent.have(&key), Some(&Have::Held)),
                    Effect::Restart { .. } => prop_assert!(false, "nobody wanted it restarted"),
                    Effect::Unwatch { .. } | Effect::Report { .. } => {}
                }
            }
            if cleaned {
                stopping.remove(&id);
                asked_to_stop.remove(&id);
            }
            let mut by_address = BTreeMap::new();
            for (key, address) in agent.held() {
                if let Some(address) = address {
                    prop_assert_eq!(by_address.insert(address, key.id), None, "two at {}", address);
                }
            }
            prop_assert!(by_address.len() <= 4, "more than the node has memory for");
        }
        for id in 1..9 {
            if agent.have(&key(id)).is_some() {
                agent.on(&key(id), stop(id));
                agent.on(&key(id), Input::News(Report::Cleaned { note: None }));
                agent.on(&key(id), Input::Forget);
            }
        }
        prop_assert!(nothing_is_taken(&agent));
        prop_assert_eq!(agent.instances.len(), 0);
    }
}

#[test]
fn an_orphan_is_counted_once_whoever_it_comes_to_belong_to() {
    let mut agent = agent();
    let address = Ipv4Addr::new(127, 40, 0, 1);
    agent.keep_orphan(key(1), Some(address), demand());
    let beside = agent.capacity(demand(), &set().network, 1_000, LEFT);
    let effects = agent.on(&key(2), run(2, Phase::Pending));
    let taken = effects.iter().find_map(|effect| match effect {
        Effect::Report { report: Report::Admitted { address }, .. } => Some(*address),
        _ => None,
    });
    assert_eq!(taken, Some(Ipv4Addr::new(127, 40, 0, 2)), "its address is given to nobody else");
    agent.on(&key(2), stop(2));
    agent.on(&key(2), Input::News(Report::Cleaned { note: None }));

    let found = Found::Running(Running::default());
    agent.on(&key(1), Input::Found { found, address: Some(address), demand: demand() });
    assert_eq!(agent.capacity(demand(), &set().network, 1_000, LEFT), beside, "adopted, it is counted once");
    agent.on(&key(1), stop(1));
    agent.on(&key(1), Input::News(Report::Cleaned { note: None }));
    assert!(nothing_is_taken(&agent));

    agent.keep_orphan(key(3), Some(address), demand());
    agent.give_back(&key(3));
    assert!(nothing_is_taken(&agent));
}

#[test]
fn a_restart_is_done_once_per_number_and_again_when_it_could_not_be_done() {
    let mut agent = having(&Have::Held);
    let restarts = |agent: &mut Agent, number| {
        let Input::Want { want, demand, disk_left_bytes } = run(1, Phase::Draining) else { unreachable!() };
        let want = Want { restart: Some(number), ..want };
        let effects = agent.on(&key(1), Input::Want { want, demand, disk_left_bytes });
        effects.iter().filter(|effect| matches!(effect, Effect::Restart { .. })).count()
    };
    assert_eq!(restarts(&mut agent, 1), 0, "no guest runs yet");
    agent.on(&key(1), Input::News(Report::Booted(Running::default())));
    assert_eq!([restarts(&mut agent, 1), restarts(&mut agent, 1), restarts(&mut agent, 2)], [1, 0, 1]);
    agent.on(&key(1), Input::News(Report::NotRestarted { why: "busy".into() }));
    assert_eq!([restarts(&mut agent, 2), restarts(&mut agent, 2)], [1, 0]);
}
