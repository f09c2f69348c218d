//! What the documents say is what the program does. `UPDATE=1` rewrites them.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use regatta_cli::Cli;

/// Everything after this line of `docs/cli.md` is made from the help texts.
const MARK: &str =
    "<!-- From here on: the help texts. UPDATE=1 cargo nextest run -p regatta-cli rewrites them. -->\n";

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
