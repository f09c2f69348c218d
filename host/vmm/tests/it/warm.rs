//! Golden snapshots: made of one instance, restored into others.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use regatta_vmm::{
    GoldenSnapshot, LaunchError, LaunchSpec, OverlayKind, Seed, SnapshotError, SnapshotKey, SnapshotStore,
    StartFrom, Started, VmState, VmmHost,
};
use serde_json::Value;

use crate::support::{Data, PATIENCE, eventually};

/// An instance with a root disk of this kind and a seed of its own.
async fn spec(data: &Data, id: &str, overlay: OverlayKind) -> LaunchSpec {
    let mut spec = data.spec(id);
    spec.root = Some(data.root(overlay).await);
    spec.seed = Some(Seed {
        meta_data: format!("instance-id: {id}\n"),
        user_data: "#cloud-config\n".to_owned(),
        network_config: None,
    });
    spec
}

async fn template(data: &Data, overlay: OverlayKind) -> (LaunchSpec, SnapshotKey) {
    let mut spec = spec(data, "template", overlay).await;
    spec.start = StartFrom::BootForSnapshot;
    let key = data.host.snapshot_key(&spec).expect("a key");
    (spec, key)
}

fn store(data: &Data) -> SnapshotStore {
    SnapshotStore::new(&data.path().join("snapshots"))
}

/// Boots a template, makes a snapshot of it and removes the rest.
async fn golden(data: &Data, host: &VmmHost, overlay: OverlayKind) -> Result<GoldenSnapshot, SnapshotError> {
    let (spec, key) = template(data, overlay).await;
    let vmm = host.launch(&spec).await.expect("the template is launched");
    let made = host.snapshot(&vmm, &spec, &key, &store(data), PATIENCE).await;
    vmm.stop(Duration::ZERO).await.expect("the template goes");
    assert!(!spec.dir.path().exists());
    made
}

async fn clone_of(data: &Data, id: &str, overlay: OverlayKind, snapshot: &GoldenSnapshot) -> LaunchSpec {
    let mut spec = spec(data, id, overlay).await;
    spec.start = StartFrom::Snapshot(snapshot.clone());
    spec
}

/// The configuration that a VMM shows.
fn config(socket: &Path) -> Value {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
    write!(stream, "GET /api/v1/vm.info HTTP/1.1\r\nHost: x\r\n\r\n").expect("write");
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        if let Some(given) = line.strip_prefix("Content-Length: ") {
            length = given.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    serde_json::from_slice::<Value>(&body).expect("JSON")["config"].take()
}

/// Everything below the directory of snapshots, but for directories.
fn kept(data: &Data) -> Vec<String> {
    fn walk(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(&data.path().join("snapshots"), &mut found);
    found.sort();
    found
}

#[tokio::test]
async fn two_instances_go_on_from_one_snapshot_each_with_its_own_files() {
    let data = Data::new();
    for overlay in [OverlayKind::Qcow2, OverlayKind::Copy] {
        let snapshot = match golden(&data, &data.host, overlay).await {
            Ok(snapshot) => snapshot,
            // A crippled KVM cannot save its state; the stand-in always can.
            Err(error) if std::env::var_os("CLOUD_HYPERVISOR").is_some() => {
                eprintln!("skipped: this VMM makes no snapshot here: {error:?}");
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        assert!(snapshot.disk_bytes() > 0);
        assert_eq!(store(&data).find("set", snapshot.key()), Some(snapshot.clone()), "found again");
        let mode = std::fs::metadata(snapshot.path()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "a guest's memory is nobody else's business");

        let mut vmms = Vec::new();
        for id in ["a", "b"] {
            let spec = clone_of(&data, id, overlay, &snapshot).await;
            vmms.push((data.host.launch(&spec).await.expect("restored"), spec));
        }
        for (vmm, spec) in &vmms {
            assert_eq!(vmm.info().await.expect("info"), VmState::Running);
            assert!(matches!(vmm.started(), Some(Started::Restored { .. })), "{:?}", vmm.started());
            let own = config(&vmm.socket());
            let (root, serial) = (own["disks"][0]["path"].as_str(), own["serial"]["file"].as_str());
            for path in [root, own["disks"][1]["path"].as_str(), serial] {
                assert!(path.is_some_and(|path| Path::new(path).starts_with(spec.dir.path())), "{own}");
            }
            assert!(!own.to_string().contains("template"), "nothing of the template is left: {own}");
            assert!(!spec.dir.path().join("restore").exists(), "links that have served are gone");
            let golden = spec.root.as_ref().expect("a root disk").image.digest();
            assert!(spec.dir.images_in_use().expect("read").all().any(|digest| digest == golden));
        }
        let adopted = data.restarted();
        let found = adopted.adopt(&vmms[0].1.dir, None).await.expect("adopted");
        let regatta_vmm::Adoption::Adopted(found) = found else { panic!("{found:?}") };
        assert_eq!(found.vmm.started(), vmms[0].0.started(), "a later daemon knows it too");

        store(&data).prune("set", None).expect("removed");
        assert_eq!(kept(&data), Vec::<String>::new());
        if overlay == OverlayKind::Qcow2 {
            let base = vmms[0].1.dir.path().join("base.qcow2");
            let base = std::fs::metadata(&base).expect("what runs keeps what it stands on");
            assert_eq!(
                (base.nlink(), base.mode() & 0o777),
                (2, 0o444),
                "both clones have it, and nobody else"
            );
        }
        for (vmm, spec) in vmms {
            assert_eq!(vmm.info().await.expect("info"), VmState::Running);
            vmm.stop(Duration::ZERO).await.expect("stopped");
            assert!(!spec.dir.path().exists());
        }
    }
}

#[tokio::test]
async fn a_snapshot_is_of_a_machine_and_not_of_another() {
    let data = Data::new();
    let (spec, key) = template(&data, OverlayKind::Qcow2).await;
    assert_eq!(data.restarted().snapshot_key(&spec).expect("a key"), key, "a later daemon finds it again");
    type Change = fn(&mut LaunchSpec);
    let changes: [Change; 4] = [
        |spec| spec.vcpus = 2,
        |spec| spec.memory_bytes += 1 << 20,
        |spec| spec.seed.as_mut().expect("given").user_data.push('#'),
        |spec| spec.root.as_mut().expect("given").size_bytes = Some(8 << 20),
    ];
    for change in changes {
        let mut other = spec.clone();
        change(&mut other);
        assert_ne!(data.host.snapshot_key(&other).expect("a key"), key);
    }
}

#[tokio::test]
async fn a_restore_that_fails_leaves_nothing_and_the_instance_can_boot() {
    if std::env::var_os("CLOUD_HYPERVISOR").is_some() {
        eprintln!("skipped: only the stand-in fails on demand");
        return;
    }
    let data = Data::new();
    let snapshot = golden(&data, &data.host, OverlayKind::Qcow2).await.expect("made");
    let spec = clone_of(&data, "a", OverlayKind::Qcow2, &snapshot).await;
    let fails = async |host: &VmmHost, why: &str| {
        let error = host.launch(&spec).await.expect_err("fails");
        assert!(matches!(error, LaunchError::Restore { .. }), "{error:?}");
        let text = format!("{error:?}");
        assert!(text.contains(why), "{why:?} is not in {text}");
        assert!(!spec.dir.path().exists());
        assert_eq!(data.running(), Vec::<i32>::new());
    };
    let with = |faults: &str| data.restarted().with_env("REGATTA_CHSIM_FAULTS", faults);
    fails(&with("refuse:vm.restore"), "vm.restore").await;
    fails(&with("crash:vm.restore"), "Exited").await;

    let mut instead = spec.clone();
    instead.start = StartFrom::BootInstead("restore failed".to_owned());
    let vmm = data.host.launch(&instead).await.expect("boots");
    assert_eq!(vmm.started().map(ToString::to_string).as_deref(), Some("cold: restore failed"));
    vmm.stop(Duration::ZERO).await.expect("stopped");

    let mut other = spec.clone();
    other.memory_bytes *= 2;
    let error = data.host.launch(&other).await.expect_err("another machine");
    assert!(format!("{error:?}").contains("other memory"), "{error:?}");

    let state = snapshot.path().join("state.json");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o644)).expect("mode");
    let whole = std::fs::read(&state).expect("read");
    std::fs::write(&state, &whole[1..]).expect("broken");
    fails(&data.host, "deserialising VM state").await;
    assert_eq!(store(&data).find("set", snapshot.key()), None, "a file of another length is seen");
    std::fs::remove_file(&state).expect("removed");
    fails(&data.host, "cannot be linked to").await;
}

#[tokio::test]
async fn a_snapshot_that_fails_or_is_given_up_leaves_nothing() {
    if std::env::var_os("CLOUD_HYPERVISOR").is_some() {
        eprintln!("skipped: only the stand-in fails on demand");
        return;
    }
    let data = Data::new();
    for faults in
        ["refuse:vm.snapshot", "enospc", "refuse:vm.pause", "crash:vm.snapshot", "crash:vm.shutdown"]
    {
        let host = data.restarted().with_env("REGATTA_CHSIM_FAULTS", faults);
        golden(&data, &host, OverlayKind::Qcow2).await.expect_err(faults);
        assert_eq!(kept(&data), Vec::<String>::new(), "{faults}");
    }
    let (spec, key) = template(&data, OverlayKind::Qcow2).await;
    let mut plain = spec.clone();
    plain.start = StartFrom::Boot;
    let vmm = data.host.launch(&plain).await.expect("launched");
    let refused = data.host.snapshot(&vmm, &plain, &key, &store(&data), PATIENCE).await;
    assert!(matches!(refused, Err(SnapshotError::NotATemplate { .. })), "{refused:?}");
    vmm.stop(Duration::ZERO).await.expect("stopped");

    // What a daemon that was killed in the middle of putting one together leaves.
    let half = data.path().join(format!("snapshots/set/.making-{key}"));
    std::fs::create_dir_all(&half).expect("made");
    std::fs::write(half.join("memory-ranges"), "x").expect("written");
    let snapshot = golden(&data, &data.host, OverlayKind::Qcow2).await.expect("made all the same");
    std::fs::create_dir_all(&half).expect("made");
    store(&data).sweep(&["set"]).expect("swept");
    assert!(!half.exists() && snapshot.path().exists());
    store(&data).sweep(&["another"]).expect("swept");
    assert!(!data.path().join("snapshots/set").exists(), "the snapshots of a set go with it");

    let restore = clone_of(&data, "a", OverlayKind::Qcow2, &snapshot).await;
    let host = data.restarted().with_env("REGATTA_CHSIM_FAULTS", "hang:vm.restore");
    let snapshot = golden(&data, &data.host, OverlayKind::Qcow2).await.expect("made again");
    let launch = tokio::spawn(async move { host.launch(&restore).await.map(drop) });
    eventually("its VMM runs", || (!data.running().is_empty()).then_some(())).await;
    launch.abort();
    eventually("nothing is left of it", || {
        (data.running().is_empty() && !data.instance("a").path().exists()).then_some(())
    })
    .await;
    assert!(store(&data).find("set", snapshot.key()).is_some(), "the snapshot itself is untouched");
}
