//! Faults of the VMM itself, from `REGATTA_CHSIM_FAULTS` or the control socket.
//!
//! A list separated by commas: `slow:vm.boot=500ms, hang:vm.info, refuse:vm.boot, reset:vm.info, crash:vm.delete,
//! exit:vm.boot=3, pid=1, lose-events=0.5, lock-held, enospc`. A `#n` behind a call makes the fault hit its n-th call
//! only (`refuse:vm.boot#1`).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::knobs::parse_duration;
use crate::random::SplitMix;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallFault {
    /// It takes this much longer.
    Slow(Duration),
    /// It never answers, and so no other call does.
    Hang,
    /// It fails with 500.
    Refuse,
    /// Its answer breaks off in the middle.
    Reset,
    /// The process dies as if killed, before the call does anything.
    Crash,
    /// The process exits with this code.
    Exit(i32),
}

#[derive(Debug, Clone, PartialEq)]
enum Fault {
    Call { call: String, nth: Option<u32>, fault: CallFault },
    Pid(i64),
    LoseEvents(f64),
    LockHeld,
    NoSpace,
}

#[derive(Debug)]
struct State {
    faults: Vec<Fault>,
    calls: std::collections::BTreeMap<String, u32>,
    random: SplitMix,
}

/// The faults that are in force.
#[derive(Debug)]
pub(crate) struct Faults(Mutex<State>);

impl Faults {
    /// Reads a list; an empty one means no faults. The error names every entry that cannot be read.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let faults = parse(list)?;
        Ok(Self(Mutex::new(State { faults, calls: Default::default(), random: SplitMix::new(0) })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds the faults of a list to those in force.
    pub(crate) fn add(&self, list: &str) -> Result<(), String> {
        let more = parse(list)?;
        self.with(|state| state.faults.extend(more));
        Ok(())
    }

    /// Ends all faults.
    pub(crate) fn clear(&self) {
        self.with(|state| state.faults.clear());
    }

    /// Counts a call and says what happens to it.
    pub(crate) fn on_call(&self, name: &str) -> Vec<CallFault> {
        self.with(|state| {
            let count = state.calls.entry(name.to_owned()).or_insert(0);
            *count = count.saturating_add(1);
            let count = *count;
            let hits = state.faults.iter().filter_map(|fault| match fault {
                Fault::Call { call, nth, fault } if call == name && nth.is_none_or(|nth| nth == count) => {
                    Some(*fault)
                }
                _ => None,
            });
            hits.collect()
        })
    }

    /// The process id to tell instead of the true one.
    pub(crate) fn pid(&self) -> Option<i64> {
        self.with(|state| {
            state.faults.iter().find_map(|fault| if let Fault::Pid(pid) = fault { Some(*pid) } else { None })
        })
    }

    /// Whether this event is lost.
    pub(crate) fn lose_event(&self) -> bool {
        self.with(|state| {
            let share = state
                .faults
                .iter()
                .find_map(|fault| if let Fault::LoseEvents(share) = fault { Some(*share) } else { None });
            share.is_some_and(|share| state.random.next_unit() < share)
        })
    }

    /// Whether disks are locked by a stranger.
    pub(crate) fn lock_held(&self) -> bool {
        self.with(|state| state.faults.contains(&Fault::LockHeld))
    }

    /// Whether the disk that a snapshot goes to is full.
    pub(crate) fn no_space(&self) -> bool {
        self.with(|state| state.faults.contains(&Fault::NoSpace))
    }
}

fn parse(list: &str) -> Result<Vec<Fault>, String> {
    let (mut faults, mut problems) = (Vec::new(), Vec::new());
    for entry in list.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty()) {
        match parse_one(entry) {
            Ok(fault) => faults.push(fault),
            Err(problem) => problems.push(format!("bad fault {entry:?}: {problem}")),
        }
    }
    if problems.is_empty() { Ok(faults) } else { Err(problems.join("; ")) }
}

fn parse_one(entry: &str) -> Result<Fault, String> {
    let (head, value) = match entry.split_once('=') {
        Some((head, value)) => (head, Some(value)),
        None => (entry, None),
    };
    let Some((kind, call)) = head.split_once(':') else {
        return match (head, value) {
            ("pid", Some(pid)) => {
                pid.parse().map(Fault::Pid).map_err(|_| format!("{pid:?} is not a process id"))
            }
            ("lose-events", share) => match share.unwrap_or("1").parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) => Ok(Fault::LoseEvents(share)),
                _ => Err("the share is not a number from 0 to 1".to_owned()),
            },
            ("lock-held", None) => Ok(Fault::LockHeld),
            ("enospc", None) => Ok(Fault::NoSpace),
            _ => {
                Err("expected `<fault>:<call>`, `pid=<n>`, `lose-events[=<share>]`, `lock-held` or `enospc`"
                    .to_owned())
            }
        };
    };
    // `slow:vm.boot=500ms#2` reads as well as `slow:vm.boot#2=500ms`.
    let split = |text: &str| match text.split_once('#') {
        Some((text, nth)) => nth
            .parse()
            .map(|nth: u32| (text.to_owned(), Some(nth)))
            .map_err(|_| format!("{nth:?} is not a number")),
        None => Ok((text.to_owned(), None)),
    };
    let (call, call_nth) = split(call)?;
    let (value, value_nth) = match value {
        Some(value) => split(value).map(|(value, nth)| (Some(value), nth))?,
        None => (None, None),
    };
    if !crate::api::is_call(&call) {
        return Err(format!("there is no call {call:?}"));
    }
    let fault = match (kind, value.as_deref()) {
        ("slow", Some(time)) => CallFault::Slow(parse_duration(time)?),
        ("hang", None) => CallFault::Hang,
        ("refuse", None) => CallFault::Refuse,
        ("reset", None) => CallFault::Reset,
        ("crash", None) => CallFault::Crash,
        ("exit", Some(code)) => {
            CallFault::Exit(code.parse().map_err(|_| format!("{code:?} is not an exit code"))?)
        }
        _ => {
            return Err(
                "expected slow:<call>=<time>, hang, refuse, reset, crash or exit:<call>=<code>".to_owned()
            );
        }
    };
    Ok(Fault::Call { call, nth: call_nth.or(value_nth), fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_call_only() {
        let faults = Faults::parse("refuse:vm.boot#2, slow:vm.boot=5ms").unwrap();
        let slow = CallFault::Slow(Duration::from_millis(5));
        assert_eq!(faults.on_call("vm.boot"), [slow]);
        assert_eq!(faults.on_call("vm.boot"), [CallFault::Refuse, slow]);
        assert_eq!(faults.on_call("vm.info"), []);
        faults.clear();
        assert_eq!(faults.on_call("vm.boot"), []);
    }

    #[test]
    fn every_bad_entry_is_named() {
        let error = Faults::parse("slow:vm.boot, hang:vm.nothing, pid=x, lock-held, lose-events=2, explode")
            .unwrap_err();
        for entry in ["slow:vm.boot", "hang:vm.nothing", "pid=x", "lose-events=2", "explode"] {
            assert!(error.contains(entry), "{error}");
        }
        assert!(!error.contains("lock-held\""), "{error}");
    }

    #[test]
    fn plain_faults_answer() {
        let faults = Faults::parse("pid=7, lose-events, lock-held").unwrap();
        assert_eq!(
            (faults.pid(), faults.lose_event(), faults.lock_held(), faults.no_space()),
            (Some(7), true, true, false)
        );
    }
}
