//! `regatta policy inspect`.

use std::collections::BTreeMap;
use std::path::Path;

use regatta_policy_tools::{Inspection, ModuleKind, Outline, digest, outline, read_module};

use super::super::Io;
use super::super::args::Output;
use super::super::exit::Outcome;
use super::super::render::{Columns, json, pair, plain_line, right, text};
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

/// An interface a line with its functions; then what belongs to none.
fn list(label: &str, names: &[String], io: &mut Io<'_>) -> Outcome {
    let lines = grouped(names);
    pair(label, lines.first().map_or("none", String::as_str), io)?;
    for line in lines.iter().skip(1) {
        writeln!(io.out, "{:16}{}", "", plain_line(line))?;
    }
    Ok(())
}

/// `interface: function, function` for names like `interface#function` and `module function`. What toolchains add
/// for themselves is left out; `-o json` has it.
fn grouped(names: &[String]) -> Vec<String> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut others = Vec::new();
    for name in names {
        match name.split_once(['#', ' ']) {
            _ if name.starts_with("cabi_") || name.starts_with("__") => {}
            Some((interface, function)) => groups.entry(interface).or_default().push(function),
            None => others.push(name.as_str()),
        }
    }
    let line = |(interface, mut functions): (&str, Vec<&str>)| {
        functions.sort_unstable();
        format!("{interface}: {}", functions.join(", "))
    };
    let (interfaces, mut words): (Vec<&str>, Vec<&str>) =
        others.into_iter().partition(|name| name.contains('/'));
    words.sort_unstable();
    let mut lines: Vec<String> = groups.into_iter().map(line).collect();
    lines.extend(interfaces.into_iter().map(str::to_owned));
    lines.sort();
    lines.extend((!words.is_empty()).then(|| words.join(", ")));
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_stand_with_their_interface_and_plumbing_is_left_out() {
        let names = [
            "memory",
            "cabi_realloc",
            "a:b/c@0.1.0#y",
            "a:b/c@0.1.0#x",
            "__heap_base",
            "a:b/d@0.1.0",
            "_start",
        ];
        assert_eq!(
            grouped(&names.map(str::to_owned)),
            ["a:b/c@0.1.0: x, y", "a:b/d@0.1.0", "_start, memory"]
        );
        assert_eq!(grouped(&["env now".to_owned()]), ["env: now"]);
        assert!(grouped(&[]).is_empty());
    }
}
