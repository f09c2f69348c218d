//! `regatta policy inspect`.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::Cell;
use regatta_policy_tools::{Inspection, ModuleKind, Outline, Parameter, digest, outline, read_module};

use super::super::Io;
use super::super::args::Output;
use super::super::exit::Outcome;
use super::super::render::{Columns, GAP, json, pair, plain_line, right, text, wrapped};
use super::super::time::{size, span};
use super::{cache_dir, duration};

/// Imports or exports that are shown.
const NAMES_SHOWN: usize = 500;
/// Where the values of [`pair`] begin.
const LABEL: usize = 16;
/// Narrower than this a description is not broken: the terminal does it as well.
const LEAST_DESCRIPTION: usize = 24;

pub(super) fn inspect(module: &Path, output: Output, io: &mut Io<'_>) -> Outcome {
    let bytes = read_module(module)?;
    let inspection = match regatta_policy_tools::inspect(&bytes, &(io.engine)(cache_dir())) {
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
    let width = io.out_width.and_then(|width| width.checked_sub(LABEL)).unwrap_or(usize::MAX);
    let left_out = names.len().saturating_sub(NAMES_SHOWN);
    let mut groups = grouped(&names[..names.len() - left_out]);
    groups.extend((left_out > 0).then(|| format!("… and {left_out} more: see -o json")));
    let lines: Vec<String> = groups.iter().map(|line| wrapped(&plain_line(line), width).join("\n")).collect();
    let mut lines = lines.iter().flat_map(|line| line.lines());
    pair(label, lines.next().unwrap_or("none"), io)?;
    for line in lines {
        writeln!(io.out, "{:LABEL$}{line}", "")?;
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
        functions.dedup();
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
    let how = if found.cached { "earlier".to_owned() } else { format!("in {time}") };
    pair("Size", &format!("{}, compiled to {compiled} {how}", size(found.size_bytes as u64)), io)?;
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
    parameters(&found.parameters, io.out_width, io)
}

/// The table of parameters. On a terminal that has room the descriptions are broken to its width: they are prose,
/// which nobody greps or copies there.
fn parameters(found: &[Parameter], width: Option<usize>, io: &mut Io<'_>) -> Outcome {
    let headings = ["PARAMETER", "TYPE", "DEFAULT", "DESCRIPTION"];
    let default = |parameter: &Parameter| match (&parameter.default, parameter.required) {
        (_, true) => "required".to_owned(),
        (Some(serde_json::Value::Null), _) | (None, _) => "-".to_owned(),
        (Some(default), _) => default.to_string(),
    };
    let rows: Vec<[String; 3]> =
        found.iter().map(|row| [row.path.clone(), row.kind.clone(), default(row)]).collect();
    let widest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(headings[column].len()) + GAP
    };
    let left = width.and_then(|width| width.checked_sub((0..3).map(widest).sum()));
    let left = left.filter(|&left| left >= LEAST_DESCRIPTION).unwrap_or(usize::MAX);
    let mut columns = Columns::new(&headings, io);
    for (row, parameter) in rows.iter().zip(found) {
        let mut cells: Vec<Cell> = row.iter().map(text).collect();
        cells.push(Cell::new(wrapped(&plain_line(&parameter.description), left).join("\n")));
        columns.row(cells);
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
