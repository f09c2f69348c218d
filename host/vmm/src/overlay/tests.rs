use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::image::ImageStore;

fn backing(path: &Path, size: u64) -> Backing {
    let file = File::create(path).expect("create");
    file.set_len(size).expect("size");
    file.write_all_at(b"golden", 4096).expect("write");
    Backing { path: path.to_path_buf(), format: ImageFormat::Raw, virtual_size_bytes: size }
}

fn go() -> AtomicBool {
    AtomicBool::new(false)
}

/// `qemu-img` is the independent judge where it is installed.
fn qemu_img(args: &[&str]) -> Option<String> {
    match Command::new("qemu-img").args(args).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                output.status.success(),
                "qemu-img {args:?}: {text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(text)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            eprintln!("skipped: qemu-img is not installed");
            None
        }
        Err(error) => panic!("qemu-img: {error}"),
    }
}

#[test]
fn qemu_accepts_the_overlay_and_reads_the_golden_image_through_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let golden = backing(&dir.path().join("golden.raw"), 10 << 20);
    let disk = prepare(dir.path(), OverlayKind::Qcow2, &golden, Some(20 << 20), &go()).expect("made");
    assert_eq!(disk, planned(dir.path(), OverlayKind::Qcow2, &golden));
    assert!(disk.has_backing_file);
    let path = disk.path.to_str().expect("path");
    if let Some(info) = qemu_img(&["info", "--output=json", path]) {
        let info: serde_json::Value = serde_json::from_str(&info).expect("json");
        assert_eq!(info["virtual-size"], 20 << 20);
        assert_eq!(info["backing-filename"], golden.path.to_str().expect("path"));
        assert_eq!(info["backing-filename-format"], "raw");
        qemu_img(&["check", path]).expect("checked");
        let flat = dir.path().join("flat.raw");
        qemu_img(&["convert", "-O", "raw", path, flat.to_str().expect("path")]).expect("converted");
        let mut bytes = [0; 6];
        File::open(&flat).expect("open").read_exact_at(&mut bytes, 4096).expect("read");
        assert_eq!((&bytes, fs::metadata(&flat).expect("stat").len()), (b"golden", 20 << 20));
    }
}

#[test]
fn qemu_accepts_large_overlays_too() {
    let dir = tempfile::tempdir().expect("temp dir");
    for size in [512, 513 << 20, 5 << 40, qcow2::MAX_SIZE_BYTES] {
        let path = dir.path().join(format!("{size}.qcow2"));
        let plan = qcow2::plan(Path::new("/dev/null"), ImageFormat::Raw, size).expect("planned");
        qcow2::write(&path, &plan).expect("written");
        assert!(
            fs::metadata(&path).expect("stat").blocks() * 512 <= 64 * 1024,
            "an empty overlay is small on disk"
        );
        qemu_img(&["check", path.to_str().expect("path")]);
    }
}

#[tokio::test]
async fn the_store_refuses_an_overlay_as_golden_image() {
    let dir = tempfile::tempdir().expect("temp dir");
    let golden = backing(&dir.path().join("golden.raw"), 1 << 20);
    let disk = prepare(dir.path(), OverlayKind::Qcow2, &golden, None, &go()).expect("made");
    let store = ImageStore::open(&dir.path().join("images")).expect("store");
    let error = store.import(&disk.path, None).await.expect_err("an overlay").to_string();
    assert!(error.contains("overlay of another image"), "{error}");
}

#[test]
fn a_copy_has_the_same_bytes_stays_sparse_and_grows() {
    let dir = tempfile::tempdir().expect("temp dir");
    let golden = backing(&dir.path().join("golden.raw"), 64 << 20);
    let disk = prepare(dir.path(), OverlayKind::Copy, &golden, Some(128 << 20), &go()).expect("made");
    let mut bytes = [0; 6];
    File::open(&disk.path).expect("open").read_exact_at(&mut bytes, 4096).expect("read");
    let metadata = fs::metadata(&disk.path).expect("stat");
    assert_eq!((&bytes, metadata.len(), disk.format), (b"golden", 128 << 20, ImageFormat::Raw));
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let dir = tempfile::tempdir().expect("temp dir");
    let golden = backing(&dir.path().join("golden.raw"), 1 << 20);
    let error = |kind, size, cancelled: bool| {
        prepare(dir.path(), kind, &golden, size, &AtomicBool::new(cancelled)).expect_err("refused")
    };
    assert!(matches!(error(OverlayKind::Qcow2, Some(512), false), OverlayError::Size { .. }));
    assert!(matches!(error(OverlayKind::Copy, Some((1 << 20) + 1), false), OverlayError::Size { .. }));
    assert!(matches!(error(OverlayKind::Qcow2, Some(65 << 40), false), OverlayError::Size { .. }));
    // Where blocks are shared a copy is over before it can be cancelled.
    let probe = dir.path().join("probe");
    let shares = rustix::fs::ioctl_ficlone(
        File::create(&probe).expect("create"),
        File::open(&golden.path).expect("open"),
    );
    fs::remove_file(&probe).expect("remove");
    if shares.is_err() {
        assert!(matches!(error(OverlayKind::Copy, None, true), OverlayError::Io { .. }));
    }
    let gone = Backing { path: dir.path().join("missing"), ..golden.clone() };
    assert!(matches!(
        prepare(dir.path(), OverlayKind::Copy, &gone, None, &go()),
        Err(OverlayError::Io { .. })
    ));
    let long = Path::new("/").join("x".repeat(2000));
    assert!(matches!(
        qcow2::plan(&long, ImageFormat::Raw, 512),
        Err(OverlayError::BackingPathTooLong { .. })
    ));
    assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1, "only the golden image is there");
}

/// Reads back what the writer wrote, after the format's description and not after the writer.
fn read_back(plan: &qcow2::Plan) -> (u64, u32, u64, String, String) {
    let head = &plan.pieces[0].1;
    let u32_at = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    let u64_at = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    let text = |at: usize, len: usize| String::from_utf8(head[at..at + len].to_vec()).expect("utf-8");
    let name = text(u64_at(8) as usize, u32_at(16) as usize);
    let mut at = u32_at(100) as usize;
    let mut format = String::new();
    loop {
        let (kind, len) = (u32_at(at), u32_at(at + 4) as usize);
        match kind {
            0 => break,
            0xE279_2ACA => format = text(at + 8, len),
            other => panic!("extension {other:#x}"),
        }
        at += 8 + len.next_multiple_of(8);
    }
    (u64_at(24), u32_at(36), u64_at(40), name, format)
}

proptest! {
    #[test]
    fn header_round_trips(sectors in 1u64..(qcow2::MAX_SIZE_BYTES / 512), name in "/[a-zA-Z0-9é/._-]{1,300}", raw in any::<bool>()) {
        let size = sectors * 512;
        let wanted = if raw { ImageFormat::Raw } else { ImageFormat::Qcow2 };
        let plan = qcow2::plan(Path::new(&name), wanted, size).expect("planned");
        let (got_size, l1_entries, l1_offset, got_name, format) = read_back(&plan);
        prop_assert_eq!((got_size, got_name, format), (size, name, wanted.name().to_owned()));
        prop_assert!(u64::from(l1_entries) * (512 << 20) >= size);
        prop_assert!(l1_offset + u64::from(l1_entries) * 8 <= plan.file_bytes);
        // Every cluster of the file is counted once, and the pieces do not overlap.
        prop_assert_eq!(plan.pieces[2].1.len() as u64, plan.file_bytes / 65536 * 2);
        for pair in plan.pieces.windows(2) {
            prop_assert!(pair[0].0 + pair[0].1.len() as u64 <= pair[1].0);
        }
    }
}
