//! The example policy in every language: tools that are missing are installed under `target/tools`, and a language
//! whose tools cannot be had is skipped with the reason. How a language is built is told by `regatta-policy-build`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use regatta_policy_build::{Language, Project, Tools};
use sha2::{Digest, Sha256};

use crate::files;
use crate::ui::{self, Steps};
use crate::workspace::Workspace;

mod install;

/// The name that all examples have.
const NAME: &str = "tolerant-target";

/// Where the examples are, from the workspace's root.
const EXAMPLES: &str = "examples/languages";

/// Beside the modules: `language: reason` for each that could not be built for want of tools. Tests read it.
const SKIPPED: &str = "skipped.txt";

/// What is asked for: a language, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    One(Language),
}

impl std::str::FromStr for Wanted {
    type Err = regatta_policy_build::UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// The languages that are wanted, each once, in the usual order.
pub(crate) fn chosen(wanted: &[Wanted]) -> Vec<Language> {
    let asked =
        |language: &Language| wanted.contains(&Wanted::All) || wanted.contains(&Wanted::One(*language));
    Language::ALL.into_iter().filter(asked).collect()
}

/// How many steps [`build`] takes for so many languages.
pub(crate) fn steps(languages: &[Language]) -> usize {
    1 + languages.len()
}

/// Builds the modules of the languages into `out`, one step for all tools and one for each language; returns those
/// that were skipped, with the reason.
pub(crate) fn build(
    workspace: &Workspace,
    languages: &[Language],
    out: &Path,
    steps: &mut Steps,
) -> Result<Vec<(Language, String)>> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let homes = homes(workspace);
    let step = steps.begin(format_args!("looking for the tools of {} languages", languages.len()));
    let ready = ready(workspace, languages);
    step.done(format_args!("they are in {} or on PATH", homes.display()));

    let mut skipped = Vec::new();
    let mut failed = Vec::new();
    for (&language, ready) in languages.iter().zip(ready) {
        let step = steps.begin(format_args!("building the example in {}", language.title()));
        if let Err(error) = ready {
            let reason = first_lines(&error);
            remove(&out.join(file_name(language)))?;
            step.done(format_args!("skipped, its tools cannot be had: {reason}"));
            skipped.push((language, reason));
            continue;
        }
        match built(workspace, language, &homes, out) {
            Ok(said) => {
                step.done(said);
            }
            Err(error) => {
                ui::error(&error);
                step.done("FAILED");
                failed.push(language.as_str());
            }
        }
    }
    note_skipped(out, languages, &skipped)?;
    if !failed.is_empty() {
        bail!("cannot build the example in {}", failed.join(", "));
    }
    Ok(skipped)
}

/// Makes the tools ready, of all languages at once: downloads wait for the network, not for the processor.
pub(crate) fn ready(workspace: &Workspace, languages: &[Language]) -> Vec<Result<()>> {
    let homes = &homes(workspace);
    thread::scope(|scope| {
        let install = |&language| scope.spawn(move || install::ready(workspace, language, homes));
        let running: Vec<_> = languages.iter().map(install).collect();
        let panicked = |_| Err(anyhow!("the installation panicked"));
        running.into_iter().map(|install| install.join().unwrap_or_else(panicked)).collect()
    })
}

/// Where the tools are that are installed for it.
fn homes(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools")
}

fn file_name(language: Language) -> String {
    format!("{language}.wasm")
}

/// What a module is made of, from the workspace's root.
fn made_of(language: Language, example: &str) -> Vec<&str> {
    let mut paths = vec![example, "host/policy-build/src/steps.rs"];
    if language == Language::Rust {
        paths.extend(["sdk/src", "sdk/wit", "sdk/Cargo.toml", "Cargo.lock"]);
    }
    paths
}

/// Builds one, unless its sources are those of the module that is there; returns what to say of it.
fn built(workspace: &Workspace, language: Language, homes: &Path, out: &Path) -> Result<String> {
    let example = format!("{EXAMPLES}/{language}");
    let source = &workspace.root.join(&example);
    let module = out.join(file_name(language));
    let note = out.join(format!("{language}.sources"));
    let inputs = files::digest(workspace, made_of(language, &example))?;
    let fresh = module.is_file() && fs::read_to_string(&note).is_ok_and(|noted| noted == inputs);
    let start = Instant::now();
    if !fresh {
        remove(&note)?;
        let tools = Tools::new(source, Some(homes)).with_cargo_target(workspace.target.clone());
        let project = Project { dir: source, language, name: NAME, command: None };
        regatta_policy_build::build(&project, &module, &tools, &mut |command| run(command, homes))?;
        fs::write(&note, &inputs).with_context(|| format!("cannot write {}", note.display()))?;
    }
    let bytes = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let took =
        if fresh { "unchanged".to_owned() } else { format!("built in {}", ui::seconds(start.elapsed())) };
    let digest = hex::encode(Sha256::digest(&bytes));
    Ok(format!("{:<15} {:>9} bytes  sha256:{digest}  {took}", language.as_str(), bytes.len()))
}

/// Runs a program of a language's tools: with caches under `target/tools` too, and quietly unless it fails.
fn run(command: &mut Command, homes: &Path) -> std::io::Result<std::process::ExitStatus> {
    let cache = |name: &str| homes.join("cache").join(name);
    command
        .env("ZIG_GLOBAL_CACHE_DIR", cache("zig"))
        .env("ZIG_LOCAL_CACHE_DIR", cache("zig"))
        .env("GOCACHE", cache("go-build"))
        .env("GOPATH", cache("go"))
        .env("GOPROXY", "off")
        .env("GOFLAGS", "-mod=mod")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("VIRTUAL_ENV")
        .env_remove("GOROOT");
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.status)
}

/// The file of what was skipped; what it says of other languages stays.
fn note_skipped(out: &Path, built: &[Language], skipped: &[(Language, String)]) -> Result<()> {
    let path = out.join(SKIPPED);
    let old = fs::read_to_string(&path).unwrap_or_default();
    let mut lines: BTreeMap<&str, String> = old
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| !built.iter().any(|language| language.as_str() == *name))
        .map(|(name, reason)| (name, reason.to_owned()))
        .collect();
    lines.extend(skipped.iter().map(|(language, reason)| (language.as_str(), reason.clone())));
    let text: String = lines.iter().map(|(name, reason)| format!("{name}: {reason}\n")).collect();
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn remove(path: &PathBuf) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The whole chain of an error as one line, without what a program printed after its first line.
fn first_lines(error: &anyhow::Error) -> String {
    let chain: Vec<String> =
        error.chain().map(|cause| cause.to_string().lines().next().unwrap_or_default().to_owned()).collect();
    chain.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_chosen_once_and_in_order() {
        let wanted = |texts: &[&str]| {
            let wanted: Vec<Wanted> = texts.iter().map(|text| text.parse().expect("known")).collect();
            chosen(&wanted)
        };
        assert_eq!(wanted(&["wat", "rust", "wat"]), [Language::Rust, Language::Wat]);
        assert_eq!(wanted(&["go", "all"]), Language::ALL);
        assert!("cobol".parse::<Wanted>().is_err());
    }

    #[test]
    fn what_was_skipped_before_is_kept_for_other_languages_only() {
        let out = std::env::temp_dir().join(format!("regatta-skipped-{}", std::process::id()));
        fs::create_dir_all(&out).expect("a folder");
        let go = || vec![(Language::Go, "no network".to_owned())];
        note_skipped(&out, &[Language::Go, Language::C], &go()).expect("written");
        note_skipped(&out, &[Language::C], &[(Language::C, "no zig".to_owned())]).expect("written");
        let noted = fs::read_to_string(out.join(SKIPPED)).expect("read");
        assert_eq!(noted, "c: no zig\ngo: no network\n");
        note_skipped(&out, &Language::ALL, &[]).expect("written");
        assert_eq!(fs::read_to_string(out.join(SKIPPED)).expect("read"), "");
        fs::remove_dir_all(&out).expect("removed");
    }
}
