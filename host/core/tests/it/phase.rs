use proptest::prelude::*;
use regatta_core::instance_state::{INSTANCE_STATES, InstanceState};
use regatta_core::phase::{INSTANCE_EVENTS, InstanceEvent as E, PHASES, Phase as S, step};

/// The table, drawn from the code itself, so that a changed edge is seen in review.
#[test]
fn transition_table() {
    let mut table = String::new();
    for state in PHASES {
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

/// Every phase has a state of the contract, and every state of the contract a phase.
#[test]
fn policies_see_a_state_of_every_phase() {
    let seen: Vec<String> = PHASES.iter().map(|phase| format!("{phase} {}", phase.state())).collect();
    let expected = [
        "pending pending",
        "creating creating",
        "booting booting",
        "initializing initializing",
        "in-service in-service",
        "standby standby",
        "unhealthy unhealthy",
        "draining draining",
        "terminating terminating",
        "failed failed",
        "refused failed",
        "gone gone",
    ];
    assert_eq!(seen, expected);
    for state in INSTANCE_STATES {
        assert!(PHASES.iter().any(|phase| phase.state() == state), "no phase is seen as {state}");
    }
}

/// The contract's names never change: policies and records hold them.
#[test]
fn the_names_that_policies_see_are_those_of_the_contract() {
    let names =
        "pending creating booting initializing in-service standby unhealthy draining terminating failed gone";
    assert_eq!(INSTANCE_STATES.map(InstanceState::as_str).join(" "), names);
    for state in INSTANCE_STATES {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}

/// What was stored before there were phases is the name of a state.
#[test]
fn phases_are_stored_by_name_and_every_state_is_one() {
    for phase in PHASES {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
    }
    for state in INSTANCE_STATES {
        let phase: S = serde_json::from_value(state.as_str().into()).unwrap();
        assert_eq!(phase.state(), state);
    }
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
            // One may drain only to be restarted.
            leaving &= !(event == E::Restarted && before == S::Draining);
            if before == S::Gone {
                prop_assert_eq!(state, S::Gone);
            }
            if leaving {
                prop_assert!(
                    matches!(state, S::Draining | S::Terminating | S::Failed | S::Refused | S::Gone),
                    "{} after {:?} though it was leaving", state, event
                );
            }
            leaving |= matches!(state, S::Draining | S::Terminating | S::Failed | S::Refused | S::Gone);
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
