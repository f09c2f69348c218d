//! Whether a file system shares blocks, told by trying, on a real XFS in a file.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use regatta_vmm::{ImageStore, OverlayKind, reflink};

use crate::support::{Data, PATIENCE, spec};

/// Not a test of its own: what [`an_xfs_shares_blocks_and_a_copy_of_an_image_costs_none`] does on a mounted XFS.
#[tokio::test]
#[ignore = "run by another test"]
async fn on_a_file_system_that_shares_blocks() {
    let Some(mount) = std::env::var_os("REGATTA_TEST_XFS") else {
        return;
    };
    let mount = Path::new(&mount);
    assert!(reflink(mount).expect("tried"), "an XFS that does not share blocks");
    let store = ImageStore::open(&mount.join("images")).expect("store");
    assert!(store.reflink().await.expect("tried"));

    let source = mount.join("golden.raw");
    std::fs::write(&source, vec![7; 32 << 20]).expect("image");
    let image = store.import(&source, None).await.expect("imported");
    std::fs::remove_file(&source).expect("removed");
    let free = || {
        // What is still only in memory is not counted yet.
        let dir = std::fs::File::open(mount).expect("open");
        rustix::fs::syncfs(&dir).expect("sync");
        let facts = rustix::fs::statvfs(mount).expect("statvfs");
        facts.f_bfree * facts.f_frsize
    };
    let before = free();
    let data = Data::new();
    let mut spec = spec(data.path(), &mount.join("i"), "a");
    spec.root = Some(regatta_vmm::RootDisk { image, overlay: OverlayKind::Copy, size_bytes: None });
    let vmm = data.host.launch(&spec).await.expect("launched");
    let root = spec.dir.path().join("root.raw");
    assert!(std::fs::metadata(&root).expect("root disk").blocks() * 512 >= 32 << 20, "it has all its data");
    let used = before.saturating_sub(free());
    assert!(used < 4 << 20, "a copy of 32 MiB took {used} bytes");
    vmm.stop(PATIENCE).await.expect("stopped");
}

#[test]
fn an_xfs_shares_blocks_and_a_copy_of_an_image_costs_none() {
    let dir = tempfile::tempdir().expect("temp dir");
    // XFS is at least 300 MB; the file is sparse. The mount ends with its namespace, and the loop device with the mount.
    let script = "cd \"$REGATTA_TEST_DIR\" && truncate -s 320M xfs.img && mkdir mnt || exit 1
        mkfs.xfs -q xfs.img && mount -o loop xfs.img mnt || exit 77
        chmod 711 mnt; export REGATTA_TEST_XFS=$PWD/mnt; cd /
        exec \"$0\" --exact reflink::on_a_file_system_that_shares_blocks --ignored --nocapture";
    let ran = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().expect("own program"))
        .env("REGATTA_TEST_DIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&ran.stderr);
    if ran.status.code() == Some(77) || said.contains("unshare failed") {
        eprintln!("skipped: no XFS can be made and mounted here: {}", said.trim());
        return;
    }
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stdout));
    assert!(String::from_utf8_lossy(&ran.stdout).contains("1 passed"), "nothing was run");
}

#[test]
fn a_file_system_in_memory_shares_none() {
    let memory = Path::new("/dev/shm");
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    match rustix::fs::statfs(memory) {
        Ok(facts) if u64::try_from(facts.f_type) == Ok(TMPFS_MAGIC) => {
            assert!(!reflink(memory).expect("tried"));
        }
        _ => eprintln!("skipped: /dev/shm is not a tmpfs here"),
    }
    reflink(Path::new("/nonexistent")).expect_err("nothing can be made there");
}
