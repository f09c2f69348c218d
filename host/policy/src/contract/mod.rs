//! What is checked of a module before it is compiled.

mod canonical;
mod component;
mod core;
mod outline;

pub use outline::{Outline, outline};

use crate::error::LoadError;
use crate::load::{Abi, Prepared};

/// The version of the contract that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.1";

const PACKAGE: &str = "regatta:policy/";
const EXPORTS: [&str; 3] = ["describe", "validate", "decide"];

/// What a policy may import from an interface of the contract.
fn functions(interface: &str) -> Option<&'static [&'static str]> {
    match interface {
        "observe" => Some(&["instances", "metric", "window"]),
        "log" => Some(&["log"]),
        "types" => Some(&[]),
        _ => None,
    }
}

/// Checks `bytes` and readies them for the door that they want.
pub(crate) fn prepare(bytes: &[u8]) -> Result<Prepared, LoadError> {
    let (outline, read) = outline(bytes);
    read?;
    for found in &outline.versions {
        if !compatible(found) {
            return Err(LoadError::ContractVersion { found: found.clone(), supported: CONTRACT_VERSION });
        }
    }
    if outline.component == Some(true) {
        let imports = component::check(bytes, component::Made::Elsewhere)?;
        return Ok(Prepared { abi: Abi::Component, bytes: bytes.to_vec(), imports });
    }
    core::prepare(bytes, &outline)
}

/// Whether a module of that contract version runs here: 0.1.x with any 0.1.y.
fn compatible(version: &str) -> bool {
    let ours = semver::Version::parse(CONTRACT_VERSION);
    match (semver::Version::parse(version), ours) {
        (Ok(theirs), Ok(ours)) => {
            (theirs.major, theirs.minor) == (ours.major, ours.minor) && theirs.pre == ours.pre
        }
        _ => false,
    }
}

/// Splits `regatta:policy/observe@0.1.3` into the interface and its version.
fn interface(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn missing(exported: impl Fn(&str) -> bool) -> Result<(), LoadError> {
    let missing: Vec<String> = EXPORTS
        .iter()
        .filter(|function| !exported(function))
        .map(|function| format!("`{function}` of `{PACKAGE}scaling@{CONTRACT_VERSION}`"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Exports { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_versions_fit_and_minor_versions_do_not() {
        for (version, fits) in [
            ("0.1.0", true),
            ("0.1.7", true),
            ("0.2.0", false),
            ("1.1.0", false),
            ("0.1.0-rc1", false),
            ("x", false),
        ] {
            assert_eq!(compatible(version), fits, "{version}");
        }
    }

    #[test]
    fn garbage_is_malformed() {
        for bytes in [&b""[..], b"\0asm", b"hello world", b"\0asm\x01\0\0\0\xff\xff\xff"] {
            assert!(matches!(prepare(bytes), Err(LoadError::Malformed(_))), "{bytes:?}");
        }
    }

    #[test]
    fn every_import_outside_is_named_at_once() {
        let bytes = wat::parse_str(
            r#"(module (import "env" "now" (func)) (import "wasi_snapshot_preview1" "fd_fly" (func))
                (import "regatta:policy/observe@0.1.0" "steal" (func)) (import "regatta:policy/log@0.1.0" "log" (func)))"#,
        )
        .unwrap();
        let Err(LoadError::Imports { imports }) = prepare(&bytes) else {
            panic!("not refused for its imports")
        };
        assert_eq!(
            imports,
            ["`env` `now`", "`wasi_snapshot_preview1` `fd_fly`", "`regatta:policy/observe@0.1.0` `steal`"]
        );
        let bytes = wat::parse_str(
            r#"(component (import "wasi:http/types@0.2.0" (instance))
                (import "regatta:policy/log@0.2.0" (instance))
                (import "regatta:policy/log@0.1.3" (instance (export "steal" (func)))))"#,
        )
        .unwrap();
        let Err(LoadError::Imports { imports }) = prepare(&bytes) else {
            panic!("not refused for its imports")
        };
        assert_eq!(
            imports,
            ["`wasi:http/types@0.2.0`", "`regatta:policy/log@0.2.0`", "`regatta:policy/log@0.1.3` `steal`"]
        );
    }

    #[test]
    fn another_contract_version_is_refused_by_its_section() {
        let bytes = wat::parse_str(r#"(module (@custom "regatta-contract" "0.2.0"))"#).unwrap();
        assert!(matches!(prepare(&bytes), Err(LoadError::ContractVersion { found, .. }) if found == "0.2.0"));
    }

    #[test]
    fn missing_exports_are_named_at_once() {
        let bytes = wat::parse_str("(component)").unwrap();
        let Err(LoadError::Exports { missing }) = prepare(&bytes) else {
            panic!("not refused for its exports")
        };
        assert_eq!(missing.len(), 3, "{missing:?}");
        let bytes = wat::parse_str("(module)").unwrap();
        assert!(matches!(prepare(&bytes), Err(LoadError::NoComponentType)));
    }
}
