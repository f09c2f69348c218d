use std::fs::Permissions;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use super::super::side::SideFile;
use super::*;

struct Place {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let store = ImageStore::open(&dir.path().join("images")).expect("store");
        Self { dir, store }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("write");
        path
    }

    fn stored(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path().join("images"))
            .expect("dir")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn disk() -> Vec<u8> {
    let mut bytes = vec![0; 300 * 1024];
    bytes[200_000] = 7;
    bytes
}

#[tokio::test]
async fn an_image_is_stored_by_digest_read_only_and_found_again() {
    let place = Place::new();
    let source = place.file("disk.raw", &disk());
    let digest = Digest::of(&disk());
    let image = place.store.import(&source, Some(digest)).await.expect("imported");
    assert_eq!(
        (image.digest(), image.format(), image.virtual_size_bytes()),
        (digest, ImageFormat::Raw, 300 * 1024)
    );
    assert_eq!(fs::read(image.path()).expect("read"), disk());
    let metadata = fs::metadata(image.path()).expect("stat");
    assert_eq!(metadata.mode() & 0o777, 0o444);
    assert_ne!(metadata.ino(), fs::metadata(&source).expect("stat").ino(), "never a hard link");
    assert!(metadata.blocks() * 512 < 200 * 1024, "zeros are holes");

    let again = ImageStore::open(&place.dir.path().join("images")).expect("opened again");
    assert_eq!(again.get(digest).await.expect("found").path(), image.path());
    assert_eq!(place.stored().len(), 2, "{:?}", place.stored());
}

#[tokio::test]
async fn wrong_missing_and_useless_files_are_named_and_leave_nothing() {
    let place = Place::new();
    let source = place.file("disk.raw", &disk());
    let other = Digest::of(b"other");
    let error = place.store.import(&source, Some(other)).await.expect_err("wrong digest").to_string();
    assert!(
        error.contains(&other.hex()) && error.contains(&Digest::of(&disk()).hex()),
        "both digests: {error}"
    );
    let missing = place.dir.path().join("missing.raw");
    assert!(
        matches!(place.store.import(&missing, None).await, Err(ImageError::Missing { path }) if path == missing)
    );
    assert!(matches!(place.store.import(place.dir.path(), None).await, Err(ImageError::NotAFile { .. })));
    let odd = place.file("odd.raw", b"odd");
    assert!(matches!(place.store.import(&odd, None).await, Err(ImageError::Unusable { .. })));
    let fifo = place.dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("fifo");
    assert!(matches!(place.store.import(&fifo, None).await, Err(ImageError::NotAFile { .. })));
    assert!(matches!(place.store.get(other).await, Err(ImageError::NotStored { .. })));
    assert_eq!(place.stored(), Vec::<String>::new());
}

#[tokio::test]
async fn a_corrupt_stored_image_is_refused_and_healed_by_a_good_import() {
    let place = Place::new();
    let source = place.file("disk.raw", &disk());
    let image = place.store.import(&source, None).await.expect("imported");
    let (digest, path) = (image.digest(), image.path().to_path_buf());
    drop(image);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("chmod");
    File::options().write(true).open(&path).expect("open").write_all_at(b"rot", 5).expect("write");
    match place.store.get(digest).await {
        Err(ImageError::Corrupt { expected, actual, .. }) => assert!(expected == digest && actual != digest),
        other => panic!("{other:?}"),
    }
    let image = place.store.import(&source, Some(digest)).await.expect("healed");
    assert_eq!(fs::read(image.path()).expect("read"), disk());
    place.store.get(digest).await.expect("good again");
}

#[tokio::test]
async fn an_unchanged_file_is_hashed_once_and_a_changed_one_again() {
    let place = Place::new();
    let source = place.file("disk.raw", &disk());
    let first = place.store.import(&source, None).await.expect("imported").digest();
    let side = place.dir.path().join("images").join(format!("sha256-{}.json", first.hex()));
    // If the source were hashed again, a side file that lies about it could not lead us to another digest.
    let other = place.store.import_file(&place.file("kernel", b"kernel"), None).await.expect("kernel");
    let other_side = place.dir.path().join("images").join(format!("sha256-{}.json", other.digest().hex()));
    let mut lying = SideFile::load(&other_side).expect("side file");
    lying.sources = SideFile::load(&side).expect("side file").sources;
    lying.save(&other_side);
    fs::remove_file(&side).expect("remove");
    let seen = place.store.import_file(&source, None).await.expect("from what was noted").digest();
    assert_eq!(seen, other.digest(), "the noted digest was used");

    let mut changed = disk();
    changed[0] = 1;
    let source = place.file("disk.raw", &changed);
    assert_eq!(place.store.import(&source, None).await.expect("imported").digest(), Digest::of(&changed));
}

#[tokio::test]
async fn no_writer_can_lock_an_image_in_use_and_prune_spares_it() {
    let place = Place::new();
    let image = place.store.import(&place.file("disk.raw", &disk()), None).await.expect("imported");
    let kernel = place.store.import_file(&place.file("kernel", b"kernel"), None).await.expect("imported");
    let kept =
        place.store.import_file(&place.file("fw", b"firmware"), None).await.expect("imported").digest();
    let kernel_digest = kernel.digest();
    drop(kernel);
    let would = place.store.prune(vec![kept], true).await.expect("looked");
    assert_eq!(would.iter().map(|file| file.digest).collect::<Vec<_>>(), [kernel_digest]);
    assert!(would[0].disk_bytes > 0, "{would:?}");
    assert_eq!(place.stored().len(), 6, "a dry run removes nothing");
    assert_eq!(place.store.prune(vec![kept], false).await.expect("pruned"), would);
    assert!(image.path().exists());
    place.store.get_file(kept).await.expect("kept");
    assert!(matches!(place.store.get_file(kernel_digest).await, Err(ImageError::NotStored { .. })));
    assert!(
        matches!(place.store.get(kept).await, Err(ImageError::Unusable { .. })),
        "firmware is not a disk"
    );
}

#[tokio::test]
async fn leftovers_of_an_interrupted_import_go_when_the_store_opens() {
    let place = Place::new();
    fs::write(place.dir.path().join("images").join(".import-abc"), "half").expect("write");
    ImageStore::open(&place.dir.path().join("images")).expect("opened");
    assert_eq!(place.stored(), Vec::<String>::new());
    let file = place.file("file", b"");
    assert!(matches!(ImageStore::open(&file), Err(ImageError::Write { .. })));
}

/// A qcow2 image with `bytes` put at `at`.
fn qcow2_with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = crate::image::clusters::tests::image();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    image
}

/// An empty overlay of `backing`.
fn overlay_of(backing: &Path) -> Vec<u8> {
    let plan = crate::overlay::qcow2::plan(backing, ImageFormat::Qcow2, 1 << 30).expect("plan");
    let mut image = vec![0; usize::try_from(plan.file_bytes).expect("small")];
    for (at, bytes) in plan.pieces {
        image[usize::try_from(at).expect("small")..][..bytes.len()].copy_from_slice(&bytes);
    }
    image
}

#[tokio::test]
async fn every_bad_image_has_one_clear_line_and_leaves_nothing() {
    let place = Place::new();
    let good = qcow2_with(0, b"");
    place.file("chain-0.qcow2", &good);
    for link in 1..=50 {
        let below = place.dir.path().join(format!("chain-{}.qcow2", link - 1));
        place.file(&format!("chain-{link}.qcow2"), &overlay_of(&below));
    }
    let fifo = place.dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("fifo");
    let _socket = std::os::unix::net::UnixListener::bind(place.dir.path().join("socket")).expect("socket");
    fs::create_dir(place.dir.path().join("directory")).expect("made");
    let made: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty.raw", vec![], "it is empty"),
        ("odd.raw", vec![1; 1000], "length of 1000 bytes is not a multiple of 512"),
        (
            "disk.qcow2.xz",
            [b"\xfd7zXZ\0".as_slice(), &[0; 506]].concat(),
            "compressed with xz; unpack it first",
        ),
        ("disk.vmdk", [b"KDMV".as_slice(), &[0; 508]].concat(), "a VMDK image; convert it first"),
        ("header.qcow2", good[..60].to_vec(), "header is cut off"),
        ("tables.qcow2", good[..5 << 16].to_vec(), "a table of clusters at byte 327680 lies beyond its end"),
        ("cut.qcow2", good[..8 << 16].to_vec(), "data at byte 524288 lies beyond its end (524288 bytes)"),
        ("aes.qcow2", qcow2_with(32, &1_u32.to_be_bytes()), "it is an encrypted qcow2 image"),
        ("luks.qcow2", qcow2_with(32, &2_u32.to_be_bytes()), "it is an encrypted qcow2 image"),
        ("dirty.qcow2", qcow2_with(72, &1_u64.to_be_bytes()), "not closed cleanly; repair it first"),
        ("new.qcow2", qcow2_with(4, &4_u32.to_be_bytes()), "version 4; versions 2 and 3 are supported"),
        (
            "foreign.qcow2",
            overlay_of(Path::new("/etc/passwd")),
            "overlay of another image, \"/etc/passwd\"; flatten",
        ),
        ("a\nb\u{1b}[31m.raw", vec![1; 7], r"a\nb\u{1b}[31m.raw cannot be a golden image"),
    ];
    let mut cases: Vec<(PathBuf, String)> =
        made.into_iter().map(|(name, bytes, part)| (place.file(name, &bytes), part.to_owned())).collect();
    let other = |name: &str, part: &str| (place.dir.path().join(name), part.to_owned());
    cases.extend([
        other("chain-50.qcow2", "chain-49.qcow2\"; flatten it first"),
        other("missing.raw", "missing.raw does not exist"),
        other("mis\nsing.raw", r"mis\nsing.raw does not exist"),
        other("fifo", "is a FIFO, not a regular file"),
        other("socket", "is a socket, not a regular file"),
        other("directory", "is a directory, not a regular file"),
        other("odd.raw/inside", "cannot read"),
        ("/dev/null".into(), "is a character device, not a regular file".to_owned()),
    ]);
    for (path, part) in cases {
        let error = place.store.import(&path, None).await.expect_err("refused").to_string();
        assert!(error.contains(&part), "{part:?} is not in: {error}");
        assert!(!error.contains(char::is_control), "one line: {error:?}");
        assert_eq!(place.stored(), Vec::<String>::new(), "{error}");
    }
    place.store.import(&place.dir.path().join("chain-0.qcow2"), None).await.expect("the good one");
}

#[tokio::test]
async fn progress_counts_every_byte_that_is_read() {
    let place = Place::new();
    let source = place.file("disk.raw", &disk());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let note = move |bytes| told.lock().expect("lock").push(bytes);
    place.store.import_watched(&source, None, note).await.expect("imported");
    let seen = seen.lock().expect("lock");
    assert!(seen.is_sorted() && seen.last() == Some(&(300 * 1024)), "{seen:?}");
}

#[tokio::test]
async fn a_slow_source_keeps_nobody_waiting_but_who_wants_the_same() {
    let place = Place::new();
    let (slow, quick) = (place.file("slow.raw", &disk()), place.file("kernel", b"a kernel"));
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (store, path) = (place.store.clone(), slow.clone());
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let begun = Mutex::new(Some(begun));
    let import = tokio::spawn(async move {
        let held_up = move |_| {
            if let Some(begun) = begun.lock().expect("lock").take() {
                begun.send(()).expect("the test waits");
                // Ends when the sender is gone.
                let _ = wait.lock().expect("lock").recv();
            }
        };
        store.import_watched(&path, None, held_up).await
    });
    has_begun.await.expect("it reads");
    let kernel = place.store.import_file(&quick, None).await.expect("does not wait");
    place.store.get_file(kernel.digest()).await.expect("does not wait");
    place.store.prune(Vec::new(), true).await.expect("does not wait");
    let mut same = std::pin::pin!(place.store.import(&slow, None));
    assert!(is_pending(same.as_mut()).await, "the same source is not read by two");
    drop(go_on);
    assert_eq!(
        same.await.expect("imported").digest(),
        import.await.expect("no panic").expect("imported").digest()
    );
}

/// Polls once; whether it is still under way.
async fn is_pending<F: std::future::Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(future.take().is_some_and(|future| future.poll(cx).is_pending()))
    })
    .await
}
