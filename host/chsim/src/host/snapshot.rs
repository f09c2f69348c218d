//! Snapshot directories: `config.json`, `state.json`, `memory-ranges`. Source: `vmm/src/migration/mod.rs` and
//! `impl Transportable for Vm` in `vmm/src/vm.rs` of v53.0. The state is not upstream's: it holds what the model needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::sys;
use crate::config::VmConfig;
use crate::vmm::{GuestState, VmError};

const CONFIG: &str = "config.json";
const STATE: &str = "state.json";
const MEMORY: &str = "memory-ranges";

/// What a snapshot keeps: the guest's memory, as far as it is modelled, and the devices that its drivers hold.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotState {
    pub(crate) guest: GuestState,
    pub(crate) vcpus: u32,
    pub(crate) memory_bytes: u64,
    /// Sizes of the disks by id, bytes.
    pub(crate) disks: BTreeMap<String, u64>,
    /// Ids of the network devices.
    pub(crate) nets: BTreeSet<String>,
}

impl SnapshotState {
    /// What keeps a guest of this state from going on with the devices of another configuration.
    pub(crate) fn mismatch(&self, found: &Self) -> Option<String> {
        if self.vcpus != found.vcpus {
            return Some(format!("the snapshot has {} vCPUs, the configuration {}", self.vcpus, found.vcpus));
        }
        if self.memory_bytes != found.memory_bytes {
            let (had, has) = (self.memory_bytes, found.memory_bytes);
            return Some(format!("the snapshot has {had} bytes of memory, the configuration {has}"));
        }
        for (id, had) in &self.disks {
            match found.disks.get(id) {
                None => return Some(format!("the snapshot has a disk {id}, the configuration has none")),
                Some(has) if has != had => {
                    return Some(format!(
                        "disk {id} had {had} bytes when the snapshot was made, and has {has}"
                    ));
                }
                Some(_) => {}
            }
        }
        let extra = found.disks.keys().find(|id| !self.disks.contains_key(*id));
        let odd = extra.or_else(|| self.nets.symmetric_difference(&found.nets).next());
        odd.map(|id| format!("device {id} is not in both the snapshot and the configuration"))
    }
}

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
pub(crate) fn write(
    url: &str,
    config: &VmConfig,
    state: &SnapshotState,
    no_space: bool,
) -> Result<(), VmError> {
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

/// Reads what a snapshot keeps of its guest.
pub(crate) fn read_state(url: &str) -> Result<SnapshotState, VmError> {
    read(&directory(url, "Cannot restore VM")?, STATE, "VM state")
}

/// Reads, or gets ready to read, the guest's memory.
pub(crate) fn read_memory(url: &str, state: &SnapshotState, on_demand: bool) -> Result<(), VmError> {
    let failed = |messages: &[&str]| {
        VmError::chain(["Memory manager error"].into_iter().chain(messages.iter().copied()))
    };
    if on_demand && let Err(error) = sys::userfaultfd() {
        return Err(failed(&[
            "Cannot restore VM",
            "On-demand restore failed",
            "Failed to create userfaultfd",
            &error.to_string(),
        ]));
    }
    let memory = directory(url, "Cannot restore VM")?.join(MEMORY);
    let opened = File::open(memory).and_then(|file| file.metadata());
    let found = opened.map_err(|error| failed(&["Error opening snapshot file", &error.to_string()]))?;
    if found.len() < state.memory_bytes {
        return Err(failed(&["Error copying snapshot into region", "failed to fill whole buffer"]));
    }
    Ok(())
}
