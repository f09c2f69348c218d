//! One call of a policy: the same code in a guest and in a native test.

use serde::Serialize;
use serde_json::error::Category;

use crate::bindings::regatta::policy::types::{Manifest, Outcome as WitOutcome};
use crate::{Policy, Problem, Problems, Tick, log};

/// What `describe` answers.
pub(crate) fn describe<P: Policy>() -> Manifest {
    let describe = P::describe();
    Manifest {
        name: describe.name.to_owned(),
        version: describe.version.to_owned(),
        description: describe.description.to_owned(),
        params_schema: P::params_schema(),
        metrics: describe.metrics,
        state_version: describe.state_version,
    }
}

fn parse<P: Policy>(params: &str) -> Result<P::Params, Problem> {
    serde_json::from_str(params).map_err(|error| {
        let path = match error.classify() {
            Category::Data => path_at(params, error.line(), error.column()),
            Category::Io | Category::Syntax | Category::Eof => String::new(),
        };
        let mut message = error.to_string();
        // The host made this text out of YAML: a place in it means nothing to the user.
        if let Some(end) = message.rfind(" at line ") {
            message.truncate(end);
        }
        Problem { path, message }
    })
}

/// What `validate` answers.
pub(crate) fn validate<P: Policy>(params: &str) -> Result<(), Vec<Problem>> {
    let params = parse::<P>(params).map_err(|problem| vec![problem])?;
    let mut problems = Problems::default();
    P::validate(&params, &mut problems);
    if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
}

/// What `decide` answers.
pub(crate) fn decide<P: Policy>(tick: &Tick<'_>, params: &str, state: &[u8]) -> Result<WitOutcome, String> {
    let params = parse::<P>(params).map_err(|Problem { path, message }| {
        if path.is_empty() {
            format!("parameters: {message}")
        } else {
            format!("parameter {path}: {message}")
        }
    })?;
    let mut state: P::State = if state.is_empty() {
        P::State::default()
    } else {
        serde_json::from_slice(state).unwrap_or_else(|_| {
            // A policy that cannot read its past still has a present to decide on.
            log::warn("the state is not readable; it starts anew");
            P::State::default()
        })
    };
    let outcome = P::decide(tick, &params, &mut state)?;
    Ok(WitOutcome {
        capacity: outcome.capacity,
        standby: outcome.standby,
        victims: outcome.victims,
        wake_after_ms: outcome.wake_after_ms,
        reasons: outcome.reasons,
        state: written(&state)?,
    })
}

/// What `migrate` answers.
pub(crate) fn migrate<P: Policy>(from_version: u32, state: &[u8]) -> Result<Vec<u8>, String> {
    // A version that kept nothing leaves nothing to be read.
    let state = if state.is_empty() { P::State::default() } else { P::migrate(from_version, state)? };
    written(&state)
}

fn written<S: Serialize>(state: &S) -> Result<Vec<u8>, String> {
    let state = serde_json::to_vec(state).map_err(|error| format!("state: {error}"))?;
    // `()` is not a state at all, not four bytes to be stored every tick.
    Ok(if state == b"null" { Vec::new() } else { state })
}

/// JSON pointer of the value that ends at or encloses a place in `text`, which
/// serde_json gives as line and column, both from 1.
fn path_at(text: &str, line: usize, column: usize) -> String {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let end = start.saturating_add(column).min(text.len());
    let mut path: Vec<Segment> = Vec::new();
    let mut bytes = text.as_bytes()[..end].iter().copied().enumerate().peekable();
    let mut last_string = (0, 0);
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                let from = at + 1;
                let mut to = from;
                while let Some((at, byte)) = bytes.next() {
                    to = at;
                    match byte {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                last_string = (from, to);
            }
            b'{' => path.push(Segment::Key(None)),
            b'[' => path.push(Segment::Index(0)),
            b':' => {
                if let Some(Segment::Key(key)) = path.last_mut() {
                    *key = Some(last_string);
                }
            }
            // The last byte read belongs to the value that failed.
            b',' if at + 1 < end => match path.last_mut() {
                Some(Segment::Index(index)) => *index += 1,
                Some(Segment::Key(key)) => *key = None,
                None => {}
            },
            b'}' | b']' if at + 1 < end => drop(path.pop()),
            // At its end, the object or array as a whole is what failed.
            b'}' | b']' => match path.last_mut() {
                Some(Segment::Key(key)) => *key = None,
                _ => drop(path.pop()),
            },
            _ => {}
        }
    }
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Key(Some((from, to))) => {
                pointer.push('/');
                pointer.push_str(text.get(from..to).unwrap_or_default());
            }
            Segment::Index(index) => {
                pointer.push('/');
                pointer.push_str(&index.to_string());
            }
            Segment::Key(None) => {}
        }
    }
    pointer
}

enum Segment {
    /// Within an object, at the value of this key: byte range in the text.
    Key(Option<(usize, usize)>),
    /// Within an array, at this element.
    Index(usize),
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::testing::{TestTick, decide, take_log, validate};
    use crate::{Describe, Outcome};

    /// Counts its ticks and asks for as many instances; says no from the fourth on.
    struct Counter;

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Params {
        steps: Vec<Step>,
        #[serde(default)]
        name: String,
    }

    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Step {
        above: f64,
        add: u32,
    }

    #[derive(Default, Serialize, Deserialize)]
    struct State {
        ticks: u32,
    }

    impl Policy for Counter {
        type Params = Params;
        type State = State;

        fn describe() -> Describe {
            Describe::new("counter", "1.0.0", "Counts.")
        }

        fn decide(_tick: &Tick<'_>, _params: &Params, state: &mut State) -> Result<Outcome, String> {
            state.ticks += 1;
            if state.ticks > 3 { Err("enough".to_owned()) } else { Ok(Outcome::capacity(state.ticks)) }
        }
    }

    #[test]
    fn a_problem_of_the_types_tells_its_place() {
        for (params, path) in [
            (r#"{"steps": [], "name": 7}"#, "/name"),
            (r#"{"name": "a,b:c{[\"", "steps": 1}"#, "/steps"),
            (r#"{"steps": [{"above": 1, "add": 2}, {"above": 1, "add": -1}]}"#, "/steps/1/add"),
            ("{\"steps\": [\n  {\"above\": 1,\n   \"add\": \"x\"}\n]}", "/steps/0/add"),
            (r#"{"steps": [{"above": 1, "add": 2}, 5]}"#, "/steps/1"),
            (r#"{"steps": [{"above": 1}]}"#, "/steps/0"),
            (r#"{"steps": [{"above": 1, "add": 2}, {"over": 1}]}"#, "/steps/1"),
            ("{}", ""),
            ("{", ""),
            ("", ""),
        ] {
            let problems = validate::<Counter>(params).unwrap_err();
            assert_eq!(problems.len(), 1, "{params}");
            assert_eq!(problems[0].path, path, "{params}: {}", problems[0].message);
            assert!(!problems[0].message.contains(" at line "), "{}", problems[0].message);
        }
    }

    #[test]
    fn state_goes_from_tick_to_tick() {
        let params = r#"{"steps": []}"#;
        let mut state = Vec::new();
        for count in 1..=3 {
            let outcome = decide::<Counter>(&TestTick::new(), params, &state).unwrap();
            assert_eq!(outcome.capacity, count);
            state = outcome.state;
        }
        assert_eq!(state, br#"{"ticks":3}"#);
        assert_eq!(decide::<Counter>(&TestTick::new(), params, &state), Err("enough".to_owned()));
    }

    #[test]
    fn a_state_that_cannot_be_read_starts_anew_and_says_so() {
        drop(take_log());
        let outcome = decide::<Counter>(&TestTick::new(), r#"{"steps": []}"#, b"\xff").unwrap();
        assert_eq!(outcome.capacity, 1);
        let log = take_log();
        assert_eq!(log.len(), 1, "{log:?}");
        assert_eq!(log[0].0, log::Level::Warn);
    }

    #[test]
    fn parameters_that_do_not_parse_are_an_error_and_no_panic() {
        let error = decide::<Counter>(&TestTick::new(), r#"{"steps": 1}"#, b"").unwrap_err();
        assert!(error.starts_with("parameter /steps: invalid type"), "{error}");
        let error = decide::<Counter>(&TestTick::new(), "{", b"").unwrap_err();
        assert!(error.starts_with("parameters: EOF"), "{error}");
    }
}
