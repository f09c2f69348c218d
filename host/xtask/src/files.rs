//! Files that are made, and what they are made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::workspace::Workspace;

/// Folders and files that tools leave in a project, and that are not sources.
const LEFT_BY_TOOLS: [&str; 6] = ["node_modules", ".venv", "__pycache__", ".zig-cache", "zig-out", "target"];

/// Names and contents of all files at or below these paths, which start at the workspace's root: when the digest is that
/// of what is there, nothing is built.
pub(crate) fn digest<'p>(workspace: &Workspace, paths: impl IntoIterator<Item = &'p str>) -> Result<String> {
    let mut files = Vec::new();
    for path in paths {
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
    Ok(hex::encode(digest.finalize()))
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

/// Puts a file into its place at once; a reader never sees half of it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}
