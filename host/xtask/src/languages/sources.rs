//! What a module is made of, as one digest: when it is that of the module that is there, nothing is built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use regatta_policy_build::Language;
use sha2::{Digest, Sha256};

use crate::cargo;
use crate::workspace::Workspace;

/// Folders and files that tools leave in a project, and that are no sources.
const LEFT_BY_TOOLS: [&str; 6] = ["node_modules", ".venv", "__pycache__", ".zig-cache", "zig-out", "target"];

/// What else a module depends on, from the workspace's root.
fn also(language: Language) -> &'static [&'static str] {
    match language {
        Language::Rust => {
            &["host/policy-build/src/steps.rs", "sdk/src", "sdk/wit", "sdk/Cargo.toml", "Cargo.lock"]
        }
        _ => &["host/policy-build/src/steps.rs"],
    }
}

/// Names and contents of all sources of an example, and how it is built.
pub(super) fn digest(workspace: &Workspace, language: Language, source: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(source, &mut files)?;
    for path in also(language) {
        collect(&workspace.root.join(path), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&workspace.root).unwrap_or(&file).to_string_lossy().into_owned();
        digest.update(format!("{name}\0{}\0", bytes.len()));
        digest.update(bytes);
    }
    Ok(cargo::hex(&digest.finalize()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let left =
            LEFT_BY_TOOLS.iter().any(|other| name == *other) || name.to_string_lossy().ends_with(".wasm");
        if !left {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}
