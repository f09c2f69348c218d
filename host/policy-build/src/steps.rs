//! What is run for each language: the one table to look at when a language's tools change.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fs};

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

/// What C and C++ compilers are told, Zig's and clang. The linker's 16 MiB of stack would be a quarter of the memory that a policy
/// may have.
const WASI_REACTOR: [&str; 7] =
    ["-target", "wasm32-wasi", "-mexec-model=reactor", "-Os", "-s", "-Wl,-z,stack-size=65536", "-o"];

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

/// What Nim is told: C for wasm32, without threads, signals and a `main`, and errors as plain returns, since there is no
/// exception handling.
const NIM: [&str; 16] = [
    "c",
    "--compileOnly",
    "--hints:off",
    "--cpu:wasm32",
    "--os:any",
    "--mm:arc",
    "-d:useMalloc",
    "-d:posix",
    "-d:noSignalHandler",
    "--exceptions:goto",
    "--panics:on",
    "--noMain:on",
    "--threads:off",
    "--stackTrace:off",
    "-d:release",
    "--opt:size",
];

/// Nim's libraries, where its program may keep them: `/usr/lib/nim/lib` on Debian, `lib` beside `bin` elsewhere.
fn nim_library(nim: &Path) -> Option<PathBuf> {
    let prefix = fs::canonicalize(nim).ok()?.parent()?.parent()?.to_owned();
    ["lib/nim/lib", "lib"].map(|end| prefix.join(end)).into_iter().find(|lib| lib.join("nimbase.h").is_file())
}

/// From Nim to C, and from C to a module.
fn nim(nim: PathBuf, zig: PathBuf, to: &Path) -> Vec<Step> {
    let cache = to.with_extension("nimcache");
    let library = nim_library(&nim);
    let mut to_c = Step::new(nim).args(NIM);
    if let Some(library) = &library {
        // One that was unpacked elsewhere than where it was to be installed does not find them by itself.
        let path =
            |name: &str| [OsString::from("-p:"), library.join(name).into_os_string()].into_iter().collect();
        let paths: Vec<OsString> =
            ["core", "pure", "pure/collections", "std", "arch", "system", "posix"].map(path).into();
        to_c =
            to_c.args([[OsString::from("--lib:"), library.clone().into()].into_iter().collect::<OsString>()]);
        to_c = to_c.args(paths);
    }
    let to_c = to_c
        .args([[OsString::from("--nimcache:"), cache.clone().into()].into_iter().collect::<OsString>()])
        .args(["policy.nim"]);
    // Which files there are is Nim's affair.
    let link = Step::new(zig)
        .args(["cc", "-w"])
        .args(library.map(|library| [OsString::from("-I"), library.into()]).into_iter().flatten());
    let shell = Step::new("/bin/sh".into())
        .args(["-ec", r#"cache=$1; shift; exec "$@" "$cache"/*.c"#, "sh"])
        .args([cache.as_os_str()])
        .args([link.program])
        .args(link.args)
        .args(WASI_REACTOR.map(|word| word.replace("65536", "262144")))
        .args([to]);
    vec![to_c, shell]
}

/// What LDC is told: no runtime, but checked indexes.
const D: [&str; 7] = [
    "-mtriple=wasm32-unknown-unknown-wasm",
    "-betterC",
    "-Oz",
    // Files that it imports as text, and modules that it imports.
    "-J.",
    "-i",
    "-c",
    "policy.d",
];

/// From D to an object, and from that to a module with what it needs of the C library.
fn d(ldc: PathBuf, zig: PathBuf, to: &Path) -> Vec<Step> {
    let object = to.with_extension("o");
    let of = [OsString::from("-of="), object.clone().into()].into_iter().collect::<OsString>();
    vec![
        Step::new(ldc).args(D).args([of]),
        Step::new(zig).args(["cc"]).args(WASI_REACTOR).args([to, &object]),
    ]
}

/// Zig's C compiler, or else clang with a WASI library where it looks for one, as Debian's has.
fn c_compiler(find: impl Fn(&[&str]) -> Result<PathBuf, BuildError>) -> Result<Step, BuildError> {
    match find(&["zig", "python-zig"]) {
        Ok(zig) => Ok(Step::new(zig).args(["cc"])),
        Err(no_zig) => find(&["clang"]).map(Step::new).map_err(|_| no_zig),
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
        Language::C => c_compiler(find)?.args(WASI_REACTOR).args([to.as_os_str(), "policy.c".as_ref()]),
        Language::Cpp => Step::new(find(&["zig", "python-zig"])?)
            .args(["c++", "-std=c++20", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"])
            // Zig would compile all of libc++ first, for minutes.
            .args(["-nostdlib++", "-nostdinc++"])
            .args(WASI_REACTOR)
            .args([to.as_os_str(), "policy.cpp".as_ref()]),
        Language::Zig => Step::new(find(&["zig", "python-zig"])?)
            .args(["build-exe", "policy.zig", "-target", "wasm32-freestanding", "-fno-entry", "-rdynamic"])
            .args(["-O", "ReleaseSmall", "-fstrip", "--stack", "262144"])
            .args([format!("-femit-bin={}", to.display())]),
        Language::AssemblyScript => Step::new(find(&["asc"])?)
            .args(["policy.ts", "--runtime", "stub", "--use", "abort=", "--transform", "./exports.js"])
            .args(["--optimize", "-o"])
            .args([to]),
        Language::Nim => {
            let steps = nim(find(&["nim"])?, find(&["zig", "python-zig"])?, to);
            return Ok(Some(Plan { steps, made }));
        }
        Language::D => {
            let steps = d(find(&["ldc2"])?, find(&["zig", "python-zig"])?, to);
            return Ok(Some(Plan { steps, made }));
        }
        Language::Wat => return Ok(None),
        Language::Other => Step::new(find(&["sh"])?)
            .args(["-ec", project.command.unwrap_or("echo 'there is no command' >&2; exit 1")])
            .env("OUT", to),
    };
    Ok(Some(Plan { steps: vec![step], made }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_is_compiled_by_zig_or_else_by_clang() {
        let with = |there: &'static [&str]| {
            c_compiler(move |programs: &[&str]| {
                let found = programs.iter().find(|program| there.contains(program));
                found.map(PathBuf::from).ok_or_else(|| BuildError::Missing {
                    language: Language::C,
                    program: programs[0].to_owned(),
                    hint: Language::C.hint(programs[0]).to_owned(),
                })
            })
        };
        assert_eq!(with(&["clang", "zig"]).expect("zig"), Step::new("zig".into()).args(["cc"]));
        assert_eq!(with(&["clang"]).expect("clang"), Step::new("clang".into()));
        let missing = with(&[]).expect_err("neither").to_string();
        assert!(missing.contains("`zig`") && missing.contains("apt install clang"), "{missing}");
    }
}
