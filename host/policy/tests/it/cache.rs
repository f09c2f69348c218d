//! Compiled modules on disk: found again, and never trusted for lying there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use regatta_policy_host::{Engine, EngineOptions, Origin};
use tempfile::TempDir;

use crate::fixtures::{hostile, limits, module, observation};

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

/// A daemon that starts again is a new engine on the same directory.
fn start(cache: &Path) -> Engine {
    start_with(EngineOptions { cache: Some(cache.to_owned()), ..quick() })
}

fn start_with(options: EngineOptions) -> Engine {
    Engine::new(options).expect("an engine starts")
}

/// No pool: engines are made by the dozen here.
fn quick() -> EngineOptions {
    EngineOptions { pooling: false, ..EngineOptions::default() }
}

fn load(cache: &Path, module: &[u8]) -> Origin {
    let policy = start(cache).load(module).expect("it is a policy");
    let call = policy.decide(&observation(2, 0.5), "{}", b"", &limits());
    assert!(call.run.result.is_ok(), "{call:?}");
    policy.compiled_from()
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).expect("the cache").map(|entry| entry.expect("an entry").path());
    let mut entries: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "code")).collect();
    entries.sort();
    entries
}

fn the_entry(cache: &Path) -> PathBuf {
    let entries = entries(cache);
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn a_restart_compiles_nothing() {
    let (dir, good) = (dir(), hostile("well-behaved"));
    let cache = dir.path().join("data/compiled");
    assert_eq!(load(&cache, &good), Origin::Fresh);
    assert_eq!(load(&cache, &good), Origin::Cache);
    assert_eq!(load(&cache, &hostile("victims-twice")), Origin::Fresh, "another module");
    assert_eq!(mode(&cache), 0o700);
    assert_eq!(entries(&cache).len(), 2);
    for file in fs::read_dir(&cache).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[test]
fn it_is_the_same_policy_from_disk() {
    let (dir, module) = (dir(), hostile("log-flood"));
    let [fresh, cached] = [(); 2].map(|()| start(dir.path()).load(&module).unwrap());
    assert_eq!((fresh.compiled_from(), cached.compiled_from()), (Origin::Fresh, Origin::Cache));
    assert_eq!((fresh.manifest(), fresh.digest()), (cached.manifest(), cached.digest()));
    assert_eq!((fresh.abi(), fresh.imports()), (cached.abi(), cached.imports()));
    let decide = |policy: &regatta_policy_host::CompiledPolicy| {
        let run = policy.decide(&observation(2, 0.5), "{}", b"", &limits()).run;
        (run.result, run.fuel, run.log)
    };
    assert_eq!(decide(&fresh), decide(&cached));
}

#[test]
fn what_is_refused_is_not_kept() {
    let dir = dir();
    for name in ["missing-export", "undeclared-import", "component-with-an-exploding-type"] {
        assert!(start(dir.path()).load(&hostile(name)).is_err());
    }
    assert_eq!(entries(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn another_configuration_is_another_key() {
    let (dir, good) = (dir(), hostile("well-behaved"));
    assert_eq!(load(dir.path(), &good), Origin::Fresh);
    let pooled = EngineOptions { cache: Some(dir.path().to_owned()), ..EngineOptions::default() };
    let engine = start_with(pooled);
    if !engine.pooling() {
        println!("skipped: there is no address space for a pool");
        return;
    }
    assert_eq!(engine.load(&good).unwrap().compiled_from(), Origin::Fresh);
    assert_eq!(entries(dir.path()).len(), 2);
}

#[test]
fn what_others_could_have_written_is_not_used() {
    let (dir, good) = (dir(), hostile("well-behaved"));
    let spoiled = |spoil: &dyn Fn(&Path)| {
        assert_eq!((load(dir.path(), &good), load(dir.path(), &good)).1, Origin::Cache);
        spoil(&the_entry(dir.path()));
        assert_eq!(load(dir.path(), &good), Origin::Fresh);
        assert_eq!(load(dir.path(), &good), Origin::Cache, "it was written anew");
    };
    spoiled(&|entry| fs::set_permissions(entry, Permissions::from_mode(0o620)).unwrap());
    spoiled(&|entry| fs::write(entry, b"").unwrap());
    spoiled(&|entry| {
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(entry, &elsewhere).unwrap();
        symlink(elsewhere, entry).unwrap();
    });
    // An entry of ours under another name: valid, but made of something else.
    spoiled(&|entry| {
        let other = hostile("victims-twice");
        assert_eq!(load(dir.path(), &other), Origin::Fresh);
        let planted = entries(dir.path()).into_iter().find(|path| path != entry).unwrap();
        fs::rename(planted, entry).unwrap();
    });
    // One that somebody else sealed: right in all but the secret.
    spoiled(&|entry| {
        let theirs = tempfile::tempdir().unwrap();
        assert_eq!(load(theirs.path(), &good), Origin::Fresh);
        fs::copy(the_entry(theirs.path()), entry).unwrap();
    });
    // And with the secret itself: what was readable to others is not a secret.
    fs::set_permissions(dir.path().join("secret"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(load(dir.path(), &good), Origin::Fresh);
    assert_eq!(mode(&dir.path().join("secret")), 0o600);
    assert_eq!(load(dir.path(), &good), Origin::Cache);
}

#[test]
fn what_belongs_to_another_user_is_not_used() {
    let (dir, good) = (dir(), hostile("well-behaved"));
    assert_eq!(load(dir.path(), &good), Origin::Fresh);
    let entry = the_entry(dir.path());
    if let Err(error) = std::os::unix::fs::chown(&entry, Some(65_534), None) {
        println!("skipped: files cannot be given away here: {error}");
        return;
    }
    assert_eq!(load(dir.path(), &good), Origin::Fresh);
    assert_eq!(load(dir.path(), &good), Origin::Cache);
    // The whole directory: nothing is read from it or written to it.
    std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
    let before = fs::metadata(&entry).unwrap().modified().unwrap();
    assert_eq!(load(dir.path(), &good), Origin::Fresh);
    assert_eq!(fs::metadata(&entry).unwrap().modified().unwrap(), before);
}

#[test]
fn a_cache_that_cannot_be_had_costs_only_time() {
    let (dir, good) = (dir(), hostile("well-behaved"));
    let file = dir.path().join("file");
    fs::write(&file, b"in the way").unwrap();
    for unusable in [file.join("below"), file, PathBuf::from("/proc/regatta"), PathBuf::from("/dev/null")] {
        assert_eq!(load(&unusable, &good), Origin::Fresh);
    }
    let open = dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    assert_eq!((load(&open, &good), load(&open, &good)).1, Origin::Fresh, "anybody may write there");
    // It goes away, or turns into something else, while an engine uses it.
    let gone = dir.path().join("gone");
    let engine = start(&gone);
    fs::remove_dir_all(&gone).unwrap();
    assert_eq!(engine.load(&good).unwrap().compiled_from(), Origin::Fresh);
    assert_eq!(engine.load(&hostile("victims-twice")).unwrap().compiled_from(), Origin::Fresh);
}

#[test]
fn the_least_recently_used_goes_when_there_is_too_much() {
    let dir = dir();
    let modules: Vec<_> = (0..4).map(|n| module(&format!("(func $answer (drop (i32.const {n})))"))).collect();
    for module in &modules[..3] {
        assert_eq!(load(dir.path(), module), Origin::Fresh);
    }
    let bytes: u64 = entries(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    // In this order they were used; a file system's clock may be too coarse to tell.
    let now = SystemTime::now();
    for path in entries(dir.path()) {
        fs::File::open(path).unwrap().set_modified(now - Duration::from_secs(1_000)).unwrap();
    }
    for (age_s, module) in [(900, &modules[1]), (800, &modules[0])] {
        let before: Vec<_> = entries(dir.path());
        assert_eq!(load(dir.path(), module), Origin::Cache);
        let used = before.iter().max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
        fs::File::open(used).unwrap().set_modified(now - Duration::from_secs(age_s)).unwrap();
    }
    // Room for three: the fourth takes the place of the one that was not used again.
    let options =
        EngineOptions { cache: Some(dir.path().to_owned()), cache_bytes: bytes + bytes / 6, ..quick() };
    start_with(options).load(&modules[3]).unwrap();
    assert_eq!(entries(dir.path()).len(), 3);
    assert_eq!([0, 1, 3].map(|n| load(dir.path(), &modules[n])), [Origin::Cache; 3]);
    assert_eq!(load(dir.path(), &modules[2]), Origin::Fresh);
}

#[test]
fn many_writers_do_not_get_in_each_others_way() {
    let (dir, good) = (dir(), hostile("well-behaved"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| load(dir.path(), &good));
        }
    });
    assert_eq!(load(dir.path(), &good), Origin::Cache);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "one entry and the secret: {names:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spoiled_entry_is_ever_used(
        at in any::<proptest::sample::Index>(), bit in 0..8_u8, cut in any::<bool>(), secret in proptest::bool::weighted(0.1),
    ) {
        let (dir, good) = (dir(), hostile("well-behaved"));
        load(dir.path(), &good);
        let path = if secret { dir.path().join("secret") } else { the_entry(dir.path()) };
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        fs::write(&path, bytes).unwrap();
        prop_assert_eq!(load(dir.path(), &good), Origin::Fresh);
        prop_assert_eq!(load(dir.path(), &good), Origin::Cache);
    }
}
