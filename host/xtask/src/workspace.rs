//! Where the workspace is and what it holds, from `cargo metadata`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cargo;
use crate::proc;

/// The workspace that this binary was built from.
pub(crate) struct Workspace {
    /// Directory of the workspace manifest.
    pub(crate) root: PathBuf,
    /// Where cargo puts its output (honours `CARGO_TARGET_DIR` and the configuration).
    pub(crate) target: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    crate_types: Vec<String>,
}

impl Workspace {
    /// Asks cargo, from the directory of this package.
    pub(crate) fn locate() -> Result<Self> {
        // `cargo run` says where it is now; where it was compiled may be another copy of the
        // workspace, when the target directory came from there.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let manifest = Path::new(&package).join("Cargo.toml");
        let mut command = cargo::command();
        command.args(["metadata", "--no-deps", "--format-version=1"]).arg("--manifest-path").arg(manifest);
        let output = proc::capture(&mut command)?;
        let metadata: Metadata =
            serde_json::from_slice(&output).context("cargo metadata printed something else")?;
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
            packages: metadata.packages,
        })
    }

    /// Names of the guest crates: packages under `policies/` that make a `cdylib`.
    pub(crate) fn guests(&self) -> Vec<&str> {
        let under = self.root.join("policies");
        let mut names: Vec<&str> = self
            .packages
            .iter()
            .filter(|package| package.manifest_path.starts_with(&under))
            .filter(|package| package.makes("cdylib"))
            .map(|package| package.name.as_str())
            .collect();
        names.sort_unstable();
        names
    }
}

impl Package {
    fn makes(&self, crate_type: &str) -> bool {
        self.targets.iter().any(|target| target.crate_types.iter().any(|made| made == crate_type))
    }
}
