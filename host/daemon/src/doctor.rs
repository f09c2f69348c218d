//! What `regatta doctor` finds: the examination of the host, in the words of the command line.

use regatta_cli::doctor::{Check, CheckStatus, Examination};
use regatta_vmm::doctor;

/// Examines this host. Blocking, for well under a second.
#[must_use]
pub fn examine(what: &Examination) -> Vec<Check> {
    let Examination { data, vmm } = what.clone();
    let checks = doctor::examine(&doctor::Examination { data, vmm });
    let told = |doctor::Check { name, status, seen, fix }| {
        let status = match status {
            doctor::CheckStatus::Ok => CheckStatus::Ok,
            doctor::CheckStatus::Warn => CheckStatus::Warn,
            doctor::CheckStatus::Fail => CheckStatus::Fail,
        };
        Check { name, status, seen, fix }
    };
    checks.into_iter().map(told).collect()
}
