//! Regatta's pure core: manifest, observation, decision, combine, guards, planner, state machines.
