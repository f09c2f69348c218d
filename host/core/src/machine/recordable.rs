//! Whatever a policy leaves must fit into the record of its tick, and into the next: a record that the store refuses would keep
//! its set from ticking for good. So it is judged before: what does not fit is a failure of the policy.

use std::io::{self, Write};

use serde::Serialize;

use crate::decision::{FailureKind, PolicyFailure};

use super::Answer;

/// What the policies of a set may add to one record, as JSON. A record has at most 16 MiB: this once as what they said, and once as
/// the state that they begin the next tick with; the rest is for shadows and for what the set observes.
pub(super) const POLICIES_BYTES_MAX: usize = 4 << 20;
/// What shadows may add.
pub(super) const SHADOWS_BYTES_MAX: usize = 2 << 20;

/// Makes a failure of each answer that does not fit beside those before it. Its state stays what it was.
pub(super) fn refuse_unrecordable(answers: &mut [Answer]) {
    let mut left = POLICIES_BYTES_MAX;
    for answer in answers {
        let bytes = bytes_of(answer);
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => {
                answer.state = None;
                answer.run.log.clear();
                let message = format!(
                    "its state and its decision, {bytes} bytes as JSON, cannot be recorded: at most {POLICIES_BYTES_MAX} for \
                     all policies of a set"
                );
                answer.run.result = Err(PolicyFailure { kind: FailureKind::Output, message: message.into() });
            }
        }
    }
}

/// A state that a migration made, if it can be recorded.
pub(super) fn migrated(state: Result<String, String>) -> Result<String, String> {
    match state {
        Ok(state) if state.len() > POLICIES_BYTES_MAX => Err(format!(
            "its migrated state, {} bytes as base64, cannot be recorded: at most {POLICIES_BYTES_MAX}",
            state.len()
        )),
        other => other,
    }
}

/// What an answer adds to this record, and to the next.
fn bytes_of(Answer { run, state, .. }: &Answer) -> usize {
    json_bytes(&run.result) + json_bytes(&run.log) + state.as_ref().map_or(0, String::len)
}

/// Length of a value as JSON.
pub(super) fn json_bytes(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Cannot fail: the writer takes everything, and these types have no maps with odd keys.
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rig;
    use super::*;

    #[test]
    fn a_state_that_cannot_be_recorded_is_a_failure_and_the_set_ticks_on() {
        let mut rig = Rig::serving("");
        let active = &rig.store.state().policies[0].active;
        let (number, before) = (active.number, active.state.clone());
        rig.states.insert(number, "x".repeat(POLICIES_BYTES_MAX));
        rig.tick();
        let run = &rig.store.last_record().runs[0];
        let failure = run.result.as_ref().expect_err("refused");
        assert_eq!(failure.kind, FailureKind::Output);
        assert!(failure.message.contains("cannot be recorded"), "{}", failure.message);
        assert_eq!(rig.store.state().policies[0].active.state, before, "its state stays");

        rig.states.insert(number, "y".repeat(1 << 20));
        rig.tick();
        assert!(rig.store.last_record().runs[0].result.is_ok());
        assert_eq!(rig.store.state().policies[0].active.state.len(), 1 << 20);
    }

    #[test]
    fn policies_share_what_a_record_has_for_them() {
        let rig = Rig::serving("");
        let answer = |bytes: usize| {
            let ask = super::super::Ask {
                slot: "p".to_owned(),
                activation: rig.store.state().policies[0].active.clone(),
                limits: crate::manifest::PolicyLimits::default(),
            };
            Answer { state: Some("x".repeat(bytes)), ..rig.decide(&ask) }
        };
        let mut answers = [answer(3 << 20), answer(3 << 20), answer(1 << 10)];
        refuse_unrecordable(&mut answers);
        assert_eq!(answers.each_ref().map(|it| it.run.result.is_ok()), [true, false, true]);
        assert_eq!(answers[1].state, None);
        assert!(migrated(Ok("x".repeat(POLICIES_BYTES_MAX + 1))).is_err());
        assert!(migrated(Ok("x".to_owned())).is_ok());
    }
}
