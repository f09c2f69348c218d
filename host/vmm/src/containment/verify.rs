//! What the kernel says about a running VMM, against what was intended.

use rustix::process::Pid;

use super::{Containment, Measure};
use crate::process::procfs;

impl Containment {
    /// Takes back every measure that the process does not show. Measures that the kernel does not tell of stay: limits, and what is requested.
    pub(crate) fn verify(&mut self, pid: i32) {
        let Some(pid) = Pid::from_raw(pid) else { return };
        let Some(status) = procfs::status(pid) else { return };
        if let Some(uid) = self.uid
            && status.uids != [uid; 4]
        {
            self.withdraw(Measure::OwnUser, format!("it runs as user {}, not {uid}", status.uids[1]));
        }
        if !status.no_new_privs || status.capabilities != 0 {
            let why = format!("it has capabilities {:#x}, or could get some", status.capabilities);
            self.withdraw(Measure::NoPrivileges, why);
        }
        let shares = |kind| {
            let its = procfs::namespace(&pid.as_raw_nonzero().to_string(), kind);
            its.is_none_or(|its| Some(its) == procfs::namespace("thread-self", kind))
        };
        if shares("net") {
            self.withdraw(Measure::OwnNetwork, "it is in the host's network namespace".to_owned());
        }
        if shares("pid") || shares("ipc") {
            self.withdraw(Measure::OwnProcesses, "it is among the host's processes".to_owned());
        }
        // Cloud Hypervisor filters each of its threads but not the first, which only waits.
        if !procfs::threads(pid).into_iter().any(|thread| thread.seccomp_filter) {
            let why = "no thread of the VMM has a filter, though it was asked for (--seccomp true)";
            self.withdraw(Measure::Seccomp, why.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does_not_show_is_taken_back() {
        let mut containment = Containment::none("x");
        for measure in Measure::ALL {
            containment.set(measure, Ok(()));
        }
        containment.uid = Some(4_000_000_000);
        // Of this very process: it has neither that user, nor no_new_privs unless the test runner has.
        let own = procfs::status(rustix::process::getpid()).expect("own status");
        containment.verify(rustix::process::getpid().as_raw_nonzero().get());
        assert!(!containment.has(Measure::OwnUser));
        assert_eq!(containment.has(Measure::NoPrivileges), own.no_new_privs && own.capabilities == 0);
        assert_eq!(containment.has(Measure::Seccomp), own.seccomp_filter);
        assert!(!containment.has(Measure::OwnNetwork) && !containment.has(Measure::OwnProcesses));
        assert!(!containment.has(Measure::Landlock) && containment.has(Measure::ResourceLimits));
    }
}
