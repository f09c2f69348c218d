//! Launching, and every way in which it can fail.

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_vmm::{
    ApiErrorKind, BootSource, EventTail, LaunchError, OverlayKind, SpawnError, VmState, VmmEventKind, VmmExit,
};

use crate::support::{Data, PATIENCE, eventually, signal};

#[tokio::test]
async fn an_instance_runs_detached_and_tells_about_itself() {
    let data = Data::new();
    let mut spec = data.spec("a");
    spec.root = Some(data.root(OverlayKind::Qcow2).await);
    // One that any child would inherit, as a careless shell leaves them to a daemon.
    let _careless = rustix::fs::open(data.path(), rustix::fs::OFlags::RDONLY, 0.into()).expect("open");
    let vmm = data.host.launch(&spec).await.expect("launched");
    assert_eq!(vmm.info().await.expect("info"), VmState::Running);
    assert!(vmm.rss_bytes().expect("alive") > 100_000);
    assert!(vmm.cpu_time_ns().expect("alive") > 0);
    assert_eq!(vmm.exit_status(), None);

    let pid = vmm.identity().pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    assert_eq!(fields[3], pid.to_string(), "leads its own session");
    let own: BTreeSet<_> = descriptors(std::process::id() as i32);
    let shared: Vec<_> = descriptors(pid).intersection(&own).cloned().collect();
    assert!(shared.is_empty(), "inherited {shared:?}");
    let stdin = std::fs::read_link(format!("/proc/{pid}/fd/0")).expect("stdin");
    assert_eq!(stdin, std::path::Path::new("/dev/null"));

    let mut events = EventTail::new(&vmm.dir().events());
    let mut seen = Vec::new();
    eventually("the event \"booted\"", || {
        seen.extend(events.poll().expect("events").into_iter().map(|event| event.kind));
        seen.contains(&VmmEventKind::Booted).then_some(())
    })
    .await;
    assert_eq!(seen[0], VmmEventKind::VmmStarting);
    assert_eq!(events.skipped(), 0);
    vmm.pause().await.expect("paused");
    assert_eq!(vmm.info().await.expect("info"), VmState::Paused);
    assert_eq!(vmm.pause().await.expect_err("paused already").kind, ApiErrorKind::WrongState);
    vmm.resume().await.expect("resumed");
    vmm.stop(PATIENCE).await.expect("stopped");
}

#[tokio::test]
async fn an_instance_has_all_the_disks_and_the_identity_it_was_given() {
    let data = Data::new();
    let mut spec = data.spec("a");
    let mut root = data.root(OverlayKind::Copy).await;
    root.size_bytes = Some(8 << 20);
    spec.root = Some(root);
    spec.data_disks = vec![regatta_vmm::DataDisk { id: "db".to_owned(), size_bytes: 64 << 20 }];
    spec.seed = Some(regatta_vmm::Seed {
        meta_data: "instance-id: a\n".to_owned(),
        user_data: "#cloud-config\n".to_owned(),
        network_config: None,
    });
    spec.smbios = Some(regatta_vmm::Smbios {
        serial: "ds=nocloud;i=a".to_owned(),
        uuid: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
    });
    let vmm = data.host.launch(&spec).await.expect("launched, and the VMM kept every setting");
    let size = |path: std::path::PathBuf| std::fs::metadata(path).expect("a disk").len();
    assert_eq!(size(spec.dir.path().join("root.raw")), 8 << 20);
    assert_eq!(size(spec.dir.data_disk("db")), 64 << 20);
    assert_eq!(size(spec.dir.seed()), 1 << 20);
    vmm.stop(PATIENCE).await.expect("stopped");
    assert!(!spec.dir.path().exists());
}

/// What the descriptors of a process refer to, apart from /dev/null, anonymous things, and the golden image (which both may open).
fn descriptors(pid: i32) -> BTreeSet<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd");
    entries
        .flatten()
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .filter(|target| {
            target != "/dev/null" && !target.starts_with("anon_inode:") && !target.contains("/images/")
        })
        .collect()
}

#[tokio::test]
async fn raw_copies_and_overlays_of_one_image_run_side_by_side() {
    let data = Data::new();
    let mut vmms = Vec::new();
    for (id, overlay) in [("a", OverlayKind::Qcow2), ("b", OverlayKind::Qcow2), ("c", OverlayKind::Copy)] {
        let mut spec = data.spec(id);
        spec.root = Some(data.root(overlay).await);
        vmms.push(data.host.launch(&spec).await.expect("launched"));
    }
    for vmm in &vmms {
        assert_eq!(vmm.info().await.expect("info"), VmState::Running);
        vmm.stop(Duration::ZERO).await.expect("stopped");
    }
}

#[tokio::test]
async fn a_boot_that_fails_is_classified_and_leaves_only_its_logs() {
    let data = Data::new();
    let mut spec = data.spec("a");
    let missing = data.path().join("no-such-kernel");
    spec.boot = BootSource::Kernel { kernel: missing, initramfs: None, cmdline: String::new() };
    match data.host.launch(&spec).await {
        Err(LaunchError::Api { source, .. }) => {
            assert_eq!(source.kind, ApiErrorKind::KernelMissing, "{source}")
        }
        other => panic!("{other:?}"),
    }
    assert!(!spec.dir.path().exists());
    assert_eq!(data.running(), Vec::<i32>::new());
    let kept = data.failures();
    assert_eq!(kept.len(), 1);
    let reason = std::fs::read_to_string(kept[0].join("reason.txt")).expect("reason");
    assert!(reason.contains("Cannot open kernel file"), "{reason}");
}

#[tokio::test]
async fn a_disk_locked_by_another_is_named() {
    let data = Data::new();
    let first = {
        let mut spec = data.spec("a");
        spec.root = Some(data.root(OverlayKind::Copy).await);
        data.host.launch(&spec).await.expect("launched")
    };
    let mut spec = data.spec("b");
    let path = first.dir().path().join("root.raw");
    let format = regatta_vmm::ImageFormat::Raw;
    spec.shared_disks = vec![regatta_vmm::SharedDisk { id: "data".to_owned(), path, format }];
    match data.host.launch(&spec).await {
        Err(LaunchError::Api { source, .. }) => {
            assert_eq!(source.kind, ApiErrorKind::DiskLocked, "{source}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(data.running(), [first.identity().pid]);
    first.stop(Duration::ZERO).await.expect("stopped");
}

#[tokio::test]
async fn a_vmm_that_ends_early_is_reported_with_its_last_words() {
    let data = Data::scripted("echo cannot find my keys >&2; exit 3");
    match data.host.launch(&data.spec("a")).await {
        Err(LaunchError::Exited { exit: VmmExit::Code(3), log_tail, .. }) => {
            assert!(log_tail.contains("cannot find my keys"), "{log_tail}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!data.instance("a").path().exists());
    assert_eq!(data.failures().len(), 1);
}

#[tokio::test]
async fn a_vmm_that_never_answers_is_killed_with_its_helpers() {
    let data = Data::scripted("sleep 1000 & echo $! $$ > \"${2#path=}.pids\"; wait");
    let mut spec = data.spec("a");
    spec.boot_timeout = Duration::from_secs(5);
    // The directory goes with the launch, so the ids must be read while it lasts.
    let pids_file = spec.dir.path().join("api.sock.pids");
    let (result, pids) = tokio::join!(
        data.host.launch(&spec),
        eventually("process ids of the script", || {
            let text = std::fs::read_to_string(&pids_file).ok()?;
            let pids: Vec<i32> = text.split_whitespace().map(|pid| pid.parse().expect("pid")).collect();
            (pids.len() == 2).then_some(pids)
        })
    );
    match result {
        Err(LaunchError::Timeout { reached, .. }) => {
            assert_eq!(reached, "waiting for the VMM's socket")
        }
        other => panic!("{other:?}"),
    }
    for pid in pids {
        eventually("the end of the script and its helper", || (!is_running(pid)).then_some(())).await;
    }
    assert!(!spec.dir.path().exists());
}

fn is_running(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_program_that_cannot_run_and_a_spec_that_makes_no_vm_are_refused() {
    let data = Data::scripted("exit 0");
    std::fs::remove_file(data.host.binary().path()).expect("remove");
    let spec = data.spec("a");
    match data.host.launch(&spec).await {
        Err(LaunchError::Spawn { source: SpawnError::Exec { .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!spec.dir.path().exists());
    let mut none = data.spec("b");
    none.vcpus = 0;
    assert!(matches!(data.host.launch(&none).await, Err(LaunchError::Spec { .. })));
    assert!(!none.dir.path().exists());
}

#[tokio::test]
async fn a_launch_into_a_used_directory_leaves_the_running_vmm_alone() {
    let data = Data::new();
    let spec = data.spec("a");
    let vmm = data.host.launch(&spec).await.expect("launched");
    assert!(matches!(data.host.launch(&spec).await, Err(LaunchError::Dir { .. })));
    assert_eq!(vmm.info().await.expect("info"), VmState::Running);
    vmm.stop(Duration::ZERO).await.expect("stopped");
}

#[tokio::test]
async fn a_dropped_launch_leaves_no_process_and_no_directory() {
    let data = Data::new();
    let root = data.root(OverlayKind::Qcow2).await;
    // From before the first step to about the last; where each cut falls does not matter, that nothing stays does.
    for round in 0..30u64 {
        let mut spec = data.spec(&format!("a{round}"));
        spec.root = Some(root.clone());
        let cut = Duration::from_micros(round * round * 100);
        match tokio::time::timeout(cut, data.host.launch(&spec)).await {
            Err(_) => {}
            Ok(launched) => {
                launched.expect("launched").stop(Duration::ZERO).await.expect("stopped");
            }
        }
        eventually("nothing left of a dropped launch", || {
            (data.running().is_empty() && !spec.dir.path().exists()).then_some(())
        })
        .await;
    }
    assert_eq!(data.failures().len(), 0, "a cancelled launch is not a failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_at_once_come_up_and_one_that_is_killed_is_known() {
    let data = Data::new();
    let root = data.root(OverlayKind::Qcow2).await;
    let launches: Vec<_> = (0..40)
        .map(|number| {
            let mut spec = data.spec(&format!("a{number}"));
            spec.root = Some(root.clone());
            let host = data.host.clone();
            tokio::spawn(async move { host.launch(&spec).await })
        })
        .collect();
    let mut vmms = Vec::new();
    for launch in launches {
        vmms.push(launch.await.expect("task").expect("launched"));
    }
    let mut pids: Vec<i32> = vmms.iter().map(|vmm| vmm.identity().pid).collect();
    let mut running = data.running();
    pids.sort_unstable();
    running.sort_unstable();
    assert_eq!(running, pids);

    let victim = vmms.pop().expect("one");
    signal(victim.identity().pid, rustix::process::Signal::KILL);
    let exit = tokio::time::timeout(PATIENCE, victim.exited()).await.expect("death is known");
    assert_eq!(exit, VmmExit::Signal(9));
    assert_eq!((victim.cpu_time_ns(), victim.rss_bytes()), (None, None));
    for vmm in &vmms {
        vmm.stop(Duration::ZERO).await.expect("stopped");
    }
    assert_eq!(data.running(), Vec::<i32>::new());
}
