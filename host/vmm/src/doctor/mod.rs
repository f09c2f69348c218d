//! Whether a host can run real VMs the way the daemon wants to: each check as data, with what was seen and what to do.

mod checks;

use std::path::PathBuf;

use serde::Serialize;

use crate::process::CgroupRoot;
use crate::{Isolation, IsolationOptions};

/// How a check ended. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Something works less well, or less safely, than it could.
    Warn,
    /// Real VMs with isolated networks cannot run.
    Fail,
}

impl CheckStatus {
    /// Its name: `ok`, `warn` or `fail`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found about one thing that the daemon needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, such as `kvm`.
    pub name: &'static str,
    /// How it ended.
    pub status: CheckStatus,
    /// What was seen, in a few words.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, seen: seen.into(), fix: None }
    }

    fn bad(name: &'static str, status: CheckStatus, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name, status, seen: seen.into(), fix: Some(fix.into()) }
    }

    /// Out of a text as the rest of the crate has them: what is wrong, a colon, what to do.
    fn told(name: &'static str, status: CheckStatus, text: &str) -> Self {
        match text.split_once(": ") {
            Some((seen, fix)) => Self::bad(name, status, seen, fix),
            None => Self { name, status, seen: text.to_owned(), fix: None },
        }
    }
}

/// What to examine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examination {
    /// The daemon's data directory; need not exist.
    pub data: PathBuf,
    /// The VMM program; else `cloud-hypervisor` on PATH.
    pub vmm: Option<PathBuf>,
}

/// Examines this host. Changes nothing: what must be tried (a network namespace, a shared block) is tried on something that vanishes at
/// once. Blocking, for well under a second.
#[must_use]
pub fn examine(what: &Examination) -> Vec<Check> {
    let cgroups = CgroupRoot::look();
    let isolation = Isolation::detect(IsolationOptions::default(), &cgroups);
    // Isolated networks do without.
    let mut bridge_rules = checks::bridge_rules();
    bridge_rules.status = bridge_rules.status.min(CheckStatus::Warn);
    let mut found = vec![
        checks::kvm(),
        checks::vmm(what.vmm.as_deref()),
        checks::userfaultfd(),
        checks::tun(),
        checks::namespaces(),
        checks::nftables(),
        bridge_rules,
        checks::capabilities(),
        checks::forwarding(),
    ];
    found.extend(checks::containment(&isolation));
    found.extend(checks::limits());
    found.extend(checks::data(&what.data));
    found.push(checks::memory());
    found
}

/// Whether the program is missing that networks of mode `isolated` and `bridge` need: what is seen, and what to do. Quick, unlike
/// [`examine_network`].
#[must_use]
pub fn lacks_nft() -> Option<(&'static str, &'static str)> {
    regatta_util::program::installed("nft").is_none().then_some(checks::NO_NFT)
}

/// What keeps instances from having networks of their own here, `isolated` or on a bridge. As [`examine`] otherwise.
#[must_use]
pub fn examine_network(isolated: bool) -> Vec<Check> {
    let rules = if isolated { checks::nftables() } else { checks::bridge_rules() };
    let mut found = vec![checks::tun(), checks::namespaces(), rules];
    found.retain(|check| check.status == CheckStatus::Fail);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_says_something_and_every_problem_what_to_do() {
        let data = tempfile::tempdir().expect("temp dir");
        let examination = Examination { data: data.path().join("not/there/yet"), vmm: None };
        let checks = examine(&examination);
        let names: std::collections::BTreeSet<_> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), checks.len(), "a name twice: {checks:?}");
        for check in &checks {
            assert!(!check.seen.is_empty(), "{check:?}");
            assert_eq!(check.fix.is_some(), check.status != CheckStatus::Ok, "{check:?}");
        }
        assert_eq!(std::fs::read_dir(data.path()).expect("dir").count(), 0, "nothing was left behind");
    }

    #[test]
    fn a_vmm_that_is_none_is_told_apart_from_one_that_is_missing() {
        let missing = checks::vmm(Some("/nonexistent/vmm".as_ref()));
        assert_eq!(missing.status, CheckStatus::Fail);
        assert!(missing.seen.contains("No such file"), "{missing:?}");
        // Some tell a version of their own, some none.
        let other = checks::vmm(Some("/bin/cat".as_ref()));
        assert_eq!(other.status, CheckStatus::Fail);
        assert!(other.seen.contains("52 or later") || other.seen.contains("does not look like"), "{other:?}");
    }

    #[test]
    fn what_the_crate_says_is_parted_into_what_and_how() {
        let check = Check::told("x", CheckStatus::Warn, "there is no setpriv: install util-linux: now");
        assert_eq!(check.seen, "there is no setpriv");
        assert_eq!(check.fix.as_deref(), Some("install util-linux: now"));
    }
}
