//! What an author does without a daemon: a project, its module, and what can be told of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use regatta_tests::{CommandOutput, Daemon, IDLE, bin_dir, policies_dir};
use serde_json::Value;
use tempfile::TempDir;

use crate::modules::{exploding_schema, hostile, module};

const PARAMS: &str = r#"{"metric": "load", "target": 0.5}"#;

/// An author's folder.
struct Desk {
    home: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `regatta policy …` there, with no daemon anywhere.
    fn run(&self, args: &[&str]) -> CommandOutput {
        self.run_with(args, &[("REGATTA_TOOLS", tools_dir().as_os_str())])
    }

    fn run_with(&self, args: &[&str], environment: &[(&str, &OsStr)]) -> CommandOutput {
        let mut command = Command::new(bin_dir().join("regatta"));
        command.arg("policy").args(args).current_dir(self.home.path());
        command.env("REGATTA_SOCKET", self.path("no-daemon.sock"));
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", target_dir());
        command.envs(environment.iter().copied());
        let output = command.output().expect("regatta starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CommandOutput {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert_eq!(output.code, 0, "{args:?}: {}", output.err);
        serde_json::from_str(&output.out)
            .unwrap_or_else(|error| panic!("{args:?}: {error} in {}", output.out))
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(dir)).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn target_dir() -> PathBuf {
    policies_dir().parent().expect("target").to_owned()
}

/// Where `cargo xtask policies --language` puts the tools that a machine lacks.
fn tools_dir() -> PathBuf {
    std::env::var_os("REGATTA_TOOLS").map_or_else(|| target_dir().join("tools"), PathBuf::from)
}

/// Thousands of decisions, some of them of an interpreter.
const PROPERTIES: [&str; 7] = [
    "answers",
    "stays-in-bounds",
    "monotonic-in-load",
    "no-oscillation",
    "waits-for-samples",
    "recovers-after-gap",
    "deterministic",
];

/// From nothing to a checked module. Says so when the machine lacks the language's tools.
fn from_new_to_check(language: &str) -> Desk {
    let desk = Desk::new();
    let name = format!("my-{language}");
    let made = desk.json(&["-o", "json", "new", "--language", language, &name]);
    assert_eq!(made["dir"], name);
    if language == "rust" {
        // The crates that the workspace has are there, others may not be.
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        fs::copy(lock, desk.path(&name).join("Cargo.lock")).expect("copied");
    }
    let build = desk.run(&["-o", "json", "build", &name]);
    if build.err.contains("\"missing-tool\"") {
        println!("skipped: {language}: {}", build.err.trim());
        return desk;
    }
    assert_eq!(build.code, 0, "{language}: {}", build.err);
    let built: Value = serde_json::from_str(&build.out).expect("json");
    assert_eq!((built["name"].as_str(), built["version"].as_str()), (Some(&*name), Some("1.0.0")), "{built}");
    let module = format!("{name}/{name}.wasm");
    assert!(!desk.names(&name).iter().any(|name| name.starts_with(".regatta")), "{:?}", desk.names(&name));

    let found = desk.json(&["-o", "json", "inspect", &module]);
    assert_eq!((&found["digest"], &found["cached"]), (&built["digest"], &Value::Bool(true)), "compiled once");
    let parameters = found["parameters"].as_array().expect("parameters").iter();
    let parameters: Vec<_> =
        parameters.map(|row| (row["path"].as_str(), row["required"].as_bool())).collect();
    let expected = [("metric", true), ("target", true), ("tolerance", false)];
    assert_eq!(parameters, expected.map(|(path, required)| (Some(path), Some(required))), "{language}");

    let vectors = format!("{name}/vectors.json");
    let mut check = vec!["-o", "json", "check", &module, "--params", PARAMS, "--vectors", &vectors];
    if language != "rust" {
        // That all agree with the vectors is enough here.
        check.extend(PROPERTIES.iter().flat_map(|property| ["--skip", property]));
    }
    let checked = desk.json(&check);
    assert_eq!(checked["passed"], true, "{language}: {checked}");
    let findings = checked["findings"].as_array().expect("findings");
    let vectors =
        findings.iter().find(|finding| finding["name"] == "vectors").expect("the vectors were looked at");
    assert_eq!(vectors["status"], "ok", "{language}: {checked}");
    desk
}

#[test]
fn a_rust_project_builds_as_it_is_made() {
    let desk = from_new_to_check("rust");
    // Of the release profile, as much of it is built already.
    let mut tests = Command::new("cargo");
    tests.args(["test", "--release", "--offline", "--quiet"]).current_dir(desk.path("my-rust"));
    tests.env("CARGO_TARGET_DIR", target_dir()).env_remove("RUSTFLAGS");
    let output = tests.output().expect("cargo starts");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains(" passed"), "{out}");

    // A number below zero is a failure with a line, and not four billion instances.
    edit(
        &desk.path("my-rust/src/lib.rs"),
        "counts.in_service, tick.desired);",
        "counts.in_service, tick.desired - 50_000);",
    );
    assert_eq!(desk.run(&["build", "my-rust"]).code, 0);
    let checked = desk.run(&["check", "my-rust/my-rust.wasm", "--params", PARAMS]);
    assert_eq!(checked.code, 3, "{}", checked.err);
    assert!(checked.out.contains("attempt to subtract with overflow"), "{}", checked.out);
    assert!(checked.out.contains("src/lib.rs:"), "{}", checked.out);
}

fn edit(path: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(path).expect("a file");
    assert!(text.contains(old), "{}: {text}", path.display());
    fs::write(path, text.replacen(old, new, 1)).expect("written");
}

#[test]
fn a_javascript_project_builds_as_it_is_made() {
    from_new_to_check("javascript");
}

#[test]
fn a_python_project_builds_as_it_is_made() {
    let desk = from_new_to_check("python");
    if !desk.path("my-python/my-python.wasm").exists() {
        return;
    }
    // What is wrong stands in the traceback.
    edit(
        &desk.path("my-python/policy.py"),
        "        return decide(tick,",
        "        1 / 0\n        return decide(tick,",
    );
    assert_eq!(desk.run(&["build", "my-python"]).code, 0);
    let mut check = vec!["check", "my-python/my-python.wasm", "--params", PARAMS];
    check.extend(PROPERTIES.iter().flat_map(|property| ["--skip", property]));
    let checked = desk.run(&check);
    assert_eq!(checked.code, 3, "{}", checked.err);
    assert!(checked.out.contains("ZeroDivisionError: division by zero"), "{}", checked.out);
    assert!(checked.out.contains("policy.py\", line "), "{}", checked.out);
}

#[test]
fn a_go_project_builds_as_it_is_made() {
    from_new_to_check("go");
}

#[test]
fn a_c_project_builds_as_it_is_made() {
    from_new_to_check("c");
}

#[test]
fn a_nim_project_builds_as_it_is_made() {
    from_new_to_check("nim");
}

#[test]
fn a_d_project_builds_as_it_is_made() {
    from_new_to_check("d");
}

#[test]
fn a_cpp_project_builds_as_it_is_made() {
    from_new_to_check("cpp");
}

/// From nothing but the contract, with a language that nobody here knows of: its compiler is `cat`.
#[test]
fn a_project_in_another_language_builds_with_its_own_command() {
    let desk = Desk::new();
    fs::create_dir(desk.path("own")).expect("made");
    fs::copy(policies_dir().join("target-tracking.wasm"), desk.path("own/source")).expect("copied");
    let file = |command: &str| {
        let text = format!("language: other\nname: own\ncommand: {command}\n");
        fs::write(desk.path("own/policy.yaml"), text).expect("written");
    };
    file("cat source > \"$OUT\"");
    let built = desk.json(&["-o", "json", "build", "own"]);
    assert_eq!(
        (&built["name"], &built["output"]),
        (&"target-tracking".into(), &"own/own.wasm".into()),
        "{built}"
    );
    // Each command of several must do.
    file("|\n  false\n  cat source > \"$OUT\"");
    let output = desk.run(&["build", "own"]);
    assert!(output.code == 3 && output.err.contains("false"), "{}", output.err);
    file("echo done");
    let output = desk.run(&["build", "own"]);
    assert!(output.code == 1 && output.err.contains("own.wasm"), "{}", output.err);
}

#[test]
fn a_zig_project_builds_as_it_is_made() {
    from_new_to_check("zig");
}

#[test]
fn an_assemblyscript_project_builds_as_it_is_made() {
    from_new_to_check("assemblyscript");
}

#[test]
fn a_wat_project_builds_as_it_is_made() {
    from_new_to_check("wat");
}

#[test]
fn a_project_is_made_whole_or_not_at_all() {
    let desk = Desk::new();
    for (args, code, told) in [
        (&["new", "--language", "cobol", "x"][..], 2, "possible values: rust, javascript"),
        (&["new", "--language", "rust", "My_Policy"], 3, "lower-case letters, digits and `-`"),
        (&["new", "--language", "python", "../x"], 3, "lower-case letters"),
        (&["new", "--language", "rust", "serde"], 3, "Rust package"),
    ] {
        let output = desk.run(args);
        assert_eq!(output.code, code, "{args:?}: {}", output.err);
        assert!(output.err.contains(told), "{args:?}: {}", output.err);
    }
    assert_eq!(desk.names("."), Vec::<String>::new());

    fs::create_dir(desk.path("full")).expect("made");
    fs::write(desk.path("full/mine.txt"), "x").expect("written");
    let output = desk.run(&["new", "--language", "python", "x", "--dir", "full"]);
    assert_eq!(output.code, 6, "{}", output.err);
    assert_eq!((desk.names("full"), desk.names(".")), (vec!["mine.txt".to_owned()], vec!["full".to_owned()]));
}

#[test]
fn a_build_says_what_is_missing_and_where_a_project_is_wrong() {
    let desk = Desk::new();
    let output = desk.run(&["build", "nowhere"]);
    assert_eq!(output.code, 4, "{}", output.err);
    assert!(
        output.err.contains("nowhere/policy.yaml") && output.err.contains("regatta policy new"),
        "{}",
        output.err
    );

    desk.json(&["-o", "json", "new", "--language", "python", "mine"]);
    let empty = desk.path("empty");
    fs::create_dir(&empty).expect("made");
    let nothing = [("REGATTA_TOOLS", empty.as_os_str()), ("PATH", empty.as_os_str())];
    let output = desk.run_with(&["build", "mine"], &nothing);
    assert_eq!(output.code, 1, "{}", output.err);
    for part in ["`componentize-py`", "Python", "pip install -r requirements.txt", "--install"] {
        assert!(output.err.contains(part), "{part}: {}", output.err);
    }
    assert!(!desk.path("mine/mine.wasm").exists());

    fs::write(desk.path("mine/policy.yaml"), "language: python\nname: mine\nouput: x.wasm\n")
        .expect("written");
    let output = desk.run(&["build", "mine"]);
    assert_eq!(output.code, 3, "{}", output.err);
    assert!(output.err.contains("mine/policy.yaml:3:1: unknown field `ouput`"), "{}", output.err);
}

/// Writes a program.
pub(crate) fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
}

#[test]
fn a_missing_tool_is_installed_into_the_project_when_asked_for() {
    let desk = Desk::new();
    desk.json(&["-o", "json", "new", "--language", "javascript", "mine"]);
    let (bin, module) = (desk.path("bin"), policies_dir().join("target-tracking.wasm"));
    fs::create_dir(&bin).expect("made");
    // In place of the real ones: a package manager, and a compiler with one module in store.
    let compiler =
        format!("#!/bin/sh\nfor out; do :; done\necho compiling\nexec cp '{}' \"$out\"\n", module.display());
    script(&desk.path("compiler"), &compiler);
    let manager = format!(
        "#!/bin/sh\nset -e\n[ \"$1\" = install ]\nmkdir -p node_modules/.bin\ncp '{}' node_modules/.bin/componentize-qjs\n",
        desk.path("compiler").display()
    );
    script(&bin.join("npm"), &manager);
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let environment = [("REGATTA_TOOLS", bin.as_os_str()), ("PATH", OsStr::new(&path))];
    let run = |args: &[&str]| desk.run_with(args, &environment);

    let output = run(&["build", "mine"]);
    assert!(output.code == 1 && output.err.contains("npm install"), "{}", output.err);
    let output = run(&["build", "mine", "--install", "-o", "json"]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.err.contains("$ npm install") && output.err.contains("compiling"), "{}", output.err);
    let built: Value = serde_json::from_str(&output.out).expect("nothing but json");
    assert_eq!(
        (built["name"].as_str(), built["output"].as_str()),
        (Some("target-tracking"), Some("mine/mine.wasm"))
    );
    let output = run(&["build", "mine", "--out", "elsewhere/x.wasm"]);
    assert!(
        output.code == 0 && output.out.starts_with("elsewhere/x.wasm: built in"),
        "{}{}",
        output.out,
        output.err
    );
    assert_eq!(desk.names("elsewhere"), ["x.wasm"]);
}

#[test]
fn a_module_that_cannot_be_loaded_is_told_as_far_as_it_goes() {
    let desk = Desk::new();
    let bytes =
        wat::parse_str(r#"(module (import "env" "now" (func)) (@custom "regatta-contract" "0.1.1"))"#)
            .expect("wat");
    fs::write(desk.path("x.wasm"), bytes).expect("written");
    let output = desk.run(&["inspect", "x.wasm"]);
    assert_eq!(output.code, 3, "{}", output.err);
    for part in ["core module", "0.1.1", "env: now"] {
        assert!(output.out.contains(part), "{part}: {}", output.out);
    }
    assert!(output.err.contains("imports what a policy may not have"), "{}", output.err);
    let output = desk.run(&["-o", "json", "inspect", "x.wasm"]);
    assert_eq!((output.code, output.out.as_str()), (3, ""));
    let error: Value = serde_json::from_str(&output.err).expect("json");
    assert_eq!(error["code"], "invalid");

    fs::write(desk.path("text.wasm"), "#!/bin/sh\n").expect("written");
    let output = desk.run(&["inspect", "text.wasm"]);
    assert!(output.code == 3 && output.out.contains("not WebAssembly"), "{} {}", output.out, output.err);
    assert_eq!(desk.run(&["inspect", "absent.wasm"]).code, 1);
}

#[test]
fn a_bench_needs_parameters_that_the_policy_takes() {
    let desk = Desk::new();
    let module = policies_dir().join("target-tracking.wasm");
    let module = module.to_str().expect("text");
    let output = desk.run(&["bench", module, "--instances", "1"]);
    assert_eq!(output.code, 3, "{}", output.err);
    assert!(output.err.contains("`metric`") && output.err.contains("`target`"), "{}", output.err);
    let output =
        desk.run(&["bench", module, "--instances", "1", "--params", r#"{"metric": "x", "target": -1}"#]);
    assert!(output.code == 3 && output.err.contains("/target"), "{}", output.err);
    let bench = desk.json(&["-o", "json", "bench", module, "--instances", "1,100", "--params", PARAMS]);
    assert_eq!(bench["name"], "target-tracking");
    assert!(bench["cached_load_us"].as_f64() > Some(0.0), "{bench}");
    let rows = bench["decisions"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["failed"], Value::Null, "{row}");
        assert!(row["fuel"].as_u64() > Some(0) && row["median_us"].as_f64() > Some(0.0), "{row}");
        assert!(row["memory_bytes"].as_u64() > Some(0), "{row}");
    }
}

#[test]
fn a_check_tells_what_fails_and_ends_so() {
    let desk = Desk::new();
    let module = policies_dir().join("target-tracking.wasm");
    let module = module.to_str().expect("text");
    let good = desk.run(&["check", module, "--params", PARAMS]);
    assert_eq!(good.code, 0, "{}{}", good.out, good.err);
    assert!(good.out.contains("no-oscillation") && good.out.contains("passed"), "{}", good.out);

    let vectors = r#"{"vectors": [{"name": "never so", "params": {"metric": "load", "target": 0.5},
        "observation": {"set": "x", "tick": 1, "now_ms": 1, "generation": 1, "min": 1, "max": 9, "desired": 1,
            "instances": {"id": [1], "state": ["in-service"], "state_since_ms": [1], "created_ms": [1], "generation": [1],
                "protected": [false]},
            "metrics": [], "last": null, "schedule": []},
        "expect": {"capacity": 7}}]}"#;
    fs::write(desk.path("vectors.json"), vectors).expect("written");
    let skip = ["--skip", "no-oscillation", "--skip", "monotonic-in-load"];
    let bad =
        desk.run(&[&["check", module, "--params", PARAMS, "--vectors", "vectors.json"][..], &skip].concat());
    assert_eq!(bad.code, 3, "{}{}", bad.out, bad.err);
    assert!(bad.out.contains("never so") && bad.out.contains("FAILED: vectors"), "{}", bad.out);
    assert!(bad.out.contains("skipped"), "{}", bad.out);

    fs::write(desk.path("vectors.json"), "{\"vectors\": [{\"nam\": 1}]}").expect("written");
    let broken = desk.run(&["check", module, "--params", PARAMS, "--vectors", "vectors.json"]);
    assert!(broken.code == 3 && broken.err.contains("vectors.json"), "{}", broken.err);
    assert_eq!(desk.run(&["check", module, "--skip", "everything"]).code, 2);
}

#[test]
fn a_check_ends_early_when_a_policy_goes_past_its_limits() {
    let desk = Desk::new();
    let finding = |report: &Value, name: &str| {
        let findings = report["findings"].as_array().expect("findings");
        findings.iter().find(|finding| finding["name"] == name).expect("a finding").clone()
    };
    for (name, told) in [("infinite-loop", "out-of-fuel: "), ("memory-growth", "memory: ")] {
        fs::write(desk.path("x.wasm"), hostile(name)).expect("written");
        let checked = desk.run(&["-o", "json", "check", "x.wasm"]);
        assert_eq!(checked.code, 3, "{name}: {}{}", checked.out, checked.err);
        let report: Value = serde_json::from_str(&checked.out).expect("json");
        let sandbox = finding(&report, "sandbox");
        assert_eq!(sandbox["status"], "failed", "{report}");
        assert!(sandbox["lines"][0].as_str().is_some_and(|line| line.contains(told)), "{sandbox}");
        let end = "3 decisions, then stopped after 3 calls that went past a limit";
        assert_eq!(
            sandbox["lines"].as_array().and_then(|lines| lines.last()),
            Some(&end.into()),
            "{sandbox}"
        );
        for name in ["no-oscillation", "worst-case"] {
            assert_eq!(finding(&report, name)["lines"], serde_json::json!(["not tried: see above"]));
        }
        let bench = desk.json(&["-o", "json", "bench", "x.wasm"]);
        assert_eq!(bench["decisions"].as_array().map(Vec::len), Some(1), "{bench}");
        assert_eq!(bench["decisions"][0]["runs"], 1, "{bench}");
    }

    let module = policies_dir().join("target-tracking.wasm");
    let module = module.to_str().expect("text");
    let few = desk.run(&["check", module, "--params", PARAMS, "--limits", "fuel=10000"]);
    assert!(few.code == 3 && few.out.contains("out-of-fuel"), "{}{}", few.out, few.err);
    let wrong = desk.run(&["check", module, "--params", PARAMS, "--limits", "fule=20000"]);
    assert!(wrong.code == 2 && wrong.err.contains("did you mean `fuel`"), "{}", wrong.err);
    let short = desk.run(&["check", module, "--params", PARAMS, "--budget", "0s"]);
    assert!(
        short.code == 3 && short.out.contains("give it more with --budget"),
        "{}{}",
        short.out,
        short.err
    );
}

/// The daemon's pool has one memory for a module, and its compiler limits.
#[test]
fn the_tools_refuse_what_the_daemon_refuses_in_the_same_words() {
    let (desk, daemon) = (Desk::new(), Daemon::start());
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    let two_memories = module("(memory $more 1) (memory (export \"memory\") 4)");
    for bytes in [two_memories, hostile("component-of-a-hundred-instances"), hostile("import-of-a-memory")] {
        fs::write(desk.path("x.wasm"), &bytes).expect("written");
        fs::write(daemon.home().join("x.wasm"), &bytes).expect("written");
        let swap = daemon.run(&["policy", "swap", "web", "./x.wasm"]);
        assert_eq!(swap.code, 3, "{}", swap.err);
        for tool in ["check", "inspect", "bench"] {
            let refused = desk.run(&[tool, "x.wasm"]);
            assert_eq!(refused.code, 3, "{tool}: {}{}", refused.out, refused.err);
            let (_, why) = refused.err.trim_end().split_once("cannot be loaded: ").expect("why");
            assert!(swap.err.contains(why), "{tool}: {why}\nbut swap: {}", swap.err);
        }
    }
}

/// What a schema makes of its few kilobytes is limited as what a module makes the compiler do.
#[test]
fn a_schema_that_explodes_is_a_finding() {
    let desk = Desk::new();
    fs::write(desk.path("x.wasm"), exploding_schema()).expect("written");
    let checked = desk.run(&["check", "x.wasm"]);
    assert_eq!(checked.code, 3, "{}{}", checked.out, checked.err);
    assert!(
        checked.out.contains("FAILED   parameters") && checked.out.contains("make it simpler"),
        "{}",
        checked.out
    );
    let inspected = desk.run(&["inspect", "x.wasm"]);
    assert_eq!(inspected.code, 0, "{}", inspected.err);
}

/// A hundred thousand words in a line that is never broken.
#[test]
fn a_module_with_very_many_exports_is_shown_at_once() {
    let desk = Desk::new();
    let exports: String = (0..100_000).map(|n| format!("(export \"e{n}\" (func $f))")).collect();
    fs::write(desk.path("x.wasm"), wat::parse_str(format!("(module (func $f) {exports})")).expect("wat"))
        .expect("written");
    let output = desk.run(&["inspect", "x.wasm"]);
    assert_eq!(output.code, 3, "{}", output.err);
    assert!(output.out.contains("… and 99500 more"), "{}", output.out.len());
    assert!(output.out.len() < 20_000, "{}", output.out.len());
}
