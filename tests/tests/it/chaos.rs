//! The daemon is killed at random moments under churn, again and again: every VM
//! that serves lives on, none is lost, none is there twice.
//!
//! What must live on is not asked of the daemon. It is worked out after each kill
//! from a copy of the store (what was durable), `/proc` (what runs) and the guests
//! (what serves).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use regatta_core::phase::Phase;
use regatta_core::state::{InstanceRecord, SetState};
use regatta_store::{Options, RedbStore, StateStore};
use regatta_tests::{Daemon, get, wait_for};
use serde_json::Value;

/// Kills, unless `REGATTA_TEST_CHAOS_ROUNDS` says otherwise.
const ROUNDS: u32 = 15;
/// The sets, each with a policy that keeps what it finds; the last comes and goes.
const SETS: [&str; 4] = ["web", "db", "slow", "brief"];
const MAX: u32 = 5;
const KEEP: &str = r#"{"metric":"cpu","target":1000000,"scale_in":false}"#;
const STEP: &str =
    r#"{"metric":"cpu","scale_out":[{"above":1000,"add":1}],"scale_in":[{"below":-1,"remove":1}]}"#;

/// A VMM process of this test, by `/proc`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Vmm {
    set: String,
    id: u32,
    pid: u32,
    /// Clock ticks since boot: tells it from a later process with the same id.
    start_time: u64,
}

/// A VMM that the next daemon must find and leave alone.
#[derive(Debug)]
struct Survivor {
    vmm: Vmm,
    address: SocketAddr,
    /// Requests that its guest had served.
    served: u64,
}

type Stored = BTreeMap<String, (SetState, BTreeMap<u32, InstanceRecord>)>;

struct Chaos {
    daemon: Daemon,
    random: SmallRng,
    manifests: BTreeMap<&'static str, String>,
    lb: SocketAddr,
    /// Connections that keep instances draining for a while.
    open: Vec<TcpStream>,
    /// Commands under way.
    commands: Vec<Child>,
    /// What was done, for the message of a failure.
    story: Vec<String>,
}

#[test]
fn killed_again_and_again_under_churn() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let seed = from_environment("REGATTA_TEST_SEED").unwrap_or_else(|| u64::from(now.subsec_nanos()));
    let rounds = from_environment("REGATTA_TEST_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    println!("REGATTA_TEST_SEED={seed} repeats the choices of this test");
    let mut chaos = Chaos::begin(seed);
    let mut survived = 0;
    for round in 1..=rounds {
        chaos.story.push(format!("-- round {round}"));
        survived += chaos.round();
    }
    println!("{survived} times a VM outlived a daemon, in {rounds} rounds");
    assert!(survived > rounds as usize, "hardly anything ran when the daemon was killed");
    chaos.end();
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|value| value.parse().ok().unwrap_or_else(|| panic!("{name}={value}")))
}

impl Chaos {
    fn begin(seed: u64) -> Self {
        let daemon = Daemon::start();
        let lb = Daemon::free_port();
        let manifests: BTreeMap<&'static str, String> = SETS
            .into_iter()
            .map(|name| {
                let mut extra = format!(
                    "policy: {{ module: target-tracking, params: {KEEP} }}\nrepair: {{ grace: 60s }}"
                );
                if name == "web" {
                    extra = format!("load_balancer: {{ listen: \"{lb}\", drain_timeout: 1s }}\n{extra}");
                }
                // Slow enough that kills fall into launches, quick enough to settle.
                let sim = if name == "slow" { "sim.boot=uniform(100ms,600ms)" } else { "" };
                let capacity = format!("{{ min: 1, max: {MAX}, initial: 2 }}");
                let manifest = daemon
                    .manifest(name, &capacity, sim, &extra)
                    .replace("tick: 200ms", "tick: 100ms")
                    // A busy machine shall not make a guest unhealthy here.
                    .replace("unhealthy_threshold: 3", "unhealthy_threshold: 20");
                (name, manifest)
            })
            .collect();
        let random = SmallRng::seed_from_u64(seed);
        let chaos =
            Self { daemon, random, manifests, lb, open: Vec::new(), commands: Vec::new(), story: Vec::new() };
        for name in SETS {
            chaos.apply_now(name);
        }
        for name in SETS {
            chaos.daemon.wait_in_service(name, 2);
        }
        chaos
    }

    /// Churn, kill, restart, judgement. Returns how many VMs had to live on.
    fn round(&mut self) -> usize {
        for _ in 0..self.random.random_range(1..=5) {
            self.churn();
            self.pause(120);
        }
        self.pause(300);
        self.daemon.kill();
        // Those that did not get through fail now, and cannot reach the next daemon.
        for mut command in self.commands.drain(..) {
            command.wait().expect("a command ends");
        }
        let stored = self.stored();
        let survivors = self.survivors(&stored);
        self.story.push(format!("killed; must live on: {survivors:?}"));

        // A daemon that dies while it comes back must not do harm either.
        for _ in 0..self.random.random_range(0..=2) {
            self.daemon.spawn();
            self.pause(400);
            self.daemon.kill();
            self.story.push("killed while coming back".to_owned());
        }
        self.open.clear();
        self.daemon.launch();
        self.settle();
        self.judge(&stored, &survivors);
        survivors.len()
    }

    /// Does something to some set, and does not wait for it.
    fn churn(&mut self) {
        let set = SETS[self.random.random_range(0..SETS.len())];
        match self.random.random_range(0..14) {
            0..=5 => {
                let capacity = self.random.random_range(1..=MAX).to_string();
                self.command(&["scale", set, &capacity]);
            }
            6 | 7 => {
                let vmms = self.vmms();
                if !vmms.is_empty() {
                    let vmm = &vmms[self.random.random_range(0..vmms.len())];
                    self.story.push(format!("kill {vmm:?}"));
                    kill(vmm.pid);
                }
            }
            8 => self.command(&["policy", "swap", set, "step", "--params", STEP]),
            9 => self.command(&["policy", "swap", set, "target-tracking", "--params", KEEP]),
            10 => {
                let grace = format!("grace: {}s", self.random.random_range(60..90));
                let manifest = self.manifests[set].replace("grace: 60s", &grace);
                let file = format!("{set}-again.yaml");
                fs::write(self.daemon.home().join(&file), manifest).expect("a manifest");
                self.command(&["apply", "-f", &file]);
            }
            11 => self.command(&["delete", "brief", "--yes"]),
            _ => {
                self.story.push("hold connections".to_owned());
                for _ in 0..8 {
                    let Ok(mut stream) = TcpStream::connect(self.lb) else { continue };
                    // The rest of the request never comes. Whether it is taken does not matter.
                    let _ = stream.write_all(b"GET / HTTP/1.1\r\n");
                    self.open.push(stream);
                }
            }
        }
    }

    fn command(&mut self, args: &[&str]) {
        self.story.push(args.join(" "));
        let mut command = self.daemon.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.commands.push(command.spawn().expect("regatta runs"));
    }

    /// Random, so that the kill falls anywhere.
    fn pause(&mut self, at_most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..=at_most_ms)));
    }

    fn apply_now(&self, set: &str) {
        let (file, manifest) = (format!("{set}.yaml"), &self.manifests[set]);
        fs::write(self.daemon.home().join(&file), manifest).expect("a manifest");
        let applied = self.daemon.run(&["apply", "-f", &file]);
        assert_eq!(applied.code, 0, "{}\n{}", applied.err, self.daemon.log());
    }

    /// What was durable when the daemon died: read from a copy, so that the real
    /// file is found by the next daemon as the last one left it.
    fn stored(&self) -> Stored {
        let copy = tempfile::tempdir().expect("a directory");
        let file = "state.redb";
        fs::copy(self.daemon.data().join(file), copy.path().join(file)).expect("a store");
        let store =
            RedbStore::open(copy.path(), Options::default()).expect("what a crash leaves can be opened");
        let sets = store.load().expect("what a crash leaves can be read");
        let by_id = |instances: Vec<InstanceRecord>| instances.into_iter().map(|i| (i.id, i)).collect();
        sets.into_iter().map(|it| (it.state.set.name.clone(), (it.state, by_id(it.instances)))).collect()
    }

    /// VMs whose guest is up, and that were not written down as on their way out.
    fn survivors(&self, stored: &Stored) -> Vec<Survivor> {
        let stays = |vmm: Vmm| {
            let (state, instances) = stored.get(&vmm.set)?;
            let record = instances.get(&vmm.id).unwrap_or_else(|| panic!("{vmm:?} was never written down"));
            let leaving =
                matches!(record.phase, Phase::Draining | Phase::Terminating | Phase::Failed | Phase::Gone);
            if leaving || state.deleting {
                return None;
            }
            let address = SocketAddr::from((record.address?, state.set.network.port().expect("a network")));
            let served = requests(address).ok()?;
            Some(Survivor { vmm, address, served })
        };
        self.vmms().into_iter().filter_map(stays).collect()
    }

    /// Waits until every set is as large as it shall be, with nothing beside it.
    fn settle(&self) {
        wait_for("all sets to settle", || {
            let sets = self.daemon.json(&["get"]);
            let sets = sets.as_array().expect("sets");
            for name in SETS {
                match sets.iter().find(|set| set["name"] == name) {
                    None => {
                        self.apply_now(name);
                        return Err(format!("{name} is made again"));
                    }
                    Some(set) if set["deleting"] == true => return Err(format!("{name} is being deleted")),
                    Some(_) => {}
                }
            }
            let mut known = BTreeSet::new();
            for set in sets {
                let name = set["name"].as_str().expect("a name");
                let instances = self.daemon.json(&["instances", name]);
                let instances = instances.as_array().expect("instances");
                let settled = instances.iter().all(|i| i["state"] == "in-service")
                    && instances.len() as u64 == set["desired"].as_u64().expect("a number");
                if !settled {
                    return Err(format!("{set} {instances:?}\n{}", self.told()));
                }
                known
                    .extend(instances.iter().map(|i| (name.to_owned(), number(&i["id"]), number(&i["pid"]))));
            }
            let running: BTreeSet<_> =
                self.vmms().into_iter().map(|vmm| (vmm.set, vmm.id, vmm.pid)).collect();
            if running == known { Ok(()) } else { Err(format!("{known:?} are known, {running:?} run")) }
        });
    }

    fn judge(&self, stored: &Stored, survivors: &[Survivor]) {
        let vmms = self.vmms();
        let ids: Vec<(&str, u32)> = vmms.iter().map(|vmm| (vmm.set.as_str(), vmm.id)).collect();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "twice: {vmms:?}\n{}", self.told());

        for survivor in survivors {
            if vmms.contains(&survivor.vmm) {
                let served = requests(survivor.address).expect("the guest goes on serving");
                assert!(
                    served > survivor.served,
                    "{survivor:?} began to count anew, {served}\n{}",
                    self.told()
                );
            } else {
                let why = self.scaled_in(&survivor.vmm, stored);
                assert!(why, "{survivor:?} was lost; now there are {vmms:?}\n{}", self.told());
            }
        }
        for (name, (state, instances)) in stored {
            let counted = instances.values().filter(|i| i.phase.counts_as_capacity()).count();
            let surplus = counted.saturating_sub(state.desired as usize);
            let lost = survivors.iter().filter(|s| s.vmm.set == *name && !vmms.contains(&s.vmm)).count();
            assert!(lost <= surplus, "{lost} of {name} went, {surplus} were too many\n{}", self.told());
            if !state.deleting {
                wait_for("ticks to go on where they were", || {
                    let last = self.daemon.json(&["describe", name])["summary"]["last_tick"].as_u64();
                    if last > Some(state.last_tick) { Ok(()) } else { Err(format!("{last:?}")) }
                });
            }
        }
        wait_for("no directory but those of the VMMs", || {
            let there = instance_dirs(&self.daemon);
            let wanted: BTreeSet<_> = vmms.iter().map(|vmm| format!("{}/{}", vmm.set, vmm.id)).collect();
            if there == wanted { Ok(()) } else { Err(format!("{there:?}, wanted {wanted:?}")) }
        });
        wait_for("the load balancer", || match get(self.lb, "/")?.status {
            200 => Ok(()),
            status => Err(format!("status {status}")),
        });
    }

    /// Whether a tick after the kill gave it up because there were too many.
    fn scaled_in(&self, vmm: &Vmm, stored: &Stored) -> bool {
        let after = stored[&vmm.set].0.last_tick.to_string();
        let records = self.daemon.run(&["records", &vmm.set, "--after", &after]);
        records.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|record| {
            record["plan"]["actions"]
                .as_array()
                .expect("actions")
                .iter()
                .any(|action| action["id"] == vmm.id && matches!(action["cause"].as_str(), Some("scale-in")))
        })
    }

    /// Deletes everything: nothing may be left.
    fn end(mut self) {
        for set in SETS {
            let deleted = self.daemon.run(&["delete", set, "--yes", "--wait"]);
            assert_eq!(deleted.code, 0, "{}\n{}", deleted.err, self.told());
        }
        assert_eq!(self.vmms(), []);
        wait_for("no leftovers", || {
            let left: Vec<_> =
                fs::read_dir(self.daemon.data().join("instances")).expect("it").flatten().collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
        let unfinished: Vec<_> = fs::read_dir(self.daemon.data().join("images"))
            .expect("images")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains("tmp") || name.starts_with('.'))
            .collect();
        assert_eq!(unfinished, Vec::<String>::new(), "half an image");
        assert!(self.daemon.stop().success());
        let sockets: Vec<_> = fs::read_dir(self.daemon.data()).expect("data").flatten().collect();
        assert!(!sockets.iter().any(|entry| entry.file_name() == "api.sock"), "{sockets:?}");
    }

    fn told(&self) -> String {
        let from = self.story.len().saturating_sub(30);
        self.story[from..].join("\n")
    }

    /// All VMMs of this test, sorted by set and id.
    fn vmms(&self) -> Vec<Vmm> {
        let instances = format!("{}/", self.daemon.data().join("instances").display());
        let of_pid = |pid: u32| {
            let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command_line = String::from_utf8_lossy(&command_line).into_owned();
            let socket = command_line.split('\0').find(|arg| arg.ends_with("/api.sock"))?;
            let (set, id) = socket.split_once(&instances)?.1.strip_suffix("/api.sock")?.split_once('/')?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name in parentheses may hold anything; what follows it are plain fields, from the third on.
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            if matches!(fields[0], "Z" | "X") {
                return None;
            }
            Some(Vmm { set: set.to_owned(), id: id.parse().ok()?, pid, start_time: fields[19].parse().ok()? })
        };
        let mut vmms: Vec<Vmm> = self.daemon.vmm_processes().into_iter().filter_map(of_pid).collect();
        vmms.sort();
        vmms
    }
}

fn instance_dirs(daemon: &Daemon) -> BTreeSet<String> {
    let root = daemon.data().join("instances");
    let names = |path: &std::path::Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    names(&root)
        .into_iter()
        .flat_map(|set| names(&root.join(&set)).into_iter().map(move |id| format!("{set}/{id}")))
        .collect()
}

/// Requests that a guest has served, this one included.
fn requests(address: SocketAddr) -> Result<u64, String> {
    get(address, "/")?;
    let page = get(address, "/metrics")?.body;
    let line = page.lines().find(|line| line.starts_with("guest_requests_total")).ok_or("no counter")?;
    let value = line.split_whitespace().last().and_then(|value| value.parse::<u64>().ok());
    value.ok_or_else(|| format!("no number: {line}"))
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
