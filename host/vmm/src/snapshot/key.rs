//! What tells one snapshot from another: everything that shaped the guest, so that a restored one is as if it had booted.

use std::fmt;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::image::Digest;
use crate::instance::{LaunchError, LaunchSpec, VmmHost, body};

/// Digest of all that a snapshot's guest was made of: machine, boot source, disks, network as the guest sees it, seed, VMM and processor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotKey(String);

/// Two sets have few snapshots each: 128 bits are plenty.
const KEY_HEX_DIGITS: usize = 32;

impl SnapshotKey {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == KEY_HEX_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Self(text.to_owned()))
    }

    fn of(parts: &Value) -> Self {
        let mut hex = Digest::of(parts.to_string().as_bytes()).hex();
        hex.truncate(KEY_HEX_DIGITS);
        Self(hex)
    }
}

impl fmt::Display for SnapshotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl VmmHost {
    /// The key of the snapshot that an instance with this specification becomes. What differs between instances of a set (name, address
    /// on the host) must be the same whenever it is asked for.
    ///
    /// # Errors
    /// A path in it is not valid UTF-8.
    pub fn snapshot_key(&self, spec: &LaunchSpec) -> Result<SnapshotKey, LaunchError> {
        let root = spec.root.as_ref().map(|root| {
            json!([root.image.digest().to_string(), format!("{:?}", root.overlay), root.size_bytes])
        });
        let seed = spec.seed.as_ref().map(|s| json!([s.meta_data, s.user_data, s.network_config]));
        Ok(SnapshotKey::of(&json!({
            "machine": body(&self.network, spec, None, false)?,
            "root": root,
            "seed": seed,
            "network": format!("{:?}", spec.network),
            "vmm": self.binary.version(),
            "cpu": this_cpu(),
        })))
    }
}

/// The processor of this host. Read once: with many processors that takes its time, and none changes while we run.
fn this_cpu() -> &'static [String] {
    static CPU: OnceLock<Vec<String>> = OnceLock::new();
    CPU.get_or_init(|| {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        cpu_identity(&cpuinfo).into_iter().map(str::to_owned).collect()
    })
}

/// Model and features of the first processor: a guest must not be restored onto one that has others.
fn cpu_identity(cpuinfo: &str) -> Vec<&str> {
    const KEYS: [&str; 6] = ["vendor_id", "cpu family", "model", "model name", "stepping", "flags"];
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    first.lines().filter(|line| line.split(':').next().is_some_and(|k| KEYS.contains(&k.trim()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_known_by_what_does_not_change_from_one_look_to_the_next() {
        let at = |mhz: &str, flags: &str| {
            format!(
                "processor\t: 0\nvendor_id\t: X\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Y\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: z\n"
            )
        };
        assert_eq!(cpu_identity(&at("1", "a b")), cpu_identity(&at("2", "a b")));
        assert_ne!(cpu_identity(&at("1", "a b")), cpu_identity(&at("1", "a")));
        assert_eq!(cpu_identity(&at("1", "a b")).len(), 5, "of the first processor only");
    }

    #[test]
    fn a_key_is_a_plain_name_and_reads_back() {
        let key = SnapshotKey::of(&json!({"a": 1}));
        assert_eq!(SnapshotKey::parse(&key.to_string()), Some(key.clone()));
        assert_ne!(SnapshotKey::of(&json!({"a": 2})), key);
        for other in ["", ".making-0123456789abcdef0123456789", "../../../../etc/passwd/../../../.."] {
            assert_eq!(SnapshotKey::parse(other), None);
        }
    }
}
