//! Many instances through the daemon: how fast they come, and what they cost once they are there.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regatta_util::percentile;
use serde_json::json;
use tokio::time::sleep;

use crate::bare;
use crate::figure::{Figure, Promise, ms, rounded};
use crate::rig::{Applied, Place, Rig};

/// Instances of both measurements.
const INSTANCES: u32 = 200;
const QUICK_INSTANCES: u32 = 20;

const FLEET: Promise = Promise {
    name: "fleet",
    target: "200 stand-in instances from apply to all in service: ≤ 1.5 × a bare loop that starts and boots the same",
    unit: "ratio",
    at_most: 1.5,
    method: "the time of `regatta apply` until the API says that all are in service, over that of a loop that starts \
             the same program, creates, boots and asks /healthz, one VM after the other; three rounds of each in turn, \
             median of the ratios; guests boot in no time; the policy is compiled in it",
};

const ROUNDS: usize = 3;

/// What a bare loop may do at once when it is not one by one: as many as the daemon launches.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) * 4
}

/// The figure of starting.
pub(crate) async fn start(place: &Place) -> Result<Figure> {
    let (instances, rounds) = place.effort.choose((INSTANCES, ROUNDS), (QUICK_INSTANCES, 1));
    let vmm = place.vmm();
    let (mut one_by_one, mut many_at_once) = (Vec::new(), Vec::new());
    let (mut cold, mut compiled) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one_by_one.push(bare::boot_all(&vmm, instances, 1).await?);
        many_at_once.push(bare::boot_all(&vmm, instances, at_once()).await?);
        let rig = Rig::start(place, "fleet").await?;
        cold.push(rig.apply(instances).await?);
        drop(rig);
        let rig = Rig::start(place, "fleet-compiled").await?;
        rig.apply_neighbour().await?;
        compiled.push(rig.apply(instances).await?);
    }
    let in_service =
        |applied: &[Applied]| applied.iter().map(|applied| applied.in_service).collect::<Vec<_>>();
    let accepted = |applied: &[Applied]| applied.iter().map(|applied| applied.accepted).collect::<Vec<_>>();
    let ratio = |daemon: &[Applied], bare: &[Duration]| -> f64 {
        let daemon = in_service(daemon);
        let ratios: Vec<f64> =
            daemon.iter().zip(bare).map(|(daemon, bare)| daemon.as_secs_f64() / bare.as_secs_f64()).collect();
        percentile(&ratios, 0.5).map_or(f64::NAN, rounded)
    };
    let all = |times: &[Duration]| times.iter().copied().map(ms).collect::<Vec<_>>();
    let detail = json!({
        "instances": instances,
        "daemon_ms": all(&in_service(&cold)),
        "of_it_until_apply_is_answered_ms": all(&accepted(&cold)),
        "bare_loop_ms": all(&one_by_one),
        "with_a_policy_that_another_set_uses": {
            "ratio": ratio(&compiled, &one_by_one),
            "daemon_ms": all(&in_service(&compiled)),
            "of_it_until_apply_is_answered_ms": all(&accepted(&compiled)),
        },
        "bare_loop_many_at_once": {
            "at_once": at_once(),
            "bare_loop_ms": all(&many_at_once),
            "ratio": ratio(&cold, &many_at_once),
            "ratio_with_a_policy_that_another_set_uses": ratio(&compiled, &many_at_once),
        },
    });
    Ok(FLEET.measured(ratio(&cold, &one_by_one), true, detail))
}

const STEADY: Promise = Promise {
    name: "steady",
    target: "the daemon with 200 instances and a tick of 1 s, steady: ≤ 4 % of one core, ≤ 100 MiB resident",
    unit: "percent of one core",
    at_most: 4.0,
    method: "user and system time of the daemon from /proc/PID/stat over 30 s, 10 s after all are in service; each \
             instance probed and scraped every second; resident size from /proc/PID/status at the end",
};

/// Resident memory may be at most this.
const MOST_RESIDENT_MIB: f64 = 100.0;

/// Until caches are warm and nothing of the launches is left.
const SETTLE: Duration = Duration::from_secs(10);

const WATCHED: Duration = Duration::from_secs(30);

/// The figure of running.
pub(crate) async fn steady(place: &Place) -> Result<Figure> {
    let (instances, settle, watched_for) = place
        .effort
        .choose((INSTANCES, SETTLE, WATCHED), (QUICK_INSTANCES, Duration::ZERO, Duration::from_secs(1)));
    let rig = Rig::start(place, "steady").await?;
    rig.apply(instances).await?;
    let pid = rig.daemon.pid().context("the daemon has ended")?;
    sleep(settle).await;
    let (before, start) = (cpu(pid)?, Instant::now());
    sleep(watched_for).await;
    let (after, watched) = (cpu(pid)?, start.elapsed());
    let user = percent(after.user - before.user, watched);
    let system = percent(after.system - before.system, watched);
    let resident_mib = status_mib(pid, "VmRSS")?;
    let detail = json!({
        "instances": instances,
        "percent_user": user,
        "percent_system": system,
        "resident_mib": resident_mib,
        "resident_at_most_mib": MOST_RESIDENT_MIB,
        "resident_peak_mib": status_mib(pid, "VmHWM")?,
        "resident_anonymous_mib": status_mib(pid, "RssAnon")?,
    });
    Ok(STEADY.measured(user + system, resident_mib <= MOST_RESIDENT_MIB, detail))
}

/// CPU time of a process.
struct Cpu {
    user: Duration,
    system: Duration,
}

fn cpu(pid: u32) -> Result<Cpu> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    cpu_of(&text, rustix::param::clock_ticks_per_second())
        .with_context(|| format!("cannot understand {path}"))
}

/// Reads fields 14 and 15 of proc_pid_stat(5): clock ticks in user and kernel mode.
fn cpu_of(stat: &str, ticks_per_second: u64) -> Option<Cpu> {
    // The second field is the program's name in parentheses, and may contain anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut time = || {
        let ticks: f64 = fields.next()?.parse().ok()?;
        Some(Duration::from_secs_f64(ticks / ticks_per_second as f64))
    };
    Some(Cpu { user: time()?, system: time()? })
}

fn percent(busy: Duration, of: Duration) -> f64 {
    rounded(busy.as_secs_f64() / of.as_secs_f64() * 100.0)
}

/// A size out of /proc/PID/status, MiB.
fn status_mib(pid: u32, field: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    mib_of(&text, field).with_context(|| format!("{path} has no {field}"))
}

fn mib_of(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(rounded(kib / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 8 0 99 1 2";
        let cpu = cpu_of(stat, 100).expect("understood");
        assert_eq!((cpu.user, cpu.system), (Duration::from_millis(1500), Duration::from_millis(500)));
        assert!(cpu_of("42 (a", 100).is_none());
        let status = "Name:\ta\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!((mib_of(status, "VmRSS"), mib_of(status, "VmHWM")), (Some(2.0), Some(4.0)));
        assert_eq!(mib_of(status, "Vm"), None);
    }

    #[test]
    fn this_process_has_used_its_cpu() {
        assert!(status_mib(std::process::id(), "VmRSS").expect("readable") > 0.0);
        cpu(std::process::id()).expect("readable");
    }
}
