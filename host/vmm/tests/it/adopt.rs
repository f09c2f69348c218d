//! Finding VMMs again: after a restart of the daemon, after its death in the middle of a launch, and what must not be taken over.

use std::process::{Command, Stdio};
use std::time::Duration;

use regatta_vmm::{Adopted, AdoptedState, Adoption, InstanceDir, StopHow, VmState, VmmExit, VmmIdentity};
use rustix::process::Signal;

use crate::support::{Data, PATIENCE, eventually, raw_put, signal, spec};

fn adopted(adoption: Adoption) -> Adopted {
    match adoption {
        Adoption::Adopted(adopted) => *adopted,
        other => panic!("not adopted: {other:?}"),
    }
}

/// Not a test of its own: the daemon that [`vmms_outlive_the_process_that_started_them`] kills.
#[tokio::test]
#[ignore = "run by another test"]
async fn short_lived_daemon() {
    let Some(path) = std::env::var_os("REGATTA_TEST_DATA") else {
        return;
    };
    let path = std::path::PathBuf::from(path);
    let data = Data::new();
    let vmm = data.host.launch(&spec(data.path(), &path.join("i"), "a")).await.expect("launched");
    let identity = serde_json::to_string(&vmm.identity()).expect("json");
    std::fs::write(path.join("identity.tmp"), identity).expect("write");
    std::fs::rename(path.join("identity.tmp"), path.join("identity")).expect("rename");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn vmms_outlive_the_process_that_started_them() {
    let data = Data::new();
    let mut daemon = Command::new(std::env::current_exe().expect("own program"))
        .args(["--exact", "adopt::short_lived_daemon", "--ignored", "--nocapture"])
        .env("REGATTA_TEST_DATA", data.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("daemon");
    let identity = eventually("the identity from the daemon", || {
        std::fs::read_to_string(data.path().join("identity")).ok()
    })
    .await;
    let identity: VmmIdentity = serde_json::from_str(&identity).expect("identity");
    daemon.kill().expect("kill the daemon");
    daemon.wait().expect("its end");

    let found = data.discover();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].identity, found[0].dir.id()), (&identity, "a"));
    let recorded = data.host.adopt(&found[0].dir, Some(&identity)).await.expect("asked");
    let Adopted { vmm, state } = adopted(recorded);
    assert_eq!(state, AdoptedState::Known(VmState::Running));
    assert_eq!(vmm.identity(), identity);
    drop(vmm);

    // Dropping it changed nothing; and without a record, the socket leads to it.
    let Adopted { vmm, .. } = adopted(data.host.adopt(&found[0].dir, None).await.expect("asked"));
    assert!(vmm.cpu_time_ns().expect("alive") > 0 && vmm.rss_bytes().expect("alive") > 0);
    let stopped = vmm.stop(PATIENCE).await.expect("stopped");
    assert_eq!((stopped.how, stopped.exit), (StopHow::PowerButton, VmmExit::Unknown));
    assert!(matches!(data.host.adopt(vmm.dir(), Some(&identity)).await, Ok(Adoption::Gone)));
    assert_eq!(data.discover(), []);
}

/// Starts a VMM as the daemon does, but leaves it without a VM, as one is whose daemon died in the middle of a launch.
async fn bare_vmm(data: &Data, dir: &InstanceDir) -> Bare {
    std::fs::create_dir_all(dir.path()).expect("dir");
    // setsid(1) becomes the VMM without a fork, since it leads no process group.
    let mut command = Command::new("setsid");
    command
        .arg(data.host.binary().path())
        .arg("--api-socket")
        .arg(format!("path={}", dir.api_socket().display()))
        .arg("--event-monitor")
        .arg(format!("path={}", dir.events().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut bare = Bare(command.spawn().expect("VMM"));
    eventually("the socket of a bare VMM", || {
        assert_eq!(bare.0.try_wait().expect("wait"), None, "the VMM ended");
        std::os::unix::net::UnixStream::connect(dir.api_socket()).ok()
    })
    .await;
    bare
}

struct Bare(std::process::Child);

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_launch_cut_short_by_the_daemons_death_is_found() {
    let data = Data::new();
    let spec = data.spec("a");
    let _bare = bare_vmm(&data, &spec.dir).await;
    let found = data.discover();
    assert_eq!(found.len(), 1, "found without a record");
    let Adopted { vmm, state } =
        adopted(data.host.adopt(&spec.dir, Some(&found[0].identity)).await.expect("asked"));
    assert_eq!(state, AdoptedState::Known(VmState::NotCreated));

    vmm.stop(Duration::ZERO).await.expect("stopped");
}

#[tokio::test]
async fn a_half_made_vm_is_told_from_a_described_one() {
    let data = Data::new();
    let spec = data.spec("a");
    let _bare = bare_vmm(&data, &spec.dir).await;
    let socket = spec.dir.api_socket();
    assert_eq!(raw_put(&socket, "vm.create", r#"{"payload":{"kernel":"/no/such/kernel"}}"#), 204);
    assert_eq!(raw_put(&socket, "vm.boot", ""), 500);
    let Adopted { vmm, state } = adopted(data.host.adopt(&spec.dir, None).await.expect("asked"));
    assert_eq!(state, AdoptedState::Known(VmState::HalfMade));

    assert_eq!(raw_put(&socket, "vm.delete", ""), 204);
    assert_eq!(raw_put(&socket, "vm.create", r#"{"payload":{"kernel":"/no/such/kernel"}}"#), 204);
    assert_eq!(vmm.info().await.expect("info"), VmState::Created);
    vmm.stop(Duration::ZERO).await.expect("stopped");
}

#[tokio::test]
async fn a_vmm_that_does_not_answer_is_alive() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let identity = vmm.identity();
    let dir = vmm.dir().clone();
    drop(vmm);
    signal(identity.pid, Signal::STOP);
    let Adopted { vmm, state } = adopted(data.host.adopt(&dir, Some(&identity)).await.expect("asked"));
    assert_eq!(state, AdoptedState::Unresponsive);
    assert_eq!(vmm.exit_status(), None);
    signal(identity.pid, Signal::CONT);
    assert_eq!(vmm.info().await.expect("info"), VmState::Running);

    // Without its socket it cannot be asked, but it is still ours and can be stopped.
    std::fs::remove_file(dir.api_socket()).expect("remove");
    let Adopted { vmm, state } = adopted(data.host.adopt(&dir, Some(&identity)).await.expect("asked"));
    assert_eq!(state, AdoptedState::Unreachable);
    assert_eq!(vmm.stop(Duration::ZERO).await.expect("stopped").how, StopHow::Terminated);
}

#[tokio::test]
async fn strangers_are_left_alone() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let identity = vmm.identity();

    // The same process id with another start: ours is gone, whoever has the id now.
    let older = VmmIdentity { start_time_ticks: identity.start_time_ticks - 1, ..identity.clone() };
    let free = data.instance("b");
    assert!(matches!(data.host.adopt(&free, Some(&older)).await, Ok(Adoption::Gone)));
    // What the launch wrote down, and who listens, say more than an outdated record.
    let found = adopted(data.host.adopt(vmm.dir(), Some(&older)).await.expect("asked"));
    assert_eq!(
        (found.vmm.identity(), found.state),
        (identity.clone(), AdoptedState::Known(VmState::Running))
    );
    // A live process, rightly identified, but of another instance.
    match data.host.adopt(&free, Some(&identity)).await {
        Ok(Adoption::Stranger { why, .. }) => assert!(why.contains("command line"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Someone else's server on the socket: us.
    std::fs::create_dir_all(free.path()).expect("dir");
    let _listener = std::os::unix::net::UnixListener::bind(free.api_socket()).expect("bind");
    match data.host.adopt(&free, None).await {
        Ok(Adoption::Stranger { pid, .. }) => assert_eq!(pid, std::process::id() as i32),
        other => panic!("{other:?}"),
    }
    assert_eq!(vmm.info().await.expect("untouched"), VmState::Running);
    vmm.stop(Duration::ZERO).await.expect("stopped");
}

/// Does nothing, with the command line of an instance's VMM and as another user.
fn impostor(data: &Data, dir: &InstanceDir) -> Bare {
    let program = data.host.binary().path().display().to_string();
    let (socket, events) = (dir.api_socket().display().to_string(), dir.events().display().to_string());
    let mut command = Command::new("setsid");
    command
        .args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .args(["sh", "-c", "echo up; read -r end", &program])
        .args(["--api-socket", &format!("path={socket}"), "--event-monitor", &format!("path={events}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut bare = Bare(command.spawn().expect("an impostor"));
    let mut up = String::new();
    let mut output = std::io::BufReader::new(bare.0.stdout.take().expect("its output"));
    std::io::BufRead::read_line(&mut output, &mut up).expect("its output");
    assert_eq!(up, "up\n");
    bare
}

#[tokio::test]
async fn a_command_line_proves_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be another user");
        return;
    }
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let identity = vmm.identity();
    let _impostor = impostor(&data, vmm.dir());
    assert_eq!(data.running(), [identity.pid], "the one that was started");
    std::fs::remove_file(vmm.dir().path().join("ctl/vmm.json")).expect("removed");
    assert_eq!(data.running(), [identity.pid], "the one that listens");
    std::fs::remove_file(vmm.dir().api_socket()).expect("removed");
    assert_eq!(data.running(), [identity.pid], "the one with the right user and program");

    vmm.end(Duration::ZERO).await.expect("ended");
    assert_eq!(data.running(), [0_i32; 0], "nobody is in the place of a dead VMM");
    assert!(matches!(data.host.adopt(vmm.dir(), None).await, Ok(Adoption::Gone)));
    vmm.stop(Duration::ZERO).await.expect("removed");
}

#[tokio::test]
async fn a_vmm_cannot_have_its_neighbor_stopped() {
    let data = Data::new();
    let hostile = data.host.launch(&data.spec("a")).await.expect("launched");
    let neighbor = data.host.launch(&data.spec("b")).await.expect("launched");
    std::fs::remove_file(hostile.dir().api_socket()).expect("renamed away");
    std::os::unix::fs::symlink(neighbor.dir().api_socket(), hostile.dir().api_socket()).expect("link");
    // Adopted, so that there is no connection yet.
    let Adopted { vmm: again, state } =
        adopted(data.host.adopt(hostile.dir(), Some(&hostile.identity())).await.expect("asked"));
    assert_eq!((again.identity().pid, state), (hostile.identity().pid, AdoptedState::Unreachable));

    let stopped = again.stop(PATIENCE).await.expect("stopped");
    assert_eq!(stopped.how, StopHow::Terminated);
    assert!(!again.dir().path().exists());
    assert_eq!(neighbor.exit_status(), None);
    assert_eq!(neighbor.info().await.expect("untouched"), VmState::Running);
    neighbor.stop(Duration::ZERO).await.expect("stopped");
}

#[tokio::test]
async fn vmms_of_an_earlier_version_are_adopted() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let containment = vmm.containment();
    // It kept its notes beside the VMM's files, and did not write down which process it started.
    for name in ["containment.json", "started.json", "images"] {
        let note = vmm.dir().path().join("ctl").join(name);
        std::fs::rename(note, vmm.dir().path().join(name)).expect("moved");
    }
    std::fs::remove_dir_all(vmm.dir().path().join("ctl")).expect("removed");
    let found = data.discover();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].identity, vmm.identity());
    let restarted = data.restarted();
    let Adopted { vmm: again, state } =
        adopted(restarted.adopt(vmm.dir(), Some(&found[0].identity)).await.expect("asked"));
    assert_eq!(state, AdoptedState::Known(VmState::Running));
    assert_eq!(again.containment(), containment);
    assert_eq!(again.started(), Some(&regatta_vmm::Started::Cold));
    again.stop(PATIENCE).await.expect("stopped");
}
