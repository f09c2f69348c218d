//! `policy new`: a project from a template.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use regatta_policy_build::Language;
use thiserror::Error;

use super::file::{FILE_NAME, ProjectFile};
use super::rename::{check_name, renamed};
use super::templates::{LANGUAGES, SDK, SDK_MANIFEST, VECTORS};

/// Folder of the SDK in a Rust project.
const SDK_FOLDER: &str = "regatta-sdk";
/// Names that a Rust package cannot have beside the SDK, or at all.
const RUST_NAMES: [&str; 10] = [
    "std",
    "core",
    "alloc",
    "test",
    "proc-macro",
    "regatta-sdk",
    "serde",
    "serde-json",
    "schemars",
    "wit-bindgen",
];
/// Policies that come with Regatta; a daemon refuses others of these names.
const BUILT_IN: [&str; 2] = ["step", "target-tracking"];
const README_NAME: &str = "README.md";
const README: &str = include_str!("README.template.md");
const IGNORED: &str = "*.wasm\ntarget/\nnode_modules/\n.venv/\n__pycache__/\n.zig-cache/\n";

/// A member of this workspace cannot have a profile of its own; a project needs one.
const RUST_PROFILE: &str = "
# Policies are shipped to hosts: small beats fast to build. A number that overflows is a failure with a line. The custom
# sections that the host reads stay.
[profile.release]
opt-level = \"s\"
lto = true
codegen-units = 1
overflow-checks = true
strip = \"symbols\"
panic = \"abort\"
";

/// A project that was not made; nothing of it is left.
#[derive(Debug, Error)]
pub enum NewError {
    /// A policy cannot have that name.
    #[error("a policy cannot be called so: {0}")]
    Name(String),
    /// There is something already.
    #[error("{} is there already and not empty", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Makes a project in `dir`, all of it or nothing, and returns its files, relative to `dir`.
///
/// # Errors
/// When the name cannot be, `dir` holds something, or cannot be written.
pub fn create(language: Language, name: &str, dir: &Path) -> Result<Vec<PathBuf>, NewError> {
    check_name(name).map_err(NewError::Name)?;
    if BUILT_IN.contains(&name) {
        return Err(NewError::Name(format!("{name:?} is the name of a built-in policy")));
    }
    if language == Language::Rust
        && (!name.starts_with(|c: char| c.is_ascii_lowercase()) || RUST_NAMES.contains(&name))
    {
        let rule =
            "a Rust package begins with a letter and is not called like the standard library or what it uses";
        return Err(NewError::Name(format!("{name:?}: {rule}")));
    }
    let empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !empty {
        return Err(NewError::Exists(dir.to_owned()));
    }
    let files = files(language, name);
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let scratch = Scratch(parent.join(format!(".{name}.new.{}", process::id())));
    for (path, content) in &files {
        let path = scratch.0.join(path);
        let folder = path.parent().unwrap_or(&scratch.0);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, content));
        written.map_err(|source| NewError::Write { path, source })?;
    }
    // Onto an empty folder, or nothing: a folder that was filled meanwhile is not replaced.
    fs::rename(&scratch.0, dir).map_err(|source| NewError::Write { path: dir.to_owned(), source })?;
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// The files of a project, sorted by path.
fn files(language: Language, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = format!("{language}/");
    let template =
        LANGUAGES.iter().filter_map(|&(path, content)| Some((path.strip_prefix(&folder)?, content)));
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut about = String::new();
    for (path, content) in template {
        let content = match std::str::from_utf8(content) {
            Ok(text) => renamed(text, name).into_bytes(),
            Err(_) => content.to_vec(),
        };
        if path == README_NAME {
            about = String::from_utf8_lossy(&content).into_owned();
            continue;
        }
        files.push((renamed(path, name).into(), content));
    }
    if language == Language::Rust {
        for (path, content) in &mut files {
            if path == Path::new("Cargo.toml") {
                *content = rust_manifest(&String::from_utf8_lossy(content)).into_bytes();
            }
        }
        let sdk = SDK.iter().map(|&(path, content)| (Path::new(SDK_FOLDER).join(path), content.to_vec()));
        files.extend(sdk);
        files.push((Path::new(SDK_FOLDER).join("Cargo.toml"), SDK_MANIFEST.into()));
    }
    files.push((FILE_NAME.into(), ProjectFile::text(language, name).into_bytes()));
    files.push(("vectors.json".into(), VECTORS.to_vec()));
    files.push((README_NAME.into(), readme(language, name, &about).into_bytes()));
    files.push((".gitignore".into(), IGNORED.into()));
    files.sort();
    files
}

/// The example's manifest with the SDK beside it, and as the root of its own workspace, so that a project may lie
/// in another one.
fn rust_manifest(text: &str) -> String {
    let text = text.replace("path = \"../../../sdk\"", &format!("path = \"{SDK_FOLDER}\""));
    let workspace = format!(
        "# A workspace of its own, wherever this folder lies.\n[workspace]\nexclude = [\"{SDK_FOLDER}\"]\n"
    );
    format!("{text}{RUST_PROFILE}\n{workspace}")
}

/// How to go on with any project, then what the example says of its language.
fn readme(language: Language, name: &str, about: &str) -> String {
    let about = about.split_once('\n').map_or("", |(_heading, rest)| rest.trim());
    let install = match language.installs() {
        [] => "",
        _ => " --install",
    };
    let sdk = match language {
        Language::Rust => {
            "* `regatta-sdk/`: the SDK, as `regatta policy new` had it. `cargo test` runs the tests in `src/lib.rs`.\n"
        }
        _ => "",
    };
    README
        .replace("{name}", name)
        .replace("{language}", language.title())
        .replace("{install}", install)
        .replace("{sdk}", sdk)
        .replace("{about}", about)
}

/// A folder that goes when it is dropped, unless it has been renamed.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing more can be done about a folder that does not go.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        entries.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Languages whose example is there: a template is more than what every project has.
    fn templates() -> impl Iterator<Item = Language> {
        Language::ALL.into_iter().filter(|language| files(*language, "x").len() > 4)
    }

    #[test]
    fn every_template_carries_only_the_new_name() {
        assert!(templates().any(|language| language == Language::Rust));
        for language in templates() {
            for (path, content) in files(language, "my-policy") {
                let text = String::from_utf8(content).expect("templates are text");
                let old = ["tolerant-target", "tolerant_target", "TolerantTarget"];
                let found =
                    old.iter().find(|old| text.contains(*old) || path.to_string_lossy().contains(*old));
                assert_eq!(found, None, "{language} {}", path.display());
            }
        }
    }

    #[test]
    fn the_sdk_stands_alone() {
        assert!(!SDK_MANIFEST.contains("workspace"), "{SDK_MANIFEST}");
        assert!(
            SDK_MANIFEST.contains("edition = \"2024\"") && SDK_MANIFEST.contains("serde_json = {"),
            "{SDK_MANIFEST}"
        );
        let files = files(Language::Rust, "x");
        let content = |path: &str| {
            let found = files.iter().find(|(found, _)| found == Path::new(path));
            String::from_utf8_lossy(&found.unwrap_or_else(|| panic!("{path} is there")).1).into_owned()
        };
        assert!(
            content("Cargo.toml").contains("regatta-sdk = { path = \"regatta-sdk\""),
            "{}",
            content("Cargo.toml")
        );
        assert!(content("regatta-sdk/src/lib.rs").contains("pub use"));
    }

    #[test]
    fn what_is_there_is_never_touched() {
        let home = tempfile::tempdir().expect("a folder");
        let dir = home.path().join("mine");
        fs::create_dir(&dir).expect("made");
        let made = create(Language::Rust, "mine", &dir).expect("an empty folder may be filled");
        assert!(made.contains(&PathBuf::from("policy.yaml")) && dir.join("src/lib.rs").is_file());
        assert!(matches!(create(Language::Rust, "mine", &dir), Err(NewError::Exists(_))));
        let file = home.path().join("file");
        fs::write(&file, "x").expect("written");
        assert!(matches!(create(Language::Rust, "mine", &file), Err(NewError::Exists(_))));
        assert!(matches!(create(Language::Rust, "Mine", &home.path().join("b")), Err(NewError::Name(_))));
        assert!(matches!(create(Language::Rust, "serde", &home.path().join("b")), Err(NewError::Name(_))));
        assert!(matches!(create(Language::Rust, "2x", &home.path().join("b")), Err(NewError::Name(_))));
        assert!(matches!(create(Language::Wat, "step", &home.path().join("b")), Err(NewError::Name(_))));
        let nowhere = create(Language::Rust, "mine", &home.path().join("no/such/place"));
        assert!(nowhere.is_ok() || matches!(nowhere, Err(NewError::Write { .. })));
        let mut left = names(home.path());
        left.retain(|name| name.starts_with('.'));
        assert_eq!(left, Vec::<String>::new(), "no scratch folder");
    }
}
