//! The image files that `examples/quickstart/set.yaml` names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Where the manifest looks, from the root of the workspace; not cargo's target directory, which
/// may be elsewhere.
const DIRECTORY: &str = "target/quickstart";

/// Size of the golden disk.
const DISK_BYTES: usize = 1 << 20;

/// The stand-in starts a guest without reading its image.
const PLACEHOLDER: &[u8] = b"Placeholder made by cargo xtask: the stand-in VMM boots nothing.\n";

/// Makes the files unless they are there; a real kernel and disk may be put in their place.
/// Returns whether any of them is a placeholder.
pub(crate) fn image(workspace: &Workspace) -> Result<bool> {
    image_in(&workspace.root.join(DIRECTORY))
}

fn image_in(directory: &Path) -> Result<bool> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut disk = PLACEHOLDER.to_vec();
    disk.resize(DISK_BYTES, 0);
    let mut placeholders = false;
    for (name, bytes) in [("golden.raw", disk.as_slice()), ("vmlinux", PLACEHOLDER)] {
        let path = directory.join(name);
        if !path.exists() {
            let new = directory.join(format!(".{name}.{}", std::process::id()));
            fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
            fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        placeholders |= is_placeholder(&path)?;
    }
    Ok(placeholders)
}

fn is_placeholder(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut start = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(PLACEHOLDER.len() as u64).read_to_end(&mut start))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(start == PLACEHOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("xtask-quickstart-{}", std::process::id()));
        assert!(image_in(&directory).expect("made"));
        fs::write(directory.join("golden.raw"), "a real disk").expect("write");
        assert!(image_in(&directory).expect("kept"), "the kernel is still a placeholder");
        fs::write(directory.join("vmlinux"), "a real kernel").expect("write");
        assert!(!image_in(&directory).expect("kept"));
        let disk = fs::read(directory.join("golden.raw")).expect("read");
        fs::remove_dir_all(&directory).expect("clean");
        assert_eq!(disk, b"a real disk");
    }
}
