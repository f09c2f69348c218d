//! What the documents say is what the program does. `UPDATE=1` rewrites them.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use regatta::cli::Cli;

/// Everything after this line of `docs/cli.md` is made from the help texts.
const MARK: &str =
    "<!-- From here on: the help texts. UPDATE=1 cargo nextest run -p regatta rewrites them. -->\n";

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn compare(path: &Path, expected: &str) {
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        std::fs::write(path, expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let name = path.file_name().unwrap();
    assert!(found == expected, "docs/{} is not up to date; UPDATE=1 rewrites it", name.display());
}

#[test]
fn the_openapi_document_is_that_of_the_routes() {
    let document = regatta::api::openapi().to_pretty_json().unwrap() + "\n";
    compare(&docs("openapi.json"), &document);
}

#[test]
fn every_route_documents_its_errors_and_its_parameters() {
    let document = serde_json::to_value(regatta::api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 23, "{:?}", paths.keys());
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let error = &operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(error, "#/components/schemas/ApiError", "{method} {path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
        }
    }
    let why = document["paths"]["/v1/sets/{set}/why"]["get"]["parameters"].to_string();
    assert!(why.contains("tick") && why.contains("last"), "{why}");
}

#[test]
fn the_reference_of_the_command_line_is_its_help() {
    let path = docs("cli.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let (written, _) = found.split_once(MARK).expect("docs/cli.md has the line that the help texts follow");
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = format!("{written}{MARK}");
    reference(&mut command, &mut text);
    compare(&path, &text);
}

fn reference(command: &mut clap::Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or("regatta").to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    *text += &format!("\n## `{name}`\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| *name != "help") {
        if let Some(sub) = command.find_subcommand_mut(name) {
            reference(sub, text);
        }
    }
}
