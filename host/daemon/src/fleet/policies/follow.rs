//! Policies that follow their file: `follow: true`.
//!
//! What a file held when it was last offered to the sets that follow it is on disk, so that a file that is replaced while the
//! daemon is down, or removed and created again, is another one, and one that an operator has rolled back is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_core::digest::Digest;
use regatta_core::event::PolicyRef;
use regatta_core::manifest::PolicySpec;
use regatta_util::Said;
use serde::{Deserialize, Serialize};

use super::{Fleet, told};
use crate::api::types::{ErrorCode, SwapRequest};

/// Who swaps a policy that follows its file.
const ACTOR: &str = "policy-dir";

/// What was offered to the sets that follow files, and what came of it.
#[derive(Debug)]
pub(crate) struct Followed {
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// SHA-256 of each file, by path, when it was last offered.
    files: BTreeMap<String, String>,
    /// By set and slot, why the present file is refused.
    refused: BTreeMap<String, BTreeMap<String, String>>,
}

impl Followed {
    /// As it was left in this file. Without one, nothing was offered yet.
    pub(crate) fn read(file: PathBuf) -> Self {
        let known = fs::read(&file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        Self { file, known: Mutex::new(known.unwrap_or_default()) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered(&self, path: &Path) -> Option<String> {
        self.known().files.get(&path.display().to_string()).cloned()
    }

    /// Why files are refused that policies of this set follow, a line each.
    pub(in crate::fleet) fn refused(&self, set: &str) -> Vec<String> {
        let known = self.known();
        let of_set = known.refused.get(set).into_iter().flatten();
        of_set.map(|(slot, why)| format!("policy {slot} does not follow its file: {why}")).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.known();
        let before = known.clone();
        change(&mut known);
        if *known == before {
            return;
        }
        let unfinished = self.file.with_extension("new");
        let json = serde_json::to_vec(&*known).unwrap_or_default();
        let written = fs::write(&unfinished, json).and_then(|()| fs::rename(&unfinished, &self.file));
        if let Err(why) = written {
            tracing::warn!(path = %self.file.display(), %why, "which files were followed is not stored");
        }
    }

    fn settle(&self, set: &str, slot: &str, refusal: Option<String>) {
        self.change(|known| {
            match refusal {
                Some(why) => {
                    known.refused.entry(set.to_owned()).or_default().insert(slot.to_owned(), why);
                }
                None => {
                    known.refused.get_mut(set).map(|of_set| of_set.remove(slot));
                }
            }
            known.refused.retain(|_, of_set| !of_set.is_empty());
        });
    }

    /// Forgets sets and files that are gone and that nobody follows.
    fn offer(&self, path: &Path, digest: &str, sets: &[String], followed: &[(String, PathBuf)]) {
        self.change(|known| {
            known.refused.retain(|set, _| sets.contains(set));
            known.files.insert(path.display().to_string(), digest.to_owned());
            let is_followed = |file: &str| followed.iter().any(|(_, path)| path == Path::new(file));
            known.files.retain(|file, _| is_followed(file) || Path::new(file).exists());
        });
    }
}

fn follows(spec: &PolicySpec, name: &str, path: &Path) -> bool {
    spec.follow && (spec.module == name || Path::new(&spec.module) == path)
}

impl Fleet {
    /// Names and files of the policies that follow a file by its path, wherever it is.
    pub(super) fn followed_by_path(&self) -> Vec<(String, PathBuf)> {
        let views: Vec<_> = self.sets_now().values().map(|handle| handle.view()).collect();
        let specs = views.iter().flat_map(|view| &view.state.set.policies);
        let by_path = specs.filter(|spec| spec.follow && spec.module.contains('/'));
        let mut files: Vec<_> =
            by_path.map(|spec| (spec.module.clone(), PathBuf::from(&spec.module))).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Offers what a file holds to the policies that follow it. One that does not fit is refused, which is an event and
    /// stays to be seen. False when it has to be offered again: the daemon is at fault.
    pub(super) async fn follow(&self, name: &str, path: &Path, held: Result<&str, &str>) -> bool {
        // What cannot be read is another content, too.
        let digest = held.unwrap_or_default();
        let before = self.followed.offered(path);
        let views: Vec<_> = self.sets_now().values().map(|handle| handle.view()).collect();
        let mut is_settled = true;
        for view in &views {
            let set = &view.state.set.name;
            for spec in view.state.set.policies.iter().filter(|spec| follows(spec, name, path)) {
                let Some(slot) = view.state.slot(&spec.name) else { continue };
                if slot.active.digest == digest {
                    self.followed.settle(set, &spec.name, None);
                    continue;
                }
                let is_news = match &before {
                    Some(before) => before != digest,
                    None => slot.previous.is_none(),
                };
                if !is_news {
                    continue;
                }
                let refusal = match held {
                    Ok(_) => self.offer_to(set, spec).await,
                    Err(why) => {
                        self.note_refusal(set, unread(spec), why, ACTOR).await;
                        Ok(Some(why.to_owned()))
                    }
                };
                match refusal {
                    Ok(refusal) => self.followed.settle(set, &spec.name, refusal),
                    Err(()) => is_settled = false,
                }
            }
        }
        if is_settled {
            let sets: Vec<String> = views.iter().map(|view| view.state.set.name.clone()).collect();
            self.followed.offer(path, digest, &sets, &self.followed_by_path());
        }
        is_settled
    }

    /// Why the policy is refused, if it is; an error when nobody knows yet.
    async fn offer_to(&self, set: &str, spec: &PolicySpec) -> Result<Option<String>, ()> {
        let (source, slot) = (spec.module.clone(), Some(spec.name.clone()));
        let request = SwapRequest { source, module: None, params: None, slot, force: false };
        match self.swap(set, request, ACTOR).await {
            Ok(_) => Ok(None),
            Err(why) if matches!(why.code, ErrorCode::Unavailable | ErrorCode::Internal) => Err(()),
            Err(why) => Ok(Some(told(&why))),
        }
    }
}

fn unread(spec: &PolicySpec) -> PolicyRef {
    PolicyRef {
        slot: spec.name.clone(),
        name: Said::default(),
        version: Said::default(),
        digest: Digest::default(),
        source: spec.module.clone().into(),
        activation: 0,
        params: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_offered_outlives_the_daemon_and_what_is_gone_is_forgotten() {
        let home = tempfile::tempdir().expect("a folder");
        let read = || Followed::read(home.path().join("followed.json"));
        let (here, away) = (home.path().join("here.wasm"), home.path().join("away.wasm"));
        fs::write(&here, "here").expect("written");
        let sets = ["web".to_owned()];
        let followed = [("away".to_owned(), away.clone())];
        let first = read();
        assert_eq!(first.offered(&here), None);
        first.settle("web", "main", Some("it traps".to_owned()));
        first.settle("old", "main", Some("it traps".to_owned()));
        first.offer(&here, "1", &sets, &followed);
        first.offer(&away, "2", &sets, &followed);

        let second = read();
        assert_eq!(second.refused("web"), ["policy main does not follow its file: it traps"]);
        assert_eq!(second.refused("old"), [""; 0], "its set is gone");
        assert_eq!(second.offered(&here).as_deref(), Some("1"));
        assert_eq!(second.offered(&away).as_deref(), Some("2"), "removed, and still followed");
        second.settle("web", "main", None);
        second.offer(&here, "3", &sets, &[]);
        assert_eq!(read().refused("web"), [""; 0]);
        assert_eq!(read().offered(&away), None);
        assert_eq!(read().offered(&here).as_deref(), Some("3"));
    }
}
