//! `regatta policy inspect`.

use std::path::Path;

use regatta_policy_tools::{Inspection, ModuleKind, Outline, digest, outline, read_module};

use super::super::Io;
use super::super::args::Output;
use super::super::exit::Outcome;
use super::super::render::{Columns, json, pair, right, text};
use super::super::time::{size, span};
use super::duration;

pub(super) fn inspect(module: &Path, output: Output, io: &mut Io<'_>) -> Outcome {
    let bytes = read_module(module)?;
    let inspection = match regatta_policy_tools::inspect(&bytes) {
        Ok(inspection) => inspection,
        Err(error) => {
            if output == Output::Table {
                broken(&bytes, io)?;
            }
            return Err(error.into());
        }
    };
    match output {
        Output::Json => json(&inspection, io),
        Output::Table => table(&inspection, io),
    }
}

/// What can be told of a module that cannot be loaded.
fn broken(bytes: &[u8], io: &mut Io<'_>) -> Outcome {
    let outline = outline(bytes);
    pair("Kind", outline.kind.as_str(), io)?;
    pair("Size", &size(bytes.len() as u64), io)?;
    pair("Digest", &digest(bytes), io)?;
    if outline.kind != ModuleKind::NotWasm {
        headers(&outline, io)?;
    }
    writeln!(io.out)?;
    Ok(())
}

fn headers(outline: &Outline, io: &mut Io<'_>) -> Outcome {
    pair("Contract", outline.contract.as_deref().unwrap_or("not stated"), io)?;
    list("Imports", &outline.imports, io)?;
    list("Exports", &outline.exports, io)
}

/// One a line: names of interfaces are long.
fn list(label: &str, names: &[String], io: &mut Io<'_>) -> Outcome {
    pair(label, names.first().map_or("none", String::as_str), io)?;
    for name in names.iter().skip(1) {
        writeln!(io.out, "{:16}{}", "", super::super::render::plain_line(name))?;
    }
    Ok(())
}

pub(super) fn table(found: &Inspection, io: &mut Io<'_>) -> Outcome {
    pair("Name", &found.name, io)?;
    pair("Version", &found.version, io)?;
    if !found.description.is_empty() {
        pair("Description", &found.description, io)?;
    }
    pair("ABI", &found.abi, io)?;
    headers(&found.outline, io)?;
    pair("Digest", &found.digest, io)?;
    let compiled = size(found.compiled_bytes as u64);
    let time = duration(found.compile_us as f64);
    pair("Size", &format!("{}, compiled to {compiled} in {time}", size(found.size_bytes as u64)), io)?;
    let migrates = if found.migrates { "takes over that of earlier versions" } else { "no migration" };
    pair("State", &format!("version {}, {migrates}", found.state_version), io)?;

    writeln!(io.out)?;
    if found.metrics.is_empty() {
        writeln!(io.out, "It asks for no metric.")?;
    } else {
        let mut columns = Columns::new(&["METRIC", "WINDOW"], io);
        for metric in &found.metrics {
            let name = match metric.name.strip_prefix('/') {
                Some(parameter) => format!("as parameter `{}` says", parameter.replace('/', ".")),
                None => metric.name.clone(),
            };
            let window = if metric.window_ms == 0 { "-".to_owned() } else { span(metric.window_ms) };
            columns.row(vec![text(name), right(window)]);
        }
        columns.print(0, io)?;
    }

    writeln!(io.out)?;
    if found.parameters.is_empty() {
        writeln!(io.out, "It has no parameters.")?;
        return Ok(());
    }
    let mut columns = Columns::new(&["PARAMETER", "TYPE", "DEFAULT", "DESCRIPTION"], io);
    for parameter in &found.parameters {
        let default = match (&parameter.default, parameter.required) {
            (_, true) => "required".to_owned(),
            (Some(serde_json::Value::Null), _) | (None, _) => "-".to_owned(),
            (Some(default), _) => default.to_string(),
        };
        columns.row(vec![
            text(&parameter.path),
            text(&parameter.kind),
            text(default),
            text(&parameter.description),
        ]);
    }
    columns.print(0, io)
}
