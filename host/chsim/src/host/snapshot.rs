//! Snapshot directories: `config.json`, `state.json`, `memory-ranges`. Source: `vmm/src/migration/mod.rs` and
//! `impl Transportable for Vm` in `vmm/src/vm.rs` of v53.0. The state is not upstream's: it holds what the model needs.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::VmConfig;
use crate::vmm::{GuestState, VmError};

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const MEMORY: &str = "memory-ranges";

const SENDING: &str = "Failed to send migratable component snapshot";
const RECEIVING: &str = "Failed to receive migratable component snapshot";

fn directory(url: &str, failed: &str) -> Result<PathBuf, VmError> {
    let Some(path) = url.strip_prefix("file://").map(PathBuf::from) else {
        return Err(VmError::chain([failed, SENDING, &format!("Could not extract path from URL: {url}")]));
    };
    if !path.is_dir() {
        return Err(VmError::chain([failed, SENDING, &format!("Destination is not a directory: {path:?}")]));
    }
    Ok(path)
}

/// Writes a snapshot. Files that exist are never overwritten.
pub(crate) fn write(url: &str, config: &VmConfig, state: &GuestState, no_space: bool) -> Result<(), VmError> {
    const FAILED: &str = "Cannot send VM snapshot";
    let directory = directory(url, FAILED)?;
    let failed = |what: &str, error: &io::Error| VmError::chain([FAILED, SENDING, what, &error.to_string()]);
    let create = |name: &str, what: &str| {
        let opened = File::options().read(true).write(true).create_new(true).open(directory.join(name));
        opened.map_err(|error| failed(&format!("Error creating {what} snapshot file"), &error))
    };
    let write = |mut file: File, value: &[u8], what: &str| {
        let written =
            if no_space { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { file.write_all(value) };
        written.map_err(|error| failed(&format!("Error writing {what} snapshot"), &error))
    };
    let json = serde_json::to_vec(config)
        .map_err(|error| failed("Error serializing VM config snapshot", &error.into()))?;
    write(create(CONFIG, "VM config")?, &json, "VM config")?;
    let json = serde_json::to_vec(state)
        .map_err(|error| failed("Error serializing VM state snapshot", &error.into()))?;
    write(create(STATE, "VM state")?, &json, "VM state")?;
    // Sparse, as a guest's mostly untouched memory is.
    let memory = create(MEMORY, "memory")?;
    memory
        .set_len(config.memory.total_bytes())
        .map_err(|error| failed("Error writing memory snapshot", &error))
}

fn read<T: serde::de::DeserializeOwned>(directory: &Path, name: &str, what: &str) -> Result<T, VmError> {
    let path = directory.join(name);
    let failed = |text: String, error: String| {
        VmError::Chain(vec!["Cannot restore VM".to_owned(), RECEIVING.to_owned(), text, error])
    };
    let bytes = std::fs::read(&path)
        .map_err(|error| failed(format!("Error opening {what} snapshot file {path:?}"), error.to_string()))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| failed(format!("Error deserialising {what} snapshot"), error.to_string()))
}

/// Reads the configuration of a snapshot.
pub(crate) fn read_config(url: &str) -> Result<VmConfig, VmError> {
    read(&directory(url, "Cannot restore VM")?, CONFIG, "VM config")
}

/// Reads what a snapshot kept of the guest.
pub(crate) fn read_state(url: &str) -> Result<GuestState, VmError> {
    let directory = directory(url, "Cannot restore VM")?;
    let state: GuestState = read(&directory, STATE, "VM state")?;
    let memory = directory.join(MEMORY);
    match memory.metadata() {
        Ok(_) => Ok(state),
        Err(error) => {
            Err(VmError::chain(["Memory manager error", "Error opening snapshot file", &error.to_string()]))
        }
    }
}
