//! The disk makes trouble: nothing is half-written, what runs goes on, and so do
//! the ticks when there is room again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use regatta_tests::{Daemon, IDLE, bin_dir, get, wait_for};

/// Set for the half of a test that runs in a mount namespace of its own.
const INSIDE: &str = "REGATTA_TEST_OWN_MOUNTS";

/// Runs an ignored test of this file where it may mount without being seen.
fn in_own_mounts(test: &str) {
    let allowed =
        Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "regatta-test", "/tmp"]).output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no tmpfs can be mounted in a namespace of its own here: {allowed:?}");
        return;
    }
    let status = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare runs");
    assert!(status.success(), "{status}");
}

fn is_inside() -> bool {
    let inside = std::env::var_os(INSIDE).is_some();
    if !inside {
        println!("skipped: this is one half of another test, which runs it");
    }
    inside
}

/// A small file system of its own; dropped before the daemon's directory is.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).expect("a directory");
        let options = format!("size={size},mode=700");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "regatta-test"]).arg(&at).status();
        assert!(status.expect("mount runs").success());
        Self(at)
    }

    /// Fills it to the last byte, again and again until [`Filler::make_room`]:
    /// a store that opens its file anew gives a page back now and then.
    fn fill(&self) -> Filler {
        let (file, stop) = (self.0.join("filler"), Arc::new(AtomicBool::new(false)));
        let (to_fill, stopped) = (file.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut filler =
                    fs::OpenOptions::new().create(true).append(true).open(&to_fill).expect("a file");
                for chunk in [1 << 16, 1 << 12, 1] {
                    while filler.write_all(&vec![1; chunk]).is_ok() {}
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Filler { file, stop, thread }
    }
}

struct Filler {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Filler {
    fn make_room(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the filler");
        fs::remove_file(self.file).expect("remove");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What still runs on it goes on; the directory can be removed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn last_tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a tick")
}

fn problems(daemon: &Daemon, set: &str) -> String {
    daemon.json(&["describe", set])["summary"]["problems"].to_string()
}

fn wait_until_full(daemon: &Daemon, set: &str) {
    wait_for("a tick that cannot be written down", || {
        let problems = problems(daemon, set);
        if problems.contains("cannot be written") && problems.contains("no space left") {
            Ok(())
        } else {
            Err(problems)
        }
    });
}

fn wait_for_ticks(daemon: &Daemon, set: &str, after: u64) {
    wait_for("ticks to go on", || {
        let (tick, problems) = (last_tick(daemon, set), problems(daemon, set));
        if tick > after + 2 && problems == "[]" { Ok(()) } else { Err(format!("{tick} {problems}")) }
    });
}

#[test]
fn a_full_disk() {
    in_own_mounts("disk::on_a_full_disk");
}

#[test]
#[ignore = "the other half of a_full_disk, which runs it"]
fn on_a_full_disk() {
    if !is_inside() {
        return;
    }
    let mut daemon = Daemon::prepare(&[]);
    let disk = SmallDisk::mount(daemon.data(), "24m");
    daemon.launch();
    let lb = Daemon::free_port();
    let web = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 4, initial: 3 }", "", &web));
    daemon.apply_ok(&daemon.manifest("db", "{ min: 1, max: 3, initial: 1 }", "", IDLE));
    daemon.wait_in_service("web", 3);
    daemon.wait_in_service("db", 1);
    let (web_vms, db_vms) = (daemon.vm_pids("web"), daemon.vm_pids("db"));

    let filler = disk.fill();
    wait_until_full(&daemon, "web");
    wait_until_full(&daemon, "db");
    wait_for("describe to tell", || {
        let shown = daemon.run(&["describe", "web"]).out;
        if shown.contains("cannot be written") { Ok(()) } else { Err(shown) }
    });
    let (web_tick, db_tick) = (last_tick(&daemon, "web"), last_tick(&daemon, "db"));

    // Commands are refused whole, and say why. (A small one may find a free page.)
    let said = wait_for("a command to be refused", || {
        let scaled = daemon.run(&["scale", "web", "3"]);
        if scaled.code == 1 { Ok(scaled.err) } else { Err(scaled.out) }
    });
    assert!(said.contains("nothing was changed") && said.contains("no space left"), "{said}");
    let step = r#"policy: { module: step, params: { metric: cpu, scale_out: [{ above: 0.9, add: 1 }] } }"#;
    let applied = daemon.apply(&daemon.manifest("new", "{ min: 1, max: 1 }", "", step));
    assert_eq!(applied.code, 1, "{}", applied.err);
    assert!(applied.err.contains("nothing was created"), "{}", applied.err);
    let sets = daemon.json(&["get"]);
    let names: Vec<_> = sets.as_array().expect("sets").iter().map(|set| set["name"].clone()).collect();
    assert_eq!(names, ["db", "web"]);

    // What runs goes on, and so does the load balancer.
    assert_eq!((daemon.vm_pids("web"), daemon.vm_pids("db")), (web_vms.clone(), db_vms.clone()));
    for _ in 0..20 {
        assert_eq!(get(lb, "/").expect("an answer").status, 200);
    }

    // A VM that ends now is taken out of traffic, and replaced when that can be written down.
    let (dead, pid) = web_vms[0];
    kill(pid);
    wait_for("the dead VM to be noticed", || {
        let instances = daemon.json(&["instances", "web"]);
        let serves = |i: &serde_json::Value| i["id"] == dead && i["state"] == "in-service";
        let noticed = !instances.as_array().expect("instances").iter().any(serves);
        if noticed { Ok(()) } else { Err(instances.to_string()) }
    });
    for _ in 0..10 {
        assert_eq!(get(lb, "/").expect("an answer").status, 200);
    }
    filler.make_room();
    wait_for_ticks(&daemon, "web", web_tick);
    wait_for_ticks(&daemon, "db", db_tick);
    daemon.wait_in_service("web", 3);
    let now = daemon.vm_pids("web");
    assert!(now.contains(&web_vms[1]) && now.contains(&web_vms[2]), "{web_vms:?} → {now:?}");
    assert_eq!(daemon.run(&["scale", "web", "4"]).code, 0);
    daemon.wait_in_service("web", 4);

    // And a daemon that is killed while the disk is full finds everything again.
    let before = (daemon.vm_pids("web"), daemon.vm_pids("db"));
    let filler = disk.fill();
    wait_until_full(&daemon, "db");
    let tick = last_tick(&daemon, "db");
    daemon.kill();
    daemon.launch();
    assert_eq!((daemon.vm_pids("web"), daemon.vm_pids("db")), before);
    assert!(last_tick(&daemon, "db") >= tick);
    wait_for("the load balancer", || get(lb, "/").map(drop));
    filler.make_room();
    wait_for_ticks(&daemon, "db", tick);
    daemon.wait_in_service("web", 4);
    assert_eq!((daemon.vm_pids("web"), daemon.vm_pids("db")), before);
    for set in ["web", "db"] {
        assert_eq!(daemon.run(&["delete", set, "--yes", "--wait"]).code, 0);
    }
    assert_eq!(daemon.vmm_processes(), Vec::<u32>::new());
    drop(disk);
}

/// Starts a daemon that must give up; what it says.
fn refused(data: &Path) -> String {
    let output = Command::new(bin_dir().join("regatta"))
        .args(["serve", "--vmm", "sim"])
        .env("REGATTA_DATA", data)
        .stdin(Stdio::null())
        .output()
        .expect("regatta runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("file");
    fs::write(&file, "in the way").expect("a file");
    // /proc takes no new directories, whoever asks.
    for data in [file.clone(), file.join("below"), PathBuf::from("/proc/regatta")] {
        let said = refused(&data);
        assert!(said.contains(&data.display().to_string()) && !said.contains("panic"), "{said}");
        let errors = said.lines().filter(|line| line.contains("rror")).count();
        assert_eq!(errors, 1, "told once: {said}");
    }
    assert_eq!(fs::read_to_string(&file).expect("a file"), "in the way");
}

#[test]
fn a_state_file_that_is_damaged_is_named_and_left_alone() {
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let vms = daemon.vm_pids("web");
    daemon.kill();
    let file = daemon.data().join("state.redb");
    let good = fs::read(&file).expect("a store");
    fs::write(&file, "no database").expect("damage");
    let said = refused(&daemon.data());
    assert!(said.contains(&file.display().to_string()) && !said.contains("panic"), "{said}");
    assert_eq!(fs::read(&file).expect("a file"), b"no database");
    assert_eq!(daemon.vmm_processes().len(), 1, "its VMs run on");
    // The operator puts a copy back.
    fs::write(&file, good).expect("repair");
    daemon.launch();
    daemon.wait_in_service("web", 1);
    assert_eq!(daemon.vm_pids("web"), vms);
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let mut daemon = Daemon::prepare(&[]);
    daemon.log_to(Path::new("/dev/full"));
    daemon.launch();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 2, max: 2 }", "", IDLE));
    daemon.wait_in_service("web", 2);
    let tick = last_tick(&daemon, "web");
    kill(daemon.vm_pids("web")[0].1);
    wait_for_ticks(&daemon, "web", tick);
    daemon.wait_in_service("web", 2);
    assert!(daemon.stop().success());
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}
