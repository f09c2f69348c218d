//! What the host refuses: a full disk, a directory that cannot be written, and cgroups where they can be had.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regatta_vmm::{
    CgroupRoot, FailedLogs, HostNetwork, ImageError, ImageStore, InstanceDir, LaunchError, OverlayKind,
    StartLimiter, VmmHost,
};

use crate::support::{Data, PATIENCE, spec, vmm_binary};

/// Not a test of its own: what [`a_full_disk_leaves_nothing_half_written`] does inside its own mount namespace.
#[tokio::test]
#[ignore = "run by another test"]
async fn on_a_full_disk() {
    let Some(small) = std::env::var_os("REGATTA_TEST_SMALL") else {
        return;
    };
    let small = Path::new(&small);
    let outside = tempfile::tempdir().expect("temp dir");
    let image = outside.path().join("golden.raw");
    std::fs::write(&image, vec![1; 1 << 20]).expect("image");

    let store = ImageStore::open(&small.join("images")).expect("store");
    match store.import(&image, None).await {
        Err(error @ ImageError::NoRoom { needed_bytes, free_bytes, .. }) => {
            assert!(needed_bytes >= 1 << 20 && free_bytes <= 200 << 10, "{error}");
            let text = error.to_string();
            assert!(text.contains(&needed_bytes.to_string()) && text.contains("golden.raw"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(small.join("images")).expect("dir").count(), 0);

    let data = Data::new();
    let mut spec = spec(data.path(), &small.join("i"), "a");
    spec.root = Some(data.root(OverlayKind::Copy).await);
    match data.host.launch(&spec).await {
        Err(LaunchError::Overlay { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(!small.join("i").join("set").exists());
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half_written() {
    let small = tempfile::tempdir().expect("temp dir");
    let script = "mount -t tmpfs -o size=200k none \"$REGATTA_TEST_SMALL\" || exit 77
        exec \"$0\" --exact scarce::on_a_full_disk --ignored --nocapture";
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().expect("own program"))
        .env("REGATTA_TEST_SMALL", small.path())
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&ran.stderr);
    // Some hosts forbid user namespaces; the test says so and cannot be run there.
    if ran.status.code() == Some(77) || said.contains("unshare failed") {
        eprintln!("skipped: no private mount here: {said}");
        return;
    }
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stdout));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "nothing was run");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named_and_nothing_starts() {
    let data = Data::new();
    let file = data.path().join("file");
    std::fs::write(&file, "").expect("write");
    let spec = spec(data.path(), &file, "a");
    match data.host.launch(&spec).await {
        Err(LaunchError::Dir { source, .. }) => {
            assert!(source.to_string().contains("file/set"), "{source}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(data.failures().len(), 0);
}

#[tokio::test]
async fn a_vmm_gets_a_cgroup_of_its_own_where_there_are_any() {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let data = Data::new();
    let name = format!("regatta-test-{}", std::process::id());
    let Some(parent) = mounts.iter().map(|mount| Path::new(mount).join(&name)).find(|parent| {
        parent.parent().is_some_and(|mount| mount.join("cgroup.controllers").exists())
            && std::fs::create_dir(parent).is_ok()
    }) else {
        eprintln!("skipped: no writable cgroup v2 hierarchy here");
        return;
    };
    let root = CgroupRoot::at(&parent).expect("usable");
    let failed = FailedLogs::new(&data.path().join("failed"), 5, 5);
    let host =
        VmmHost::new(vmm_binary(), Some(root), failed, StartLimiter::new(1), HostNetwork::new(data.path()));
    let vmm = host.launch(&data.spec("a")).await.expect("launched");
    let own = parent.join("regatta-vmms").join("set+a");
    let members = std::fs::read_to_string(own.join("cgroup.procs")).expect("members");
    assert_eq!(members.trim(), vmm.identity().pid.to_string());
    assert!(vmm.cpu_time_ns().expect("alive") > 0);

    let regatta_vmm::Adoption::Adopted(adopted) =
        host.adopt(vmm.dir(), Some(&vmm.identity())).await.expect("asked")
    else {
        panic!("not adopted");
    };
    assert!(adopted.vmm.cpu_time_ns().expect("alive") > 0);
    vmm.stop(Duration::ZERO).await.expect("stopped");
    tokio::time::timeout(PATIENCE, adopted.vmm.exited()).await.expect("both handles see the end");
    assert!(!own.exists(), "the cgroup goes with its VMM");
    std::fs::remove_dir(parent.join("regatta-vmms")).expect("empty");
    std::fs::remove_dir(&parent).expect("empty");
}

#[tokio::test]
async fn leftovers_are_found_and_discarded_with_their_logs_kept() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let dir = vmm.dir().clone();
    data.host.discard(&dir, None).await.expect_err("a VMM runs there");
    crate::support::signal(vmm.identity().pid, rustix::process::Signal::KILL);
    vmm.exited().await;
    assert_eq!(InstanceDir::list(&data.instances()).expect("listed"), std::slice::from_ref(&dir));
    data.host.discard(&dir, Some(&"killed by a test".into())).await.expect("discarded");
    assert!(!data.instances().join("set").exists());
    assert_eq!(data.failures().len(), 1);
    data.host.discard(&dir, Some(&"again".into())).await.expect("nothing left is not an error");
    assert_eq!(data.failures().len(), 1);
}
