//! The directories in which policies are looked up by name, and what lies there.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use regatta_core::digest::Digest;
use regatta_store::refuse_untrusted;
use tokio_util::sync::CancellationToken;

use super::{Fleet, MODULE_MAX_BYTES, read_module};
use crate::api::types::AvailablePolicy;
use crate::named_file;

/// Between two looks at the directories.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Files that are looked at in one directory; others are left alone.
const FILES_MAX: usize = 256;
/// Most entries of it that are looked at.
const ENTRIES_MAX: usize = 10_000;

/// The directories in which a policy is looked up by its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct PolicyDirs {
    /// Those of the operator.
    pub(crate) asked: Vec<PathBuf>,
    /// Those of the policies that come with Regatta.
    pub(crate) built_in: Vec<PathBuf>,
}

impl PolicyDirs {
    /// The modules that can be named: name and path. The first directory wins.
    #[must_use]
    pub(crate) fn available(&self) -> BTreeMap<String, PathBuf> {
        modules(self.asked.iter().chain(&self.built_in))
    }

    /// The file of a module that a manifest or a command names.
    pub(super) fn resolve(&self, module: &str) -> Result<PathBuf, String> {
        if module.contains('/') {
            return Ok(PathBuf::from(module));
        }
        let available = self.available();
        let Some(path) = available.get(module) else {
            let names: Vec<&str> = available.keys().map(String::as_str).collect();
            let known = if names.is_empty() {
                let dirs = self.asked.iter().chain(&self.built_in);
                let dirs: Vec<String> = dirs.map(|dir| dir.display().to_string()).collect();
                format!("there is no module in {}", dirs.join(", "))
            } else {
                format!("there are: {}", names.join(", "))
            };
            return Err(format!("no policy is named {module}; {known}"));
        };
        if self.built_in(module).is_some_and(|other| other != *path && differ(&other, path)) {
            return Err(format!(
                "{module} is a built-in policy, and {} is another one of that name: rename the file",
                path.display()
            ));
        }
        Ok(path.clone())
    }

    /// Whether a file is one of those that can be named.
    fn holds(&self, path: &Path) -> bool {
        self.available().values().any(|named| named == path)
    }

    /// The policies that come with Regatta, from directories where nobody else could have put them.
    pub(crate) fn own(&self) -> HashSet<Digest> {
        let dirs = self.built_in.iter().filter(|dir| refuse_untrusted(dir).is_ok());
        let files = modules(dirs).into_values();
        files.filter_map(|path| Some(Digest::of(&named_file::read(&path, MODULE_MAX_BYTES).ok()?))).collect()
    }

    /// The file of the built-in policy of that name.
    pub(super) fn built_in(&self, name: &str) -> Option<PathBuf> {
        modules(&self.built_in).remove(name)
    }
}

/// What cannot be read differs: reading it again will tell why.
fn differ(one: &Path, other: &Path) -> bool {
    let read = |path| named_file::read(path, MODULE_MAX_BYTES);
    !matches!((read(one), read(other)), (Ok(one), Ok(other)) if one == other)
}

/// Name and path of the modules in directories. The first directory wins.
fn modules<'a>(dirs: impl IntoIterator<Item = &'a PathBuf>) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for dir in dirs {
        let Ok(entries) = std::fs::read_dir(dir) else { continue };
        let paths = entries.flatten().take(ENTRIES_MAX).map(|entry| entry.path());
        let modules = paths.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
        for path in modules.take(FILES_MAX) {
            if let Some(name) = path.file_stem().and_then(|name| name.to_str())
                    // Files on their way to a better name.
                    && !name.starts_with('.')
            {
                found.entry(name.to_owned()).or_insert(path.clone());
            }
        }
    }
    found
}

/// What tells that a file is another one than before.
type Stamp = (u64, Option<SystemTime>);

/// A file of the directories, as it was last looked at.
#[derive(Debug, Clone)]
struct Seen {
    stamp: Stamp,
    /// It has had this stamp for two looks in a row, and was read then.
    settled: bool,
    version: Option<String>,
    digest: Option<Digest>,
    problem: Option<String>,
}

/// The modules of the directories, as far as they have been looked at.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<BTreeMap<PathBuf, Seen>>);

impl Shelf {
    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The modules with what is known of them.
    pub(super) fn describe(&self, available: BTreeMap<String, PathBuf>) -> Vec<AvailablePolicy> {
        let seen = self.seen();
        available
            .into_iter()
            .map(|(name, path)| {
                let known = seen.get(&path).filter(|seen| seen.settled);
                AvailablePolicy {
                    name,
                    path: path.display().to_string(),
                    version: known.and_then(|seen| seen.version.clone()),
                    digest: known.and_then(|seen| seen.digest.clone()),
                    problem: known.and_then(|seen| seen.problem.clone()),
                }
            })
            .collect()
    }

    /// The files whose content has that digest, or begins so.
    pub(super) fn with_digest(&self, prefix: &str) -> Vec<(Digest, PathBuf)> {
        let seen = self.seen();
        let of = |(path, seen): (&PathBuf, &Seen)| Some((seen.digest.clone()?, path.clone()));
        seen.iter().filter_map(of).filter(|(digest, _)| digest.starts_with(prefix)).collect()
    }

    /// Notes how a file looks now. True when it has just come to rest: it looks as it
    /// did at the last look and has not been read since it changed. A file that is
    /// still being written does not.
    fn rests(&self, path: &Path, stamp: Stamp) -> bool {
        let mut seen = self.seen();
        match seen.get_mut(path) {
            Some(known) if known.stamp == stamp => !std::mem::replace(&mut known.settled, true),
            Some(known) => {
                (known.stamp, known.settled) = (stamp, false);
                false
            }
            None => {
                let new = Seen { stamp, settled: false, version: None, digest: None, problem: None };
                seen.insert(path.to_owned(), new);
                false
            }
        }
    }

    /// Notes what a file holds.
    fn holds(&self, path: &Path, held: Result<(String, Digest), String>) {
        let mut seen = self.seen();
        let Some(known) = seen.get_mut(path) else { return };
        match held {
            Ok((version, digest)) => {
                (known.version, known.digest, known.problem) = (Some(version), Some(digest), None);
            }
            Err(problem) => known.problem = Some(problem),
        }
    }

    /// Lets all files be read again at the next look.
    fn read_all_again(&self) {
        self.seen().values_mut().for_each(|known| known.settled = false);
    }

    /// Lets a file be read again at the next look.
    fn look_again(&self, path: &Path) {
        if let Some(known) = self.seen().get_mut(path) {
            known.settled = false;
        }
    }
}

impl Fleet {
    /// Looks at the policy directories until the daemon ends: a new file is compiled
    /// ahead, and policies that follow their file are swapped when it changes.
    pub(crate) async fn watch_policy_dirs(self: Arc<Self>, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.shared.reload.notified() => {
                    self.shelf.read_all_again();
                    self.look_at_policy_dirs().await;
                }
                _ = looks.tick() => self.look_at_policy_dirs().await,
            }
        }
    }

    async fn look_at_policy_dirs(&self) {
        let (dirs, by_path) = (self.policy_dirs.clone(), self.followed_by_path());
        let look = move || {
            let stamp = |path: &PathBuf| {
                let metadata = std::fs::metadata(path).ok()?;
                Some((metadata.len(), metadata.modified().ok()))
            };
            let mut files: Vec<_> = dirs.available().into_iter().collect();
            files.extend(by_path.into_iter().filter(|(_, path)| !dirs.holds(path)));
            files.into_iter().filter_map(|(name, path)| Some((name, stamp(&path)?, path))).collect::<Vec<_>>()
        };
        let Ok(files) = tokio::task::spawn_blocking(look).await else { return };
        self.shelf.seen().retain(|path, _| files.iter().any(|(_, _, there)| there == path));
        for (name, stamp, path) in files {
            if !self.shelf.rests(&path, stamp) {
                continue;
            }
            let module = read_module(&path).await;
            let digest = module.as_ref().map(|module| Digest::of(module)).map_err(Clone::clone);
            let held = match module {
                Ok(module) => self.look_at(module).await,
                Err(why) => Err(why),
            };
            if let Err(why) = &held {
                tracing::warn!(path = %path.display(), why, "a policy file is not a policy");
            } else {
                tracing::info!(path = %path.display(), name, "a policy is available");
            }
            self.shelf.holds(&path, held);
            if !self.follow(&name, &path, digest.as_deref().map_err(String::as_str)).await {
                self.shelf.look_again(&path);
            }
        }
    }

    /// Version and digest of a policy.
    async fn look_at(&self, module: Vec<u8>) -> Result<(String, Digest), String> {
        let compiled = self.compile(module).await?;
        Ok((compiled.manifest().version.clone(), compiled.digest().clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_read_once_it_rests_and_again_when_it_changes() {
        let shelf = Shelf::default();
        let path = Path::new("/p/a.wasm");
        let at = |size| (size, Some(SystemTime::UNIX_EPOCH));
        // It grows: nobody reads it.
        assert!(!shelf.rests(path, at(1)));
        assert!(!shelf.rests(path, at(2)));
        assert!(!shelf.rests(path, at(3)));
        assert!(shelf.rests(path, at(3)));
        assert!(!shelf.rests(path, at(3)), "only once");
        assert!(!shelf.rests(path, at(4)));
        assert!(shelf.rests(path, at(4)));
    }

    #[test]
    fn what_somebody_else_could_have_put_there_does_not_come_with_regatta() {
        let own = tempfile::tempdir().unwrap();
        std::fs::write(own.path().join("step.wasm"), b"step").unwrap();
        let dirs = PolicyDirs { asked: Vec::new(), built_in: vec![own.path().to_owned()] };
        assert_eq!(dirs.own(), HashSet::from([Digest::of(b"step")]));
        std::fs::set_permissions(own.path(), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(dirs.own(), HashSet::new());
        // Nor what an operator adds.
        let asked = PolicyDirs { asked: dirs.built_in, built_in: Vec::new() };
        assert_eq!(asked.own(), HashSet::new());
    }

    #[test]
    fn a_file_does_not_take_the_name_of_a_built_in_policy() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = |name: &str| {
            let dir = home.path().join(name);
            std::fs::create_dir(&dir).expect("made");
            dir
        };
        let dirs = PolicyDirs { asked: vec![dir("mine")], built_in: vec![dir("theirs")] };
        let (mine, theirs) = (home.path().join("mine/step.wasm"), home.path().join("theirs/step.wasm"));
        std::fs::write(&theirs, "built in").expect("written");
        assert_eq!(dirs.resolve("step"), Ok(theirs));
        // A copy is the same policy.
        std::fs::write(&mine, "built in").expect("written");
        assert_eq!(dirs.resolve("step"), Ok(mine.clone()));
        std::fs::write(&mine, "another").expect("written");
        let why = dirs.resolve("step").expect_err("two of one name");
        assert_eq!(
            why,
            format!(
                "step is a built-in policy, and {} is another one of that name: rename the file",
                mine.display()
            )
        );
        assert_eq!(dirs.resolve("./step.wasm"), Ok(PathBuf::from("./step.wasm")), "a path says which one");
    }
}
