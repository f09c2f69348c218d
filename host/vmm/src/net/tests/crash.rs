//! A daemon that is killed between any two steps of a set-up: what the next one's sweep leaves.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use super::space::eventually;
use super::{Host, bridged, dir_in, isolated};
use crate::instance::NetworkSpec;
use crate::net::{HostNetwork, Steps};

/// Tells the child which kind of network it makes, in which data directory, and where it dies.
const CHILD: &str = "REGATTA_TEST_NET_CRASH";

fn spec(kind: &str) -> NetworkSpec {
    match kind {
        "isolated" => NetworkSpec::Isolated(isolated(1)),
        _ => NetworkSpec::Bridged(bridged(2, true)),
    }
}

/// Not a test by itself: the process that [`killed_at_any_step`] kills.
#[test]
fn child() {
    let Some(order) = std::env::var_os(CHILD) else { return };
    let order = order.into_string().expect("text");
    let [kind, step, data] = order.splitn(3, '|').collect::<Vec<_>>().try_into().expect("three parts");
    let network = HostNetwork::new(Path::new(data));
    let cancelled = AtomicBool::new(false);
    let mut seen = |reached| {
        if reached == step {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).expect("killed");
        }
        Ok(())
    };
    let mut steps = Steps { cancelled: &cancelled, seen: &mut seen };
    let done = network.set_up_in_steps(&dir_in(Path::new(data), "a"), &spec(kind), None, &mut steps);
    panic!("lived on after {step}: {done:?}");
}

/// All steps of a set-up, in order.
fn steps_of(host: &Host, kind: &str) -> Vec<&'static str> {
    let cancelled = AtomicBool::new(false);
    let mut reached = Vec::new();
    let mut seen = |step| {
        reached.push(step);
        Ok(())
    };
    let mut steps = Steps { cancelled: &cancelled, seen: &mut seen };
    drop(host.network.set_up_in_steps(&host.dir("a"), &spec(kind), None, &mut steps).expect("set up"));
    reached
}

fn killed_at_any_step(kind: &str, at_least: usize) {
    let Some(host) = Host::new() else { return };
    let steps = steps_of(&host, kind);
    assert!(steps.len() >= at_least, "{steps:?}");
    assert_eq!(host.leftovers(), Vec::<String>::new());
    for step in steps {
        for by_record in [true, false] {
            let order = format!("{kind}|{step}|{}", host.data.path().display());
            let ended = host.space.run(|| {
                Command::new(std::env::current_exe().expect("own program"))
                    .args(["--exact", "net::tests::crash::child", "--nocapture"])
                    .env(CHILD, order)
                    .output()
                    .expect("child")
            });
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(ended.status.signal(), Some(9), "{step}: {}", String::from_utf8_lossy(&ended.stderr));
            let next = host.restarted();
            if by_record {
                // The instance is known: it is discarded, and the sweep has nothing left but what is shared.
                next.tear_down(&host.dir("a")).expect("torn down");
                next.sweep(&[host.dir("a")]).expect("swept");
            } else {
                next.sweep(&[]).expect("swept");
            }
            // A veth that had no alias yet is removed by the kernel with its namespace, which takes a moment.
            eventually(&format!("nothing left of one killed at \"{step}\""), || host.leftovers().is_empty());
        }
    }
}

#[test]
fn an_isolated_set_up_killed_at_any_step_is_cleaned_up() {
    killed_at_any_step("isolated", 8);
}

#[test]
fn a_bridged_set_up_killed_at_any_step_is_cleaned_up() {
    killed_at_any_step("bridged", 6);
}

#[test]
fn a_failure_at_any_step_is_undone_at_once() {
    for kind in ["isolated", "bridged"] {
        let Some(host) = Host::new() else { return };
        for step in steps_of(&host, kind) {
            let cancelled = AtomicBool::new(false);
            let mut seen = |reached| match reached == step {
                true => Err(crate::net::NetworkError::Cancelled),
                false => Ok(()),
            };
            let mut steps = Steps { cancelled: &cancelled, seen: &mut seen };
            host.network.set_up_in_steps(&host.dir("a"), &spec(kind), None, &mut steps).expect_err("failed");
            assert_eq!(host.leftovers(), Vec::<String>::new(), "failed at \"{step}\"");
        }
    }
}
