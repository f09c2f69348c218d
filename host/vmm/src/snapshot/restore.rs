//! From a snapshot to a running VM: the VMM is pointed at a directory of links to the snapshot's files and a `config.json` that names the
//! instance's own disks, tap and console.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{CONFIG, CONFIG_BYTES_MAX, GoldenSnapshot, MEMORY, STATE};
use crate::api::VmmClient;
use crate::api::config::lost_fields;
use crate::api::response::VmState;
use crate::guarded::{Access, GuardedDir, read_all};
use crate::instance::{InstanceDir, LaunchError};
use crate::overlay::OverlayKind;

/// A snapshot's configuration with everything of `own`, the description of the instance as a boot would have it, in its place. Lists
/// of devices are matched by id, as the VMM matches their state.
///
/// # Errors
/// In words, what the instance has otherwise than the snapshot's guest.
fn edited(mut snapshot: Value, own: &Value) -> Result<Value, String> {
    for machine in ["cpus", "memory"] {
        let lost = lost_fields(&own[machine], &snapshot[machine]);
        if !lost.is_empty() {
            return Err(format!("it has other {machine} ({})", lost.join(", ")));
        }
    }
    let fields = snapshot.as_object_mut().ok_or("its configuration is not an object")?;
    // Ours, or none at all.
    fields.remove("landlock_enable");
    fields.remove("landlock_rules");
    for list in ["disks", "net"] {
        let (had, has) = (ids(fields.get(list)), ids(own.get(list)));
        if had != has {
            return Err(format!("it has other {list}: {}, not {}", had.join(" "), has.join(" ")));
        }
    }
    // The template's tap: forced on another, two links would have one address.
    for net in fields.get_mut("net").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(net) = net.as_object_mut() {
            net.remove("host_mac");
        }
    }
    overlay(&mut snapshot, own);
    Ok(snapshot)
}

fn ids(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(|device| device["id"].as_str()).collect()
}

/// Lays `own` over `under`; where both are lists of the same length, element by element.
fn overlay(under: &mut Value, own: &Value) {
    match (under, own) {
        (Value::Object(under), Value::Object(own)) => {
            for (key, value) in own {
                overlay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(under), Value::Array(own)) if under.len() == own.len() => {
            under.iter_mut().zip(own).for_each(|(under, own)| overlay(under, own));
        }
        (under, own) => *under = own.clone(),
    }
}

/// What an instance needs of a snapshot in its own directory, for a blocking thread.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    snapshot: GoldenSnapshot,
    dir: InstanceDir,
    base: Option<PathBuf>,
}

impl Links {
    pub(crate) fn new(snapshot: &GoldenSnapshot, dir: &InstanceDir, overlay: Option<OverlayKind>) -> Self {
        // A copy is made of the disk; an overlay needs it as long as the instance lives.
        let base = snapshot.root().filter(|_| overlay == Some(OverlayKind::Qcow2));
        let base = base.map(|(_, root)| dir.base(root.format));
        Self { snapshot: snapshot.clone(), dir: dir.clone(), base }
    }

    /// Makes them. Only the instance's VMM can get to them; the files themselves stay as they are.
    pub(crate) fn make(&self) -> io::Result<()> {
        let to = self.dir.restore();
        fs::DirBuilder::new().mode(0o700).create(&to)?;
        for name in [STATE, MEMORY] {
            fs::hard_link(self.snapshot.path.join(name), to.join(name))?;
        }
        if let (Some(base), Some((root, _))) = (&self.base, self.snapshot.root()) {
            fs::hard_link(root, base)?;
        }
        Ok(())
    }
}

/// Removes the links that only the restore itself needs. The VMM has open what it still reads.
pub(crate) fn remove_links(dir: &InstanceDir) -> io::Result<()> {
    fs::remove_dir_all(dir.restore())
}

/// A restore that is about to be asked for.
pub(crate) struct Restore<'a> {
    pub(crate) id: &'a str,
    pub(crate) dir: &'a InstanceDir,
    pub(crate) snapshot: &'a GoldenSnapshot,
    /// The instance as a boot would have it.
    pub(crate) description: &'a Value,
    /// Group of the VMM, if it has its own.
    pub(crate) gid: Option<u32>,
    /// The host lets the VMM fault the memory in.
    pub(crate) on_demand: bool,
    pub(crate) within: Duration,
}

/// Has a VMM without a VM restore one, and lets it run. Returns whether its memory is read on demand.
///
/// # Errors
/// The snapshot does not fit, the VMM refused, or runs something else than it should.
pub(crate) async fn restore(client: &VmmClient, what: &Restore<'_>) -> Result<bool, LaunchError> {
    let id = || what.id.to_owned();
    let snapshot_error = |why: String| LaunchError::Snapshot { id: id(), why };
    write_config(what).map_err(snapshot_error)?;
    let failed = |source| LaunchError::Api { id: id(), source };
    let source = what.dir.restore();
    let mut on_demand = what.on_demand;
    loop {
        match client.restore(&source, on_demand, what.within).await {
            Ok(()) => break,
            // A VMM does not fall back by itself, and can be asked again.
            Err(error) if on_demand && error.chain.iter().any(|said| said.contains("userfaultfd")) => {
                tracing::info!(instance = what.id, %error, "memory is not restored on demand but copied");
                on_demand = false;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let info = client.info().await.map_err(failed)?;
    let lost = lost_fields(what.description, &info.config);
    if !lost.is_empty() {
        return Err(LaunchError::NotKept { id: id(), fields: lost });
    }
    match info.vm_state() {
        VmState::Running => Ok(on_demand),
        other => Err(snapshot_error(format!("its VM is {other:?} after the restore"))),
    }
}

fn write_config(what: &Restore<'_>) -> Result<(), String> {
    let from = what.snapshot.path.join(CONFIG);
    let unreadable = |why: String| format!("{} cannot be read: {why}", from.display());
    let read = GuardedDir::open(&what.snapshot.path)
        .and_then(|dir| dir.file(CONFIG, Access::Read))
        .and_then(|file| read_all(file, CONFIG_BYTES_MAX));
    let bytes = read.map_err(|error| unreadable(error.to_string()))?;
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let config = edited(config, what.description)?;
    let to = what.dir.restore().join(CONFIG);
    write_for(&what.dir.restore(), &config.to_string(), what.gid)
        .map_err(|error| format!("{} cannot be written: {error}", to.display()))
}

/// Writes the configuration so that the VMM's group can read it.
fn write_for(dir: &Path, text: &str, gid: Option<u32>) -> io::Result<()> {
    let mut file = GuardedDir::open(dir)?.create(CONFIG)?;
    file.write_all(text.as_bytes())?;
    if let Some(gid) = gid {
        rustix::fs::fchown(&file, None, Some(rustix::fs::Gid::from_raw(gid)))?;
    }
    file.set_permissions(fs::Permissions::from_mode(0o440))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_template() -> Value {
        json!({
            "cpus": {"boot_vcpus": 1, "max_vcpus": 1, "nested": true},
            "memory": {"size": 64, "thp": true},
            "payload": {"kernel": "/k", "cmdline": "ip=a:template"},
            "disks": [{"id": "root", "path": "/t/root", "num_queues": 1}, {"id": "seed", "path": "/t/seed"}],
            "net": [{"id": "net0", "tap": "tap9", "mac": "52:54:00:00:00:01", "host_mac": "0a:00:00:00:00:09"}],
            "serial": {"mode": "File", "file": "/t/serial", "iommu": false},
            "landlock_enable": true,
            "landlock_rules": [{"path": "/t/snapshot", "access": "rw"}, {"path": "/t/more", "access": "r"}],
        })
    }

    fn own() -> Value {
        json!({
            "cpus": {"boot_vcpus": 1, "max_vcpus": 1},
            "memory": {"size": 64},
            "payload": {"kernel": "/k", "cmdline": "ip=a:web-7"},
            "disks": [{"id": "root", "path": "/7/root"}, {"id": "seed", "path": "/7/seed"}],
            "net": [{"id": "net0", "tap": "tap7", "mac": "52:54:00:00:00:01"}],
            "serial": {"mode": "File", "file": "/7/serial"},
        })
    }

    #[test]
    fn a_clone_has_its_own_files_and_all_else_of_the_template() {
        let edited = edited(of_template(), &own()).expect("fits");
        assert_eq!(lost_fields(&own(), &edited), Vec::<String>::new());
        assert_eq!(edited["disks"][0], json!({"id": "root", "path": "/7/root", "num_queues": 1}));
        assert_eq!(edited["net"][0], json!({"id": "net0", "tap": "tap7", "mac": "52:54:00:00:00:01"}));
        assert_eq!(edited["cpus"]["nested"], true);
        assert_eq!((&edited["landlock_enable"], &edited["landlock_rules"]), (&Value::Null, &Value::Null));
        assert!(!edited.to_string().contains("/t/"), "{edited}");

        let mut contained = own();
        contained["landlock_enable"] = true.into();
        contained["landlock_rules"] = json!([{"path": "/7/base", "access": "r"}]);
        let edited = super::edited(of_template(), &contained).expect("fits");
        assert_eq!(edited["landlock_rules"], contained["landlock_rules"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused = |pointer: &str, value: Value| {
            let mut own = own();
            *own.pointer_mut(pointer).expect("there") = value;
            edited(of_template(), &own).expect_err("does not fit")
        };
        assert_eq!(refused("/memory/size", 65.into()), "it has other memory (size)");
        assert_eq!(refused("/cpus/boot_vcpus", 2.into()), "it has other cpus (boot_vcpus)");
        assert_eq!(refused("/disks/1/id", "db".into()), "it has other disks: root seed, not root db");
        assert_eq!(refused("/net", json!([])), "it has other net: net0, not ");
        edited(Value::Null, &json!({})).expect_err("no object");
    }
}
