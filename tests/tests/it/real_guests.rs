//! The whole way with guests that really boot: from a golden image to a fleet behind a load balancer, and back to nothing.
//!
//! On the stand-in with QEMU inside, everywhere; on Cloud Hypervisor itself where there is one (`CLOUD_HYPERVISOR=/path`, or
//! on PATH) and a kernel that boots on it (`REGATTA_TEST_KERNEL=/path/to/vmlinux`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use regatta_tests::{Daemon, bin_dir, enter_own_network, get, traces_in_own_network, wait_within};
use regatta_util::program::on_path;
use rustix::process::{Pid, Signal};

/// Emulated guests on a busy machine boot slowly.
const BOOT: Duration = Duration::from_secs(180);
/// No load goes on for longer, whatever happens.
const LOAD_AT_MOST: Duration = Duration::from_secs(240);

/// A daemon in a network of its own, with a set `web` behind a load balancer.
struct Fleet {
    daemon: Daemon,
    lb: SocketAddr,
    begun: Instant,
}

impl Fleet {
    fn say(&self, what: &str) {
        println!("[{:6.1} s] {what}", self.begun.elapsed().as_secs_f64());
    }

    fn wait(&self, count: u64) {
        self.daemon.wait_in_service_within(BOOT, "web", count);
        self.say(&format!("{count} in service"));
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.daemon.run(arguments);
        assert_eq!(output.code, 0, "regatta {arguments:?}: {}\n{}", output.out, output.err);
        output.out
    }

    fn pids(&self) -> BTreeMap<u64, u32> {
        self.daemon.vm_pids("web").into_iter().collect()
    }

    /// Where the host reaches each instance.
    fn addresses(&self) -> BTreeMap<u64, SocketAddr> {
        let instances = self.daemon.json(&["instances", "web"]);
        let address = |instance: &serde_json::Value| {
            let address =
                instance["address"].as_str().expect("an address").parse().expect("an address with a port");
            (instance["id"].as_u64().expect("an id"), address)
        };
        instances.as_array().expect("instances").iter().map(address).collect()
    }

    /// Asks through the load balancer until every one of `names` has answered.
    fn all_answer(&self, path: &str, name: impl Fn(&str) -> Option<String>, names: &BTreeSet<String>) {
        let mut seen = BTreeSet::new();
        wait_within(BOOT, &format!("answers of {names:?} through the load balancer"), || {
            let answer = get(self.lb, path)?;
            seen.extend(name(&answer.body));
            if seen == *names { Ok(()) } else { Err(format!("{seen:?}, last: {}", answer.body)) }
        });
        self.say(&format!("{} answered through the load balancer", join(names)));
    }

    fn leaves_nothing(&self) {
        self.ok(&["delete", "web", "--yes", "--wait"]);
        wait_within(BOOT, "nothing to be left", || {
            let (traces, vmms) = (traces_in_own_network(), self.daemon.vmm_processes());
            let dirs = std::fs::read_dir(self.daemon.data().join("instances")).expect("instances").count();
            if traces.is_empty() && vmms.is_empty() && dirs == 0 {
                Ok(())
            } else {
                Err(format!("{traces:?}, VMMs {vmms:?}, {dirs} directories"))
            }
        });
        self.say("deleted: no VMM, no link, no rule, no directory is left");
    }
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// Requests one after the other, on `clients` threads, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u32, u32)>>,
}

impl Load {
    fn start(to: SocketAddr, path: &'static str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Instant::now() + LOAD_AT_MOST;
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut served, mut failed) = (0, 0);
                while !stop.load(Ordering::Relaxed) && Instant::now() < until {
                    match get(to, path) {
                        Ok(answer) if answer.status == 200 => served += 1,
                        _ => {
                            failed += 1;
                            // A refused connection comes back at once; a client would not try again at that rate.
                            std::thread::sleep(Duration::from_millis(50));
                        }
                    }
                }
                (served, failed)
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    /// Requests that were served, and that were not.
    fn finish(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.clients.into_iter().map(|client| client.join().expect("a client"));
        counts.fold((0, 0), |(served, failed), (more, lost)| (served + more, failed + lost))
    }
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill");
}

/// The value of a metric in Prometheus text.
fn metric(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn cloud_hypervisor() -> Result<(PathBuf, PathBuf), String> {
    let binary =
        std::env::var_os("CLOUD_HYPERVISOR").map(PathBuf::from).or_else(|| on_path("cloud-hypervisor"));
    let binary = binary.ok_or("CLOUD_HYPERVISOR is not set and no cloud-hypervisor is on PATH")?;
    let kernel = std::env::var_os("REGATTA_TEST_KERNEL").map(PathBuf::from);
    Ok((binary, kernel.ok_or("REGATTA_TEST_KERNEL is not set")?))
}

/// The acceptance test. Its guest is one kernel that answers HTTP by itself; its name is on its command line, which it tells.
#[test]
fn on_cloud_hypervisor_a_fleet_scales_survives_and_goes() {
    let (binary, kernel) = match cloud_hypervisor() {
        Ok(found) => found,
        Err(why) => return println!("skipped: {why}"),
    };
    if let Err(why) = enter_own_network() {
        return println!("skipped: {why}");
    }
    let mut daemon = Daemon::prepare(&[]);
    let vmm = format!("cloud-hypervisor={}", binary.display());
    daemon.run_vmms_by(&["--vmm", &vmm, "--allow-root-vmms"]);
    daemon.launch();
    let lb = Daemon::free_port();
    let mut fleet = Fleet { daemon, lb, begun: Instant::now() };

    // What the nested, crippled kind of KVM needs; harmless elsewhere.
    let cmdline = std::env::var("REGATTA_TEST_CMDLINE").unwrap_or_else(|_| {
        "console=ttyS0 panic=0 mitigations=off lpj=9781696 noxsave clearcpuid=110,111,141,151,158,288,298,308,370 nosmap \
         nosmep nofsgsbase tsc=reliable quiet"
            .to_owned()
    });
    let image = fleet.daemon.home().join("image");
    std::fs::create_dir(&image).expect("a directory");
    std::fs::copy(&kernel, image.join("vmlinux")).expect("the kernel");
    std::fs::File::create(image.join("disk.raw")).and_then(|disk| disk.set_len(16 << 20)).expect("a disk");
    std::fs::write(image.join("cmdline"), cmdline).expect("a command line");
    fleet.ok(&["image", "import", image.to_str().expect("UTF-8"), "--name", "kernel-guest"]);
    fleet.say("image imported");

    fleet.daemon.apply_ok(&format!(
        "version: regatta/v1\nname: web\ntick: 1s\ncapacity: {{ min: 1, max: 3, initial: 2 }}\n\
         image: {{ name: kernel-guest }}\n\
         instance: {{ vcpus: 1, memory: 32MiB, boot_timeout: 5m, shutdown_timeout: 5s, cloud_init: {{ user_data: \"#!/bin/true\" }} }}\n\
         network: {{ mode: isolated }}\n\
         health: {{ http: /, interval: 2s, timeout: 5s, healthy_threshold: 1, unhealthy_threshold: 10 }}\n\
         load_balancer: {{ listen: \"{lb}\", drain_timeout: 5s }}\n\
         policy: {{ module: target-tracking, params: {{ metric: connection_rate, target: 1.0 }} }}\n"
    ));
    let name = |body: &str| {
        let word = body.split(' ').find_map(|word| word.strip_prefix("ip="))?;
        Some(word.split(':').nth(4)?.to_owned())
    };
    // An idle fleet would shrink to one before both have answered: a little load keeps it at two.
    let idle = Load::start(lb, "/", 1);
    wait_within(BOOT, "two in service", || {
        let detail = fleet.daemon.json(&["describe", "web"]);
        let count = detail["summary"]["instances"]["in-service"].as_u64().unwrap_or(0);
        if count >= 2 { Ok(()) } else { Err(detail["summary"].to_string()) }
    });
    fleet.all_answer("/", name, &["web-1", "web-2"].map(str::to_owned).into());

    let load = Load::start(lb, "/", 4);
    wait_within(BOOT, "the policy to scale to 3", || {
        let detail = fleet.daemon.json(&["describe", "web"]);
        let count = detail["summary"]["instances"]["in-service"].as_u64().unwrap_or(0);
        if count == 3 { Ok(()) } else { Err(detail["summary"].to_string()) }
    });
    fleet.say("scaled out to 3 by the policy");
    println!("{}", fleet.ok(&["why", "web", "--last", "scale-out"]));

    let before = fleet.pids();
    let counters = |fleet: &Fleet| -> BTreeMap<u64, f64> {
        let count = |(id, address)| {
            let text = get(address, "/metrics").map(|answer| answer.body).unwrap_or_default();
            (id, metric(&text, "http_requests_total").unwrap_or(-1.0))
        };
        fleet.addresses().into_iter().map(count).collect()
    };
    let counted = counters(&fleet);
    fleet.daemon.kill();
    fleet.daemon.launch();
    assert_eq!(fleet.pids(), before, "the same VMs");
    let counted_on = counters(&fleet);
    for (id, count) in &counted {
        assert!(*count > 0.0 && counted_on.get(id) > Some(count), "web-{id}: {count} → {counted_on:?}");
    }
    fleet.say(&format!(
        "daemon killed and restarted: same VMs, their counters went on: {counted:?} → {counted_on:?}"
    ));

    let (victim, pid) = before.iter().next().map(|(id, pid)| (*id, *pid)).expect("an instance");
    kill(pid);
    wait_within(BOOT, "the killed VMM to be replaced", || {
        let pids = fleet.pids_if_any();
        let detail = fleet.daemon.json(&["describe", "web"]);
        let count = detail["summary"]["instances"]["in-service"].as_u64().unwrap_or(0);
        if !pids.contains_key(&victim) && count == 3 { Ok(()) } else { Err(detail["summary"].to_string()) }
    });
    fleet.say(&format!("the VMM of web-{victim} was killed: replaced"));

    let (served, failed) = load.finish();
    let (more, lost) = idle.finish();
    fleet.say(&format!(
        "load ended: {} requests served, {} not (one VMM was killed, the daemon was away)",
        served + more,
        failed + lost
    ));
    fleet.wait(1);
    println!("{}", fleet.ok(&["why", "web", "--last", "scale-in"]));
    println!("{}", fleet.ok(&["events", "web"]));
    fleet.leaves_nothing();
}

impl Fleet {
    /// Process ids, of instances that have one.
    fn pids_if_any(&self) -> BTreeMap<u64, u64> {
        let instances = self.daemon.json(&["instances", "web"]);
        let pid = |instance: &serde_json::Value| Some((instance["id"].as_u64()?, instance["pid"].as_u64()?));
        instances.as_array().map(|all| all.iter().filter_map(pid).collect()).unwrap_or_default()
    }
}

/// The test guest's image, if it was built and QEMU is there.
fn guest_image() -> Result<PathBuf, String> {
    let dir = bin_dir().parent().expect("target").join("guest-image");
    if !dir.join("vmlinuz").is_file() {
        return Err(format!("no test guest in {}: run `cargo xtask guest-image`", dir.display()));
    }
    match Command::new("qemu-system-x86_64").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(dir),
        _ => Err("no qemu-system-x86_64 on PATH".to_owned()),
    }
}

/// The same with a Linux that has a user space: Debian's kernel and our own init, emulated where KVM is not there.
#[test]
fn with_qemu_guests_a_fleet_scales_repairs_and_goes() {
    let files = match guest_image() {
        Ok(files) => files,
        Err(why) => return println!("skipped: {why}"),
    };
    if let Err(why) = enter_own_network() {
        return println!("skipped: {why}");
    }
    let mut daemon = Daemon::prepare(&[]);
    daemon.run_vmms_by(&["--vmm", "sim", "--guest", "qemu"]);
    daemon.launch();
    let fleet = Fleet { daemon, lb: Daemon::free_port(), begun: Instant::now() };
    let lb = fleet.lb;

    let image = fleet.daemon.home().join("debian");
    std::fs::create_dir(&image).expect("a directory");
    for file in ["vmlinuz", "initramfs.cpio", "disk.raw"] {
        std::fs::copy(files.join(file), image.join(file)).expect("a file of the image");
    }
    std::fs::write(image.join("cmdline"), "console=ttyS0 quiet").expect("a command line");
    fleet.ok(&["image", "import", image.to_str().expect("UTF-8"), "--name", "debian"]);
    fleet.say("image imported");
    fleet.daemon.apply_ok(&format!(
        "version: regatta/v1\nname: web\ntick: 1s\ncapacity: {{ min: 3, max: 5 }}\n\
         image: {{ name: debian }}\n\
         instance:\n  vcpus: 1\n  memory: 128MiB\n  boot_timeout: 3m\n  \
         cloud_init: {{ user_data: \"#cloud-config\\n# for ${{regatta.name}}\\n\" }}\n\
         health: {{ http: /healthz, interval: 1s, timeout: 5s, healthy_threshold: 1, unhealthy_threshold: 8 }}\n\
         load_balancer: {{ listen: \"{lb}\", drain_timeout: 10s }}\n\
         metrics: [{{ name: utilization, series: guest_utilization }}]\n\
         policy: {{ module: target-tracking, params: {{ metric: utilization, target: 0.5 }} }}\n"
    ));
    fleet.wait(3);
    let name = |body: &str| {
        let identity: serde_json::Value = serde_json::from_str(body).ok()?;
        // The hostname comes from the seed's meta-data, and so does the id; the address is the same in each.
        let name = identity["hostname"].as_str()?.to_owned();
        let told = identity["instance_id"].as_str().is_some_and(|id| id.starts_with(&format!("{name}-")));
        (told && identity["address"].as_str().is_some_and(|address| address.starts_with("10.88.0.2")))
            .then_some(name)
    };
    fleet.all_answer("/identity", name, &["web-1", "web-2", "web-3"].map(str::to_owned).into());
    let user_data = get(fleet.addresses()[&2], "/user-data").expect("its user data").body;
    assert!(user_data.contains("# for web-2"), "{user_data}");

    let load = Load::start(lb, "/burn?ms=100", 8);
    wait_within(BOOT, "the policy to scale to 5", || {
        let detail = fleet.daemon.json(&["describe", "web"]);
        let count = detail["summary"]["instances"]["in-service"].as_u64().unwrap_or(0);
        if count == 5 { Ok(()) } else { Err(detail["summary"].to_string()) }
    });
    fleet.say("scaled out to 5 by the policy");
    println!("{}", fleet.ok(&["why", "web", "--last", "scale-out"]));
    let (served, failed) = load.finish();
    fleet.say(&format!("load ended: {served} requests served, {failed} not"));
    assert!(served > 0);

    let (victim, address) = fleet.addresses().into_iter().next().expect("an instance");
    // The answer to this one is silence.
    let _ = get(address, "/panic");
    wait_within(BOOT, "the panicked guest to be gone", || {
        let events = fleet.ok(&["events", "web"]);
        let gone = !fleet.pids_if_any().contains_key(&victim);
        if gone && events.contains("guest-panicked") { Ok(()) } else { Err(events) }
    });
    fleet.say(&format!("web-{victim} panicked from inside and was removed"));
    fleet.wait(3);
    println!("{}", fleet.ok(&["why", "web", "--last", "scale-in"]));
    println!("{}", fleet.ok(&["events", "web"]));
    fleet.leaves_nothing();
}
