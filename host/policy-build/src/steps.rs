//! What is run for each language: the one table to look at when a language's tools change.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::build::Project;
use crate::error::BuildError;
use crate::language::Language;
use crate::tools::Tools;

/// The target of Rust's guests: no WASI, so nothing to import but the contract.
const RUST_TARGET: &str = "wasm32-unknown-unknown";

/// The profile: small beats fast to build, a number that overflows is a failure with a line, the custom sections that the
/// host reads stay. Given on the command line, as
/// a member of a workspace has no profiles of its own.
const RUST_PROFILE: [&str; 7] = [
    "profile.guest.inherits='release'",
    "profile.guest.opt-level='s'",
    "profile.guest.lto=true",
    "profile.guest.codegen-units=1",
    "profile.guest.overflow-checks=true",
    "profile.guest.strip='symbols'",
    "profile.guest.panic='abort'",
];

/// One program that is run in the project's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
}

impl Step {
    fn new(program: PathBuf) -> Self {
        Self { program, args: Vec::new(), env: Vec::new() }
    }

    fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }
}

/// What is run, and where the module is then.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) made: PathBuf,
}

/// The plan for a project whose module may be made at `to`. None for WAT, which needs no program.
pub(crate) fn plan(project: &Project<'_>, to: &Path, tools: &Tools) -> Result<Option<Plan>, BuildError> {
    let language = project.language;
    let find = |programs: &[&str]| tools.find(language, programs);
    let mut made = to.to_owned();
    let step = match language {
        Language::Rust => {
            let given = tools.cargo_target().map(Path::to_owned);
            let given = given.or_else(|| env::var_os("CARGO_TARGET_DIR").map(|dir| project.dir.join(dir)));
            let target = given.unwrap_or_else(|| project.dir.join("target"));
            made = target.join(format!("{RUST_TARGET}/guest/{}.wasm", project.name.replace('-', "_")));
            Step::new(find(&["cargo"])?)
                .args(["build", "--lib", "--profile", "guest", "--target", RUST_TARGET, "--target-dir"])
                .args([target])
                .args(RUST_PROFILE.iter().flat_map(|setting| ["--config", setting]))
        }
        Language::JavaScript => Step::new(find(&["componentize-qjs"])?)
            .args(["--wit", "wit", "--world", "policy", "--js", "policy.js", "--sync"])
            .args(["--opt-size", "-o"])
            .args([to]),
        Language::Python => Step::new(find(&["componentize-py"])?)
            .args(["-d", "wit", "-w", "policy", "componentize", "policy", "-o"])
            .args([to]),
        Language::Go => Step::new(find(&["go"])?)
            .args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
            .args([to.as_os_str(), ".".as_ref()])
            .env("GOOS", "wasip1")
            .env("GOARCH", "wasm")
            // One that is too old says so, instead of fetching another.
            .env("GOTOOLCHAIN", "local"),
        Language::C => Step::new(find(&["zig", "python-zig"])?)
            // The linker's 16 MiB of stack would be a quarter of the memory that a policy may have.
            .args([
                "cc",
                "-target",
                "wasm32-wasi",
                "-mexec-model=reactor",
                "-Os",
                "-s",
                "-Wl,-z,stack-size=65536",
                "-o",
            ])
            .args([to.as_os_str(), "policy.c".as_ref()]),
        Language::Zig => Step::new(find(&["zig", "python-zig"])?)
            .args(["build-exe", "policy.zig", "-target", "wasm32-freestanding", "-fno-entry", "-rdynamic"])
            .args(["-O", "ReleaseSmall", "-fstrip", "--stack", "262144"])
            .args([format!("-femit-bin={}", to.display())]),
        Language::AssemblyScript => Step::new(find(&["asc"])?)
            .args(["policy.ts", "--runtime", "stub", "--use", "abort=", "--transform", "./exports.js"])
            .args(["--optimize", "-o"])
            .args([to]),
        Language::Wat => return Ok(None),
    };
    Ok(Some(Plan { steps: vec![step], made }))
}
