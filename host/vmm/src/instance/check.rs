//! What can be known to go wrong with a launch before anything is made.

use serde_json::Value;

use super::disks::{self, DiskError};
use super::error::LaunchError;
use super::prepare::planned_root;
use super::spec::{LaunchSpec, Smbios};
use crate::api::config::{NetConfig, vm_config};
use crate::net::HostNetwork;
use crate::overlay::PreparedDisk;

/// A VMM reads no larger request (v53), and then loses its place in the connection.
const BODY_LIMIT_BYTES: usize = 50 << 10;

/// Refuses a specification that makes no VM.
pub(crate) fn check(network: &HostNetwork, spec: &LaunchSpec) -> Result<(), LaunchError> {
    let id = || spec.id.clone();
    let refuse = |why| Err(LaunchError::Spec { id: id(), why });
    if spec.vcpus == 0 {
        return refuse("it has no processor");
    }
    if spec.memory_bytes < 1 << 20 {
        return refuse("it has less than 1 MiB of memory");
    }
    if let Some(why) = disks::problem(spec).or_else(|| smbios_problem(spec.smbios.as_ref()?)) {
        return refuse(why);
    }
    if let Some(seed) = &spec.seed {
        crate::seed::check(seed)
            .map_err(|source| LaunchError::Disk { id: id(), source: DiskError::Seed(source) })?;
    }
    if body(network, spec, planned_root(spec).as_ref(), true)?.to_string().len() > BODY_LIMIT_BYTES {
        return refuse(
            "its description has more than 50 KiB, which a VMM does not take: a shorter command line, fewer disks",
        );
    }
    Ok(())
}

fn smbios_problem(smbios: &Smbios) -> Option<&'static str> {
    let hyphens = [8, 13, 18, 23];
    let uuid =
        smbios.uuid.len() == 36
            && smbios.uuid.bytes().enumerate().all(|(at, byte)| {
                if hyphens.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
            });
    if !uuid {
        Some("its SMBIOS UUID is none")
    } else if smbios.serial.is_empty() || smbios.serial.contains(char::is_control) {
        Some("its SMBIOS serial number is empty or has control characters")
    } else {
        None
    }
}

/// The body of `vm.create`.
pub(crate) fn body(
    network: &HostNetwork,
    spec: &LaunchSpec,
    root: Option<&PreparedDisk>,
    landlock: bool,
) -> Result<Value, LaunchError> {
    let net = network.device(&spec.network).map(|(tap, mac)| NetConfig {
        id: "net0".to_owned(),
        tap: tap.to_owned(),
        mac: mac.to_owned(),
    });
    serde_json::to_value(vm_config(spec, root, net, &spec.dir.serial_log(), landlock))
        .map_err(|_| LaunchError::Spec { id: spec.id.clone(), why: "a path in it is not valid UTF-8" })
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
