//! The reader of a file of vectors.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regatta_core::observation::{MetricScope, Observation};
use serde::{Deserialize, Deserializer};

use super::{Check, Expect, Tick, Vector};

/// A file of vectors that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VectorsError {
    /// It is not JSON, or not of the vectors' shape; the source tells line and column.
    #[error("the vectors cannot be read")]
    Read(#[from] serde_json::Error),
    /// It has no vector, and would pass whatever a policy does.
    #[error("there is no vector in the file")]
    Empty,
    /// One of them makes no sense.
    #[error("vector {number} (`{name}`){}: {problem}", tick.map(|tick| format!(", tick {tick}")).unwrap_or_default())]
    Vector {
        /// Which, from 1.
        number: usize,
        /// Its name.
        name: String,
        /// Which of its ticks, from 1.
        tick: Option<usize>,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a file of vectors, in its order.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(text: &str) -> Result<Vec<Vector>, VectorsError> {
    let File { vectors } = serde_json::from_str(text)?;
    if vectors.is_empty() {
        return Err(VectorsError::Empty);
    }
    let mut names = HashSet::new();
    let mut read = Vec::with_capacity(vectors.len());
    for (number, raw) in (1..).zip(vectors) {
        let name = raw.name.clone();
        let vector = match names.insert(name.clone()) {
            true => vector(raw),
            false => Err((None, "another vector has the same name".to_owned())),
        };
        read.push(vector.map_err(|(tick, problem)| VectorsError::Vector { number, name, tick, problem })?);
    }
    Ok(read)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vectors: Vec<RawVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVector {
    name: String,
    params: serde_json::Value,
    state: Option<String>,
    observation: Option<Observation>,
    expect: Option<RawExpect>,
    ticks: Option<Vec<RawTick>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTick {
    observation: Observation,
    expect: RawExpect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    capacity: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    standby: Option<Option<u32>>,
    victims: Option<Vec<u32>>,
    #[serde(default, deserialize_with = "nullable")]
    wake_after_ms: Option<Option<u64>>,
    reasons: Option<Vec<String>>,
    state: Option<String>,
    refused: Option<String>,
    invalid: Option<Vec<String>>,
}

/// Tells `null` from a field that is not there.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// A problem with the number of the tick that has it.
type Problem = (Option<usize>, String);

fn vector(raw: RawVector) -> Result<Vector, Problem> {
    let whole = |problem: &str| Err((None, problem.to_owned()));
    let params = raw.params.to_string();
    let ticks = match (raw.observation, raw.expect, raw.ticks) {
        (None, Some(RawExpect { invalid: Some(mut paths), .. }), None) => {
            paths.sort_unstable();
            paths.dedup();
            return Ok(Vector { name: raw.name, params, check: Check::Invalid(paths) });
        }
        (Some(observation), Some(expect), None) => vec![RawTick { observation, expect }],
        (None, None, Some(ticks)) if !ticks.is_empty() => ticks,
        (None, None, Some(_)) => return whole("`ticks` is empty"),
        (None, Some(_), None) => return whole("without `observation`, `expect` can only be `invalid`"),
        _ => return whole("it needs either `observation` and `expect`, or `ticks`"),
    };
    let state = raw.state.as_deref().map(|state| bytes("state", state)).transpose();
    let state = state.map_err(|problem| (None, problem))?.unwrap_or_default();
    let single = ticks.len() == 1;
    let ticks = (1..)
        .zip(ticks)
        .map(|(number, raw)| tick(raw).map_err(|problem| ((!single).then_some(number), problem)));
    let ticks = ticks.collect::<Result<_, _>>()?;
    Ok(Vector { name: raw.name, params, check: Check::Ticks { state, ticks } })
}

fn tick(raw: RawTick) -> Result<Tick, String> {
    consistent(&raw.observation)?;
    Ok(Tick { observation: Arc::new(raw.observation), expect: expect(raw.expect)? })
}

fn expect(raw: RawExpect) -> Result<Expect, String> {
    let RawExpect { capacity, standby, victims, wake_after_ms, reasons, state, refused, invalid } = raw;
    let state = state.map(|state| bytes("expect.state", &state)).transpose()?;
    let decided = capacity.is_some()
        || standby.is_some()
        || victims.is_some()
        || wake_after_ms.is_some()
        || reasons.is_some()
        || state.is_some();
    match (decided, refused, invalid) {
        (_, _, Some(_)) => {
            Err("`expect.invalid` is about parameters: it goes without `observation`".to_owned())
        }
        (true, None, None) => {
            Ok(Expect::Decision { capacity, standby, victims, wake_after_ms, reasons, state })
        }
        (false, Some(text), None) => Ok(Expect::Refused(text)),
        (true, Some(_), None) => Err("`expect` has both a decision and `refused`".to_owned()),
        (false, None, None) => Err("`expect` expects nothing".to_owned()),
    }
}

fn bytes(field: &str, base64: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(base64).map_err(|error| format!("`{field}` is not base64: {error}"))
}

/// What the daemon's own observations always are.
fn consistent(observation: &Observation) -> Result<(), String> {
    let table = &observation.instances;
    let rows = table.id.len();
    let columns = [
        ("state", table.state.len()),
        ("state_since_ms", table.state_since_ms.len()),
        ("created_ms", table.created_ms.len()),
        ("generation", table.generation.len()),
        ("protected", table.protected.len()),
    ];
    if let Some((column, found)) = columns.into_iter().find(|&(_, found)| found != rows) {
        return Err(format!("`instances.{column}` has {found} rows, `instances.id` has {rows}"));
    }
    if !table.id.is_sorted_by(|one, next| one < next) {
        return Err("`instances.id` is not in ascending order".to_owned());
    }
    for metric in &observation.metrics {
        let wanted = match metric.scope {
            MetricScope::Instance => rows,
            MetricScope::Set => 1,
        };
        if metric.values.len() != wanted {
            let (name, found) = (&metric.name, metric.values.len());
            return Err(format!("the metric `{name}` has {found} values instead of {wanted}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBSERVATION: &str = r#"{"set":"web","tick":1,"now_ms":1000,"generation":1,"min":1,"max":9,"desired":1,
        "instances":{"id":[1],"state":["in-service"],"state_since_ms":[1],"created_ms":[1],"generation":[1],
        "protected":[false]},"metrics":[{"name":"load","scope":"instance","values":[0.5],"window":[]}],
        "last":null,"schedule":[]}"#;

    fn one(rest: &str) -> String {
        let rest = rest.replace("OBSERVATION", OBSERVATION);
        format!(r#"{{"vectors":[{{"name":"a","params":{{"target":1}},{rest}}}]}}"#)
    }

    #[test]
    fn all_three_forms_are_read() {
        let read = |rest| parse(&one(rest)).unwrap().remove(0);
        let invalid = read(r#""expect":{"invalid":["/b","/a"]}"#);
        assert_eq!(invalid.check, Check::Invalid(vec!["/a".to_owned(), "/b".to_owned()]));
        assert_eq!(invalid.params, r#"{"target":1}"#);
        let single =
            read(r#""state":"AQI=","observation":OBSERVATION,"expect":{"capacity":4,"standby":null}"#);
        let Check::Ticks { state, ticks } = single.check else { panic!("not of ticks") };
        assert_eq!(state, [1, 2]);
        let Expect::Decision { capacity: Some(4), standby: Some(None), wake_after_ms: None, .. } =
            ticks[0].expect
        else {
            panic!("{:?}", ticks[0].expect)
        };
        let chain = read(
            r#""ticks":[{"observation":OBSERVATION,"expect":{"refused":"no"}},
                        {"observation":OBSERVATION,"expect":{"victims":[]}}]"#,
        );
        let Check::Ticks { ticks, .. } = chain.check else { panic!("not of ticks") };
        assert_eq!(ticks[0].expect, Expect::Refused("no".to_owned()));
        assert_eq!(ticks.len(), 2);
    }

    #[test]
    fn mistakes_tell_their_place() {
        for (text, message) in [
            (r#"{"vectors":[]}"#.to_owned(), "no vector"),
            (one(r#""observation":OBSERVATION"#), "vector 1 (`a`): it needs either"),
            (one(r#""ticks":[]"#), "`ticks` is empty"),
            (one(r#""expect":{"capacity":1}"#), "can only be `invalid`"),
            (one(r#""observation":OBSERVATION,"expect":{}"#), "expects nothing"),
            (one(r#""observation":OBSERVATION,"expect":{"invalid":[]}"#), "goes without `observation`"),
            (one(r#""observation":OBSERVATION,"expect":{"capacity":1,"refused":"x"}"#), "both"),
            (one(r#""observation":OBSERVATION,"expect":{"state":"?"}"#), "not base64"),
            (
                one(r#""ticks":[{"observation":OBSERVATION,"expect":{"capacity":1}},
                    {"observation":OBSERVATION,"expect":{}}]"#),
                "vector 1 (`a`), tick 2: `expect` expects nothing",
            ),
            (
                one(r#""observation":OBSERVATION,"expect":{"capacity":1}"#).replace("[0.5]", "[]"),
                "the metric `load` has 0 values instead of 1",
            ),
            (
                one(r#""observation":OBSERVATION,"expect":{"capacity":1}"#).replace("[false]", "[]"),
                "`instances.protected` has 0 rows",
            ),
        ] {
            let error = parse(&text).expect_err("it has a mistake").to_string();
            assert!(error.contains(message), "{error}\nshould contain: {message}");
        }
        let VectorsError::Read(error) = parse("{\n\"vectors\": [{\"nome\": 1}]}").unwrap_err() else {
            panic!("it cannot be read")
        };
        assert_eq!(error.line(), 2);
        let twice =
            one(r#""expect":{"invalid":[""]}"#).replace("]}}]}", "]}},{\"name\":\"a\",\"params\":1}]}");
        assert!(parse(&twice).unwrap_err().to_string().contains("vector 2 (`a`): another"), "{twice}");
    }
}
