//! What `regatta doctor` finds: the examination of the host, in the words of the command line.

use std::path::Path;

use regatta_cli::doctor::{Check, CheckStatus, Examination};
use regatta_cli::serve_args::VmIds;
use regatta_policy_host::{Engine, Wall};
use regatta_store::{StoreError, refuse_untrusted};
use regatta_util::chain;
use regatta_vmm::doctor;

use crate::serve::policy_engine;

/// The checks of the host that are walls. One that is missing leaves a VMM that its guest has taken over too much.
const WALLS: &[&str] = &[
    "own-user",
    "no-privileges",
    "seccomp",
    "landlock",
    "cgroup",
    "resource-limits",
    "network-namespaces",
    "nftables",
    "bridge-rules",
    "open-files",
];

/// Examines this host. Blocking, for well under a second.
#[must_use]
pub fn examine(what: &Examination) -> Vec<Check> {
    let Examination { data, vmm, security } = what.clone();
    let checks = doctor::examine(&doctor::Examination { data: data.clone(), vmm });
    let told = |doctor::Check { name, status, seen, fix }| {
        let status = match status {
            doctor::CheckStatus::Ok => CheckStatus::Ok,
            doctor::CheckStatus::Warn => CheckStatus::Warn,
            doctor::CheckStatus::Fail => CheckStatus::Fail,
        };
        Check { name, status, seen, fix }
    };
    let checks = checks.into_iter().map(told);
    if !security {
        return checks.collect();
    }
    let walls = checks.filter(|check| WALLS.contains(&check.name)).map(wall);
    let policies = data.join("policies");
    let trusted = [
        trusted("data-directory", &data, CheckStatus::Fail),
        trusted("policy-directory", &policies, CheckStatus::Warn),
    ];
    walls.chain(trusted).chain([policy_worker()]).collect()
}

/// Starts a process as policies run in, and looks at what it could not give up.
fn policy_worker() -> Check {
    let name = "policy-worker";
    let engine = Engine::new(policy_engine(None, VmIds::default().policies()));
    let missing = match &engine {
        Ok(engine) => {
            engine.walls().into_iter().filter_map(|wall| Some((wall.wall, wall.missing?))).collect()
        }
        Err(error) => {
            let fix = "without it the daemon does not start: mend what it says".to_owned();
            return Check { name, status: CheckStatus::Fail, seen: chain(error), fix: Some(fix) };
        }
    };
    worker_check(name, missing)
}

fn worker_check(name: &'static str, missing: Vec<(Wall, String)>) -> Check {
    if missing.is_empty() {
        let seen = "policies run in a process without rights, network or files".to_owned();
        return Check { name, status: CheckStatus::Ok, seen, fix: None };
    }
    let told: Vec<String> = missing.iter().map(|(wall, why)| format!("{wall}: {why}")).collect();
    let fix = if missing.iter().any(|(wall, _)| *wall == Wall::OwnUser) {
        "run the daemon as root, with CAP_SETUID and CAP_SETGID"
    } else {
        "a Linux kernel from 6.2 with Landlock, seccomp and network namespaces has all of them"
    };
    Check { name, status: CheckStatus::Warn, seen: told.join("; "), fix: Some(fix.to_owned()) }
}

/// As a wall: what a VMM cannot do without is missing (as root without capabilities it owns the files of root), what is only requested is
/// weak.
fn wall(check: Check) -> Check {
    match (check.name, check.status) {
        ("own-user", CheckStatus::Warn) => Check { status: CheckStatus::Fail, ..check },
        // VMMs apply it themselves, and nobody can see whether they did.
        ("landlock", CheckStatus::Ok) => {
            let fix = "do not rely on it: own-user keeps a VMM from the same files".to_owned();
            Check { status: CheckStatus::Warn, fix: Some(fix), ..check }
        }
        _ => check,
    }
}

/// Whether nobody else can change a directory or put another in its place.
fn trusted(name: &'static str, path: &Path, otherwise: CheckStatus) -> Check {
    let (status, seen, fix) = match refuse_untrusted(path) {
        Ok(()) => (CheckStatus::Ok, format!("{}: nobody else can change it", path.display()), None),
        Err(StoreError::Untrusted { path, why, .. }) => {
            let (seen, fix) =
                why.split_once(": ").unwrap_or((&why, "have only the daemon's user write in it"));
            (otherwise, format!("{} {seen}", path.display()), Some(fix.to_owned()))
        }
        Err(other) => {
            (otherwise, chain(&other).to_string(), Some("make it readable for the daemon".to_owned()))
        }
    };
    Check { name, status, seen, fix }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_wall_that_the_worker_lacks_is_told_with_what_to_do() {
        let found = |missing| worker_check("policy-worker", missing);
        assert_eq!(found(Vec::new()).status, CheckStatus::Ok);
        let check = found(vec![(Wall::NoFiles, "the kernel has no Landlock".to_owned())]);
        assert_eq!(check.seen, "no-files: the kernel has no Landlock");
        assert!(check.fix.is_some_and(|fix| fix.contains("kernel")));
        let as_user = found(vec![(Wall::OwnUser, "only root can give it one".to_owned())]);
        assert!(as_user.fix.is_some_and(|fix| fix.contains("as root")));
    }

    #[test]
    fn each_wall_is_told_and_a_directory_of_others_with_what_to_do() {
        let data = tempfile::tempdir().unwrap();
        let found = |security| {
            let what = Examination { data: data.path().to_owned(), vmm: None, security };
            let checks = examine(&what);
            assert!(
                checks.iter().all(|check| check.fix.is_some() == (check.status != CheckStatus::Ok)),
                "{checks:?}"
            );
            checks
        };
        let directory = |checks: &[Check]| {
            let check = checks.iter().find(|check| check.name == "data-directory").expect("a check");
            (check.status, check.fix.clone())
        };
        let walls = found(true);
        assert_eq!(directory(&walls), (CheckStatus::Ok, None));
        assert!(WALLS.iter().all(|wall| walls.iter().any(|check| check.name == *wall)), "{walls:?}");
        assert!(found(false).iter().all(|check| check.name != "data-directory"));
        set_permissions(data.path(), Permissions::from_mode(0o777)).unwrap();
        assert_eq!(directory(&found(true)), (CheckStatus::Fail, Some("`chmod go-w` it".to_owned())));
    }
}
