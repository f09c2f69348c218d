//! `regatta policy …`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Io;
use super::args::Output;
use super::exit::{Outcome, failed, invalid};
use super::render::{Columns, json, plain_line, short, text};
use super::time::{age, span};
use super::wait::Line;
use crate::api::Client;
use crate::api::types::{PolicyInfo, SwapOutcome, SwapRequest};

/// Largest module: as base64 in JSON it fits into the API's largest body.
const MODULE_LIMIT_BYTES: u64 = 32 << 20;

/// Largest file of parameters.
const PARAMS_LIMIT_BYTES: u64 = 1 << 20;

pub(super) async fn swap(
    client: &Client,
    set: &str,
    module: &OsStr,
    params: Option<&str>,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    let params = params.map(read_params).transpose()?;
    let request =
        SwapRequest { source: module.to_string_lossy().into_owned(), module: read_module(module)?, params };
    let mut line = Line::default();
    if io.err_terminal {
        line.show(&format!("{set}: compiling and trying {} …", request.source), io)?;
    }
    let outcome = client.swap_policy(set, &request).await;
    line.clear(io)?;
    print(set, &outcome?, output, io)
}

pub(super) async fn rollback(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let outcome = client.rollback_policy(set).await?;
    print(set, &outcome, output, io)
}

fn print(set: &str, outcome: &SwapOutcome, output: Output, io: &mut Io<'_>) -> Outcome {
    if output == Output::Json {
        return json(outcome, io);
    }
    writeln!(
        io.out,
        "{set}: {} → {} after tick {}",
        named(&outcome.from),
        named(&outcome.to),
        outcome.after_tick
    )?;
    let ticks = match outcome.rehearsed_ticks {
        1 => "1 recorded tick".to_owned(),
        ticks => format!("{ticks} recorded ticks"),
    };
    writeln!(io.out, "  tried on {ticks}; state: {}", plain_line(&outcome.state))?;
    writeln!(io.out, "  prepared in {}, loop held for {} µs", span(outcome.prepare_ms), outcome.switch_us)?;
    Ok(())
}

/// A policy in few words.
pub(super) fn named(policy: &PolicyInfo) -> String {
    let text = format!("{} {} ({})", policy.name, policy.version, short(&policy.digest));
    plain_line(&text).into_owned()
}

/// A file's content as base64; none for a name that the daemon looks up. Only the
/// spelling decides, so that a stray file cannot change what a command means.
fn read_module(module: &OsStr) -> Outcome<Option<String>> {
    let path = Path::new(module);
    let is_file =
        module.as_encoded_bytes().contains(&b'/') || path.extension().is_some_and(|end| end == "wasm");
    if !is_file {
        return Ok(None);
    }
    let bytes = read_at_most(path, MODULE_LIMIT_BYTES)?;
    Ok(Some(STANDARD.encode(bytes)))
}

/// Parameters from the command line, or from a file with `@`.
pub(super) fn read_params(text: &str) -> Outcome<Value> {
    let (what, text) = match text.strip_prefix('@') {
        Some(path) => {
            let bytes = read_at_most(Path::new(path), PARAMS_LIMIT_BYTES)?;
            let text = String::from_utf8(bytes)
                .map_err(|error| failed(format_args!("cannot read {path}"), error))?;
            (path, text)
        }
        None => ("--params", text.to_owned()),
    };
    serde_json::from_str(&text).map_err(|error| invalid(format!("{what} is not JSON: {error}")))
}

/// A whole file that is not larger than `limit_bytes`.
pub(super) fn read_at_most(path: &Path, limit_bytes: u64) -> Outcome<Vec<u8>> {
    let cannot = |error| failed(format_args!("cannot read {}", path.display()), error);
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(invalid(format!("{} is larger than {}", path.display(), super::time::size(limit_bytes))));
    }
    Ok(bytes)
}

pub(super) async fn list(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let policies = client.policies(set).await?;
    if output == Output::Json {
        return json(&policies, io);
    }
    let now_ms = (io.clock_ms)();
    let mut table = Columns::new(&["ROLE", "NAME", "VERSION", "DIGEST", "FOR", "SOURCE", "PARAMETERS"], io);
    let known = [("active", Some(&policies.active)), ("previous", policies.previous.as_ref())];
    for (role, policy) in known.into_iter().filter_map(|(role, policy)| Some((role, policy?))) {
        table.row(vec![
            text(role),
            text(&policy.name),
            text(&policy.version),
            text(short(&policy.digest)),
            text(age(policy.since_ms, now_ms)),
            text(&policy.source),
            text(&policy.params),
        ]);
    }
    table.print(0, io)?;
    if !policies.available.is_empty() {
        writeln!(io.out)?;
        let mut table = Columns::new(&["AVAILABLE", "PATH"], io);
        for (name, path) in &policies.available {
            table.row(vec![text(name), text(path)]);
        }
        table.print(0, io)?;
    }
    Ok(())
}
