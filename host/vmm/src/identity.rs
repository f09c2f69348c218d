//! Which process is the VMM of an instance: told by what the kernel vouches for, never by what a process says of itself.
//!
//! Anyone can start a process with any command line, and a VMM that its guest has taken over can change its own. So what was written down
//! at the launch counts first (process id and start time, which name one process of this boot), then who listens on the instance's socket,
//! and a command line only of a process with the right user and program.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::process::procfs::FileId;

/// What a launch writes down about the process that it has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessNote {
    pub(crate) pid: i32,
    pub(crate) start_time_ticks: u64,
    /// Of the host: after the next boot the numbers above name another process, or none.
    pub(crate) boot: String,
    /// The program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) program: Option<FileId>,
}

/// A process id that was recorded, with the start of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) pid: i32,
    pub(crate) start_time_ticks: u64,
    /// In this boot of the host: then it can be no other process.
    pub(crate) sure: bool,
}

/// What is known of the VMM that is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) recorded: Vec<Recorded>,
    /// Its user; none when that is not known.
    pub(crate) uid: Option<u32>,
    /// The users that it may have then, besides the daemon's.
    pub(crate) uids: RangeInclusive<u32>,
    pub(crate) own_uid: u32,
    pub(crate) program: Option<FileId>,
    /// A launch of this version wrote down what it started.
    pub(crate) noted: bool,
}

/// What the kernel says about a process that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    pub(crate) start_time_ticks: u64,
    /// Real, effective, saved and file-system user id.
    pub(crate) uids: [u32; 4],
    /// None when the kernel does not tell.
    pub(crate) program: Option<FileId>,
    /// Its command line names the socket and the event file of the instance: it says so itself.
    pub(crate) says_so: bool,
}

/// Which process it is, and which are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) vmm: Option<Seen>,
    /// Process ids, and what speaks against each.
    pub(crate) refused: Vec<(i32, String)>,
}

impl Expected {
    /// Chooses among the process that listens on the instance's socket, and others that may be it. That there are several never means that
    /// there is none.
    pub(crate) fn choose(
        &self,
        listener: Option<i32>,
        others: &[i32],
        look: impl Fn(i32) -> Option<Seen>,
    ) -> Choice {
        let mut choice = Choice::default();
        let mut judge = |seen: Seen, against: Option<String>| match against {
            // What else fits is the VMM's own.
            None => drop(choice.vmm.get_or_insert(seen)),
            Some(why) => choice.refused.push((seen.pid, why)),
        };
        for recorded in &self.recorded {
            let seen = look(recorded.pid).filter(|seen| seen.start_time_ticks == recorded.start_time_ticks);
            if let Some(seen) = seen {
                judge(seen, self.against_recorded(&seen, recorded.sure, listener));
            }
        }
        if let Some(seen) = listener.and_then(&look) {
            judge(seen, self.against_listener(&seen));
        }
        let mut others: Vec<Seen> =
            others.iter().copied().filter_map(&look).filter(|it| it.says_so).collect();
        // A VMM is older than what it has started.
        others.sort_by_key(|seen| (seen.start_time_ticks, seen.pid));
        for seen in others {
            judge(seen, self.against_user(&seen).or_else(|| self.against_program(&seen)));
        }
        choice.refused.retain(|(pid, _)| choice.vmm.is_none_or(|seen| seen.pid != *pid));
        choice.refused.dedup_by_key(|(pid, _)| *pid);
        choice
    }

    /// What the daemon started itself is its VMM whatever it has become since, and before it has given up the daemon's user.
    fn against_recorded(&self, seen: &Seen, sure: bool, listener: Option<i32>) -> Option<String> {
        if sure {
            return None;
        }
        let user = self.against_user(seen);
        user.or_else(|| match seen.says_so || listener == Some(seen.pid) {
            true => None,
            false => Some("its command line does not name the instance's socket".to_owned()),
        })
    }

    /// Only we and the VMM's user can have made a socket in the instance's directory.
    fn against_listener(&self, seen: &Seen) -> Option<String> {
        let from_before = !self.noted && seen.says_so;
        self.against_user(seen).or_else(|| if from_before { None } else { self.against_program(seen) })
    }

    fn against_user(&self, seen: &Seen) -> Option<String> {
        let [uid, ..] = seen.uids;
        let one = seen.uids == [uid; 4];
        let fits = self.uid.map_or(uid == self.own_uid || self.uids.contains(&uid), |known| uid == known);
        match (one && fits, self.uid) {
            (true, _) => None,
            (false, Some(known)) => Some(format!("it runs as user {uid}, the VMM as user {known}")),
            (false, None) => Some(format!("it runs as user {uid}, which no VMM does")),
        }
    }

    fn against_program(&self, seen: &Seen) -> Option<String> {
        match (self.program, seen.program) {
            (Some(wanted), Some(found)) if wanted != found => Some("it runs another program".to_owned()),
            (Some(_), None) => Some("which program it runs cannot be told".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMM: FileId = FileId { device: 1, inode: 7 };
    const PYTHON: FileId = FileId { device: 1, inode: 8 };
    const NOBODY: u32 = 65_534;
    const ITS_OWN: u32 = 500_001;

    fn expected(recorded: &[(i32, u64, bool)]) -> Expected {
        let recorded = recorded
            .iter()
            .map(|&(pid, start_time_ticks, sure)| Recorded { pid, start_time_ticks, sure })
            .collect();
        Expected {
            recorded,
            uid: Some(ITS_OWN),
            uids: 500_000..=500_009,
            own_uid: 0,
            program: Some(VMM),
            noted: true,
        }
    }

    fn process(pid: i32, start_time_ticks: u64, uid: u32, program: FileId) -> Seen {
        Seen { pid, start_time_ticks, uids: [uid; 4], program: Some(program), says_so: true }
    }

    fn choose(
        expected: &Expected,
        listener: Option<i32>,
        table: &[Seen],
    ) -> (Option<i32>, Vec<(i32, String)>) {
        let pids: Vec<i32> = table.iter().map(|seen| seen.pid).collect();
        let choice =
            expected.choose(listener, &pids, |pid| table.iter().find(|seen| seen.pid == pid).copied());
        (choice.vmm.map(|seen| seen.pid), choice.refused)
    }

    #[test]
    fn an_impostor_neither_shadows_the_vmm_nor_takes_its_place() {
        let (real, fake) = (process(10, 100, ITS_OWN, VMM), process(99, 900, NOBODY, PYTHON));
        // Whatever is known of the real one: its record, its socket, or only what it says.
        for (expected, listener) in [
            (expected(&[(10, 100, true)]), None),
            (expected(&[(10, 100, false)]), None),
            (expected(&[]), Some(10)),
            (expected(&[]), None),
        ] {
            let (chosen, refused) = choose(&expected, listener, &[fake, real]);
            assert_eq!(chosen, Some(10), "{expected:?} {listener:?}");
            assert_eq!(refused.len(), 1, "the impostor is told of");
            let (dead, refused) = choose(&expected, None, &[fake]);
            assert_eq!(dead, None);
            assert_eq!(refused, [(99, "it runs as user 65534, the VMM as user 500001".to_owned())]);
        }
        // It may run the very program of VMMs, with a name like a VMM's and the daemon's user as its effective one.
        let set_uid = Seen { uids: [NOBODY, 0, 0, 0], program: Some(VMM), ..fake };
        assert_eq!(choose(&Expected { uid: Some(0), ..expected(&[]) }, None, &[set_uid]).0, None);
        let unknown = Expected { uid: None, ..expected(&[]) };
        assert_eq!(choose(&unknown, None, &[Seen { program: Some(VMM), ..fake }, real]).0, Some(10));
    }

    #[test]
    fn a_vmm_that_was_started_stays_it_whatever_it_does() {
        let expected = expected(&[(10, 100, true)]);
        let silent = Seen { says_so: false, program: None, ..process(10, 100, ITS_OWN, VMM) };
        assert_eq!(
            choose(&expected, None, &[silent]).0,
            Some(10),
            "it hides its command line and its socket"
        );
        let wrapped = process(10, 100, 0, PYTHON);
        assert_eq!(choose(&expected, None, &[wrapped]).0, Some(10), "it has not given up our user yet");
        let helper = process(20, 200, ITS_OWN, VMM);
        assert_eq!(choose(&expected, Some(20), &[silent, helper]).0, Some(10), "another listens");
        assert_eq!(choose(&expected, None, &[process(10, 101, ITS_OWN, VMM)]).0, Some(10), "by what it says");
        let reused = process(10, 101, NOBODY, PYTHON);
        assert_eq!(choose(&expected, None, &[reused]).0, None, "the id is another's now");
    }

    #[test]
    fn nothing_is_gone_while_somebody_that_fits_listens() {
        let outdated = expected(&[(5, 50, true)]);
        let listens = Seen { says_so: false, ..process(10, 100, ITS_OWN, VMM) };
        assert_eq!(choose(&outdated, Some(10), &[listens]).0, Some(10));
        let other = Seen { program: Some(PYTHON), ..listens };
        let (none, refused) = choose(&outdated, Some(10), &[other]);
        assert_eq!((none, refused), (None, vec![(10, "it runs another program".to_owned())]));
        // Of an earlier version, whose program was replaced since: its launch did not write down which.
        let before = Expected { noted: false, ..outdated };
        assert_eq!(choose(&before, Some(10), &[Seen { says_so: true, ..other }]).0, Some(10));
    }

    #[test]
    fn of_several_that_fit_the_oldest_is_the_vmm() {
        let (vmm, helper) = (process(30, 100, ITS_OWN, VMM), process(20, 200, ITS_OWN, VMM));
        assert_eq!(choose(&expected(&[]), None, &[helper, vmm]), (Some(30), Vec::new()));
    }

    #[test]
    fn a_record_of_an_earlier_boot_needs_more_than_its_numbers() {
        let earlier = expected(&[(10, 100, false)]);
        let root = Seen { says_so: false, ..process(10, 100, 0, PYTHON) };
        assert_eq!(choose(&earlier, None, &[root]).0, None);
        let unnamed = Seen { says_so: false, ..process(10, 100, ITS_OWN, VMM) };
        assert_eq!(choose(&earlier, None, &[unnamed]).0, None);
    }
}
