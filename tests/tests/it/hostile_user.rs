//! A local user without any rights, and what they cannot do to the daemon's VMs.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use regatta_tests::{Daemon, IDLE, bin_dir};
use rustix::fs::{CWD, FileType, Mode, mknodat};

const NOBODY: u32 = 65_534;

/// Whether this test can be somebody else; says so when not.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can run a process as another user");
    }
    root
}

/// A process of `nobody` that leads its session and has the command line of an instance's VMM.
struct Impostor(Child);

impl Impostor {
    fn of(daemon: &Daemon, set: &str, id: u64) -> Self {
        let dir = daemon.data().join(format!("instances/{set}/{id}"));
        let mut command = Command::new("setsid");
        command
            .args(["setpriv", &format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"])
            .args(["--", "sh", "-c", "echo up; read -r end"])
            .arg(bin_dir().join("regatta-chsim"))
            .args(["--api-socket", &format!("path={}", dir.join("api.sock").display())])
            .args(["--event-monitor", &format!("path={}", dir.join("events.json").display())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("an impostor");
        let mut up = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut up).expect("its output");
        assert_eq!(up, "up\n");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn events(daemon: &Daemon, kind: &str) -> usize {
    let events = daemon.json(&["events"]);
    events.as_array().expect("events").iter().filter(|event| event["kind"] == kind).count()
}

#[test]
fn nobody_cannot_have_healthy_vms_given_up() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 2, max: 2 }", "", IDLE));
    daemon.wait_in_service("web", 2);
    let pids = daemon.vm_pids("web");
    // Started after the VMMs: their process ids are the greater ones.
    let impostors: Vec<Impostor> = pids.iter().map(|(id, _)| Impostor::of(&daemon, "web", *id)).collect();

    for kill in [false, true] {
        if kill {
            daemon.kill()
        } else {
            assert!(daemon.stop().success())
        }
        daemon.launch();
        daemon.wait_in_service("web", 2);
        assert_eq!(daemon.vm_pids("web"), pids, "the same VMs");
    }
    assert_eq!(events(&daemon, "instance-died"), 0, "{}", daemon.log());
    for impostor in &impostors {
        assert!(daemon.log().contains(&format!("pid={}", impostor.pid())), "{}", daemon.log());
    }

    // Without any state, too: the orphans are the real ones.
    assert!(daemon.stop().success());
    std::fs::rename(daemon.data().join("state.redb"), daemon.home().join("lost.redb")).expect("moved away");
    daemon.launch();
    let orphans = daemon.json(&["orphans"]);
    let found: Vec<u64> =
        orphans.as_array().expect("a list").iter().filter_map(|it| it["pid"].as_u64()).collect();
    assert_eq!(found, pids.iter().map(|(_, pid)| u64::from(*pid)).collect::<Vec<_>>());
    assert_eq!(daemon.run(&["recover"]).code, 0);
    daemon.wait_in_service("web", 2);
    assert_eq!(daemon.vm_pids("web"), pids, "the same VMs");
}

#[test]
fn nobody_cannot_stand_in_for_a_dead_vm() {
    if !is_root() {
        return;
    }
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let (id, pid) = daemon.vm_pids("web")[0];
    let impostor = Impostor::of(&daemon, "web", id);
    daemon.kill();
    let real = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let pidfd = rustix::process::pidfd_open(real, rustix::process::PidfdFlags::empty()).expect("a pidfd");
    rustix::process::kill_process(real, rustix::process::Signal::KILL).expect("killed");
    let mut ended = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ended, None).expect("its end");

    daemon.launch();
    daemon.wait_in_service("web", 1);
    let (_, now) = daemon.vm_pids("web")[0];
    assert!(now != pid && now != impostor.pid(), "{now} is a new VMM");
    assert_eq!(events(&daemon, "instance-adopted"), 0, "{}", daemon.log());
}

#[test]
fn a_data_directory_that_others_can_change_is_refused() {
    let mut daemon = Daemon::prepare(&[]);
    let precious = daemon.home().join("precious");
    std::fs::write(&precious, "root's").expect("a file");
    let data = daemon.data();
    std::fs::create_dir(&data).expect("a directory");
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    let refused = |daemon: &mut Daemon, why: &str| {
        assert!(!daemon.start_in_vain().success());
        let log = std::fs::read_to_string(daemon.home().join("daemon.log")).expect("a log");
        assert!(log.contains(why), "no `{why}` in {log}");
        std::fs::remove_file(daemon.home().join("daemon.log")).expect("removed");
        assert_eq!(std::fs::read_to_string(&precious).expect("it is there"), "root's");
        assert!(!data.join("state.redb").exists(), "nothing is made");
    };

    mode(&data, 0o777);
    refused(&mut daemon, "may be written by others (mode 777): `chmod go-w` it");
    mode(&data, 0o711);
    mode(daemon.home(), 0o777);
    refused(&mut daemon, "may be written by others (mode 777): `chmod go-w` it");
    mode(daemon.home(), 0o700);
    // Planted while it was somebody else's.
    for planted in ["daemon.lock", "state.redb"] {
        symlink(&precious, data.join(planted)).expect("a link");
        assert!(!daemon.start_in_vain().success());
        assert_eq!(std::fs::read_to_string(&precious).expect("it is there"), "root's");
        std::fs::remove_file(data.join(planted)).expect("removed");
    }
    std::fs::remove_file(data.join("daemon.lock")).expect("removed");
    std::fs::hard_link(&precious, data.join("daemon.lock")).expect("a link");
    refused(&mut daemon, "is not a plain file of the daemon's user");
    std::fs::remove_file(data.join("daemon.lock")).expect("removed");
    if is_root() {
        chown(&data, Some(NOBODY), None).expect("changed");
        refused(&mut daemon, "belongs to user 65534");
        chown(&data, Some(0), None).expect("changed");
        let theirs = daemon.home().join("theirs");
        std::fs::create_dir(&theirs).expect("a directory");
        chown(&theirs, Some(NOBODY), None).expect("changed");
        symlink(&theirs, data.join("instances")).expect("a link");
        assert!(!daemon.start_in_vain().success());
        assert_eq!(std::fs::read_dir(&theirs).expect("it is there").count(), 0);
        std::fs::remove_file(data.join("instances")).expect("removed");
    }
    daemon.launch();
}

#[test]
fn names_in_a_policy_directory_neither_hold_nor_fill_the_daemon() {
    let mut daemon = Daemon::prepare(&[]);
    let policies = daemon.home().join("policies");
    std::fs::create_dir(&policies).expect("a directory");
    symlink("/dev/zero", policies.join("endless.wasm")).expect("a link");
    mknodat(CWD, policies.join("pipe.wasm"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    daemon.run_vmms_by(&["--vmm", "sim", "--policies", policies.to_str().expect("text")]);
    daemon.launch();
    for name in ["endless", "pipe"] {
        let manifest =
            daemon.manifest(name, "{ min: 1, max: 2 }", "", &format!("policy: {{ module: {name} }}"));
        let refused = daemon.apply(&manifest);
        assert_ne!(refused.code, 0);
        assert!(refused.err.contains("it is not a plain file"), "{}", refused.err);
    }
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("web", 1);
}

#[test]
fn an_image_directory_gives_away_nothing_outside_of_it() {
    let daemon = Daemon::start();
    let image = daemon.home().join("image");
    std::fs::create_dir(&image).expect("a directory");
    std::fs::copy(daemon.home().join("vmlinux"), image.join("vmlinux")).expect("a kernel");
    std::fs::write(daemon.home().join("secret"), "root's").expect("a file");
    symlink("../secret", image.join("stolen")).expect("a link");
    std::fs::write(image.join("image.yaml"), "kernel: vmlinux\ninitramfs: stolen\n").expect("a manifest");
    let refused = daemon.run(&["image", "import", "image", "--name", "evil"]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("it leads out of the directory"), "{}", refused.err);
    let stored = daemon.data().join("images");
    let kept = std::fs::read_dir(stored).expect("the store").flatten();
    assert!(kept.flat_map(|it| std::fs::read(it.path())).all(|bytes| bytes != b"root's"));
}
