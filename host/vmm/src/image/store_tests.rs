use std::os::unix::fs::MetadataExt;

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
    assert_eq!(place.store.prune(vec![kept]).await.expect("pruned"), [kernel_digest]);
    assert!(image.path().exists());
    place.store.get_file(kept).await.expect("kept");
    assert!(matches!(place.store.get_file(kernel_digest).await, Err(ImageError::NotStored { .. })));
    assert!(matches!(place.store.get(kept).await, Err(ImageError::Unusable { .. })), "firmware is no disk");
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
