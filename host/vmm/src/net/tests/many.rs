//! Many at once.

use std::time::Instant;

use super::space::{Space, eventually};
use super::{Host, isolated};
use crate::instance::NetworkSpec;

/// Sets up `count` instances on `threads` threads, checks them, and removes them; milliseconds of both.
fn all_at_once(host: &Host, count: u8, threads: u8) -> (u128, u128) {
    let share = |thread: u8| (1..=count).filter(move |number| number % threads == thread);
    let start = Instant::now();
    let spaces: Vec<Space> = std::thread::scope(|scope| {
        let make = |number: u8| {
            let spec = NetworkSpec::Isolated(isolated(number));
            host.attach(&format!("i{number}"), &spec).expect("namespace")
        };
        let started: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || share(thread).map(make).collect::<Vec<_>>()))
            .collect();
        started.into_iter().flat_map(|thread| thread.join().expect("thread")).collect()
    });
    let made = start.elapsed().as_millis();
    assert_eq!(host.space.links().len(), usize::from(count) + 1);
    drop(spaces);

    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for number in share(thread) {
                    host.network.tear_down(&host.dir(&format!("i{number}"))).expect("torn down");
                }
            });
        }
    });
    let removed = start.elapsed().as_millis();
    assert_eq!(host.leftovers(), Vec::<String>::new());
    (made, removed)
}

#[test]
fn instances_come_and_go_side_by_side() {
    let Some(host) = Host::new() else { return };
    all_at_once(&host, 12, 4);
}

/// `cargo nextest run -p regatta-vmm --run-ignored only -E 'test(a_hundred)' --no-capture` prints what it takes.
#[test]
#[ignore = "a measurement"]
fn a_hundred() {
    let Some(host) = Host::new() else { return };
    for threads in [1, 8] {
        let (made, removed) = all_at_once(&host, 100, threads);
        println!("100 isolated networks, {threads} at a time: set up in {made} ms, removed in {removed} ms");
    }
    eventually("nothing left", || host.leftovers().is_empty());
}
