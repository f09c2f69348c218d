use proptest::prelude::*;
use regatta_core::instance_state::{
    INSTANCE_EVENTS, INSTANCE_STATES, InstanceEvent as E, InstanceState as S, step,
};

/// The table, drawn from the code itself, so that a changed edge is seen in review.
#[test]
fn transition_table() {
    let mut table = String::new();
    for state in INSTANCE_STATES {
        for event in INSTANCE_EVENTS {
            if let Ok(next) = step(state, event)
                && next != state
            {
                table.push_str(&format!("{state:<13} {:<20} {next}\n", format!("{event:?}")));
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_straight_way_through_a_life() {
    let events = [
        (E::LaunchStarted, S::Creating),
        (E::Booted, S::Booting),
        (E::FirstProbeAnswered, S::Initializing),
        (E::BecameHealthy, S::InService),
        (E::BecameUnhealthy, S::Unhealthy),
        (E::BecameHealthy, S::InService),
        (E::DrainRequested, S::Draining),
        (E::TerminateRequested, S::Terminating),
        (E::Cleaned, S::Gone),
    ];
    let mut state = S::Pending;
    for (event, expected) in events {
        state = step(state, event).unwrap();
        assert_eq!(state, expected, "after {event:?}");
    }
}

proptest! {
    #[test]
    fn gone_absorbs_and_nothing_comes_back_to_life(events in prop::collection::vec(prop::sample::select(&INSTANCE_EVENTS[..]), 0..60)) {
        let mut state = S::Pending;
        let mut leaving = false;
        for event in events {
            let before = state;
            if let Ok(next) = step(state, event) {
                state = next;
            }
            if before == S::Gone {
                prop_assert_eq!(state, S::Gone);
            }
            if leaving {
                prop_assert!(
                    matches!(state, S::Draining | S::Terminating | S::Failed | S::Gone),
                    "{} after {:?} though it was leaving", state, event
                );
            }
            leaving |= matches!(state, S::Draining | S::Terminating | S::Failed | S::Gone);
        }
    }

    #[test]
    fn everything_can_be_terminated_and_then_cleaned(events in prop::collection::vec(prop::sample::select(&INSTANCE_EVENTS[..]), 0..60)) {
        let mut state = S::Pending;
        for event in events {
            state = step(state, event).unwrap_or(state);
        }
        let state = step(state, E::TerminateRequested).unwrap();
        prop_assert_eq!(step(state, E::Cleaned).unwrap(), S::Gone);
    }
}
