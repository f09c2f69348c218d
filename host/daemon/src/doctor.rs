//! What `regatta doctor` finds: the examination of the host, in the words of the command line.

use std::path::Path;

use regatta_cli::doctor::{Check, CheckStatus, Examination};
use regatta_store::{StoreError, refuse_untrusted};
use regatta_util::chain;
use regatta_vmm::doctor;

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
    walls.chain(trusted).collect()
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
