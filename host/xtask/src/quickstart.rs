//! The image files that `examples/quickstart/set.yaml` names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::files;
use crate::workspace::Workspace;

/// Where the manifest looks, from the root of the workspace; not cargo's target directory, which
/// may be elsewhere.
const DIRECTORY: &str = "target/quickstart";

/// Size of the golden disk.
const DISK_BYTES: usize = 1 << 20;

/// The stand-in starts a guest without reading its image.
const PLACEHOLDER: &[u8] = b"Placeholder made by cargo xtask: the stand-in VMM boots nothing.\n";

/// Makes the files unless they are there.
pub(crate) fn image(workspace: &Workspace) -> Result<()> {
    image_in(&workspace.root.join(DIRECTORY))
}

fn image_in(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut disk = PLACEHOLDER.to_vec();
    disk.resize(DISK_BYTES, 0);
    for (name, bytes) in [("golden.raw", disk.as_slice()), ("vmlinux", PLACEHOLDER)] {
        let path = directory.join(name);
        if !path.exists() {
            files::replace(&path, bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_left_alone() {
        let directory = std::env::temp_dir().join(format!("xtask-quickstart-{}", std::process::id()));
        image_in(&directory).expect("made");
        fs::write(directory.join("golden.raw"), "a real disk").expect("write");
        image_in(&directory).expect("kept");
        let read = |name| fs::read(directory.join(name)).expect("read");
        let (disk, kernel) = (read("golden.raw"), read("vmlinux"));
        fs::remove_dir_all(&directory).expect("clean");
        assert_eq!((disk.as_slice(), kernel.as_slice()), (b"a real disk".as_slice(), PLACEHOLDER));
    }
}
