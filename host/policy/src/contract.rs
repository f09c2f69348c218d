//! What is checked of a module before it is compiled.

use wasmparser::component_types::{ComponentEntityType, ComponentInstanceTypeId};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};
use wit_component::ComponentEncoder;

use crate::error::LoadError;
use crate::load::{Abi, Prepared};

/// The version of the contract that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";

const PACKAGE: &str = "regatta:policy/";
const VERSION_SECTION: &str = "regatta-contract";
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

/// What the headers of a module say.
#[derive(Default)]
struct Outline {
    component: bool,
    versions: Vec<String>,
    component_type: bool,
    /// Of the outermost module or component: (module or interface, name).
    imports: Vec<(String, String)>,
    exports: Vec<String>,
}

/// Checks `bytes` and makes a component of them.
pub(crate) fn prepare(bytes: &[u8]) -> Result<Prepared, LoadError> {
    let outline = outline(bytes)?;
    for found in &outline.versions {
        if !compatible(found) {
            return Err(LoadError::ContractVersion { found: found.clone(), supported: CONTRACT_VERSION });
        }
    }
    if outline.component {
        let imports = check_component(bytes)?;
        return Ok(Prepared { abi: Abi::Component, bytes: bytes.to_vec(), imports });
    }
    check_core(&outline)?;
    let encode = || ComponentEncoder::default().validate(true).module(bytes)?.encode();
    let component = encode().map_err(|error| LoadError::Componentize(error.into()))?;
    check_component(&component)?;
    let imports = outline.imports.iter().map(|(module, name)| format!("{module} {name}")).collect();
    Ok(Prepared { abi: Abi::CoreCanonical, bytes: component, imports })
}

fn outline(bytes: &[u8]) -> Result<Outline, LoadError> {
    let malformed = |error: wasmparser::BinaryReaderError| LoadError::Malformed(error.into());
    let mut outline = Outline::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 {
                    outline.component = encoding == Encoding::Component;
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            // A component keeps the sections of the core module inside it.
            Payload::CustomSection(section) if section.name() == VERSION_SECTION => {
                outline.versions.push(String::from_utf8_lossy(section.data()).trim().to_owned());
            }
            Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                outline.component_type = true;
            }
            Payload::ImportSection(imports) if depth == 1 => {
                for import in imports.into_imports() {
                    let import = import.map_err(malformed)?;
                    outline.imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ExportSection(exports) if depth == 1 => {
                for export in exports {
                    outline.exports.push(export.map_err(malformed)?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(outline)
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

fn check_core(outline: &Outline) -> Result<(), LoadError> {
    let allowed = |module: &str, name: &str| {
        interface(module).is_some_and(|(interface, version)| {
            compatible(version) && functions(interface).is_some_and(|functions| functions.contains(&name))
        })
    };
    let outside = outline.imports.iter().filter(|(module, name)| !allowed(module, name));
    let imports: Vec<String> = outside.map(|(module, name)| format!("`{module}` `{name}`")).collect();
    if !imports.is_empty() {
        return Err(LoadError::Imports { imports });
    }
    if !outline.component_type {
        return Err(LoadError::NoComponentType);
    }
    let exported = |function: &str| {
        outline.exports.iter().any(|export| {
            export.split_once('#').is_some_and(|(interface_name, name)| {
                name == function
                    && interface(interface_name)
                        .is_some_and(|(name, version)| name == "scaling" && compatible(version))
            })
        })
    };
    missing(|function| exported(function))
}

fn missing(exported: impl Fn(&str) -> bool) -> Result<(), LoadError> {
    let missing: Vec<String> = EXPORTS
        .iter()
        .filter(|function| !exported(function))
        .map(|function| format!("`{function}` of `{PACKAGE}scaling@{CONTRACT_VERSION}`"))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(LoadError::Exports { missing }) }
}

/// Returns the names of its imports.
fn check_component(bytes: &[u8]) -> Result<Vec<String>, LoadError> {
    let malformed = |error: wasmparser::BinaryReaderError| LoadError::Malformed(error.into());
    let types =
        Validator::new_with_features(WasmFeatures::default()).validate_all(bytes).map_err(malformed)?;
    let types = types.as_ref();
    let exports_of = |id: ComponentInstanceTypeId| types[id].exports.iter();

    let (mut imports, mut scaling) = (Vec::new(), None);
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import.map_err(malformed)?.name.name);
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let name = export.map_err(malformed)?.name.name;
                    if interface(name).is_some_and(|(name, version)| name == "scaling" && compatible(version))
                    {
                        scaling = Some(name);
                    }
                }
            }
            _ => {}
        }
    }

    let mut outside = Vec::new();
    for &name in &imports {
        let known = interface(name).filter(|(_, version)| compatible(version));
        let Some(allowed) = known.and_then(|(name, _)| functions(name)) else {
            outside.push(format!("`{name}`"));
            continue;
        };
        let Some(ComponentEntityType::Instance(id)) =
            types.component_item_for_import(name).map(|item| item.ty)
        else {
            outside.push(format!("`{name}`"));
            continue;
        };
        for (function, item) in exports_of(id) {
            if matches!(item.ty, ComponentEntityType::Func(_)) && !allowed.contains(&function.as_str()) {
                outside.push(format!("`{name}` `{function}`"));
            }
        }
    }
    if !outside.is_empty() {
        return Err(LoadError::Imports { imports: outside });
    }
    let scaling = scaling.and_then(|name| types.component_item_for_export(name)).map(|item| item.ty);
    missing(|function| match scaling {
        Some(ComponentEntityType::Instance(id)) => exports_of(id).any(|(name, _)| name == function),
        _ => false,
    })?;
    Ok(imports.into_iter().map(str::to_owned).collect())
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
            r#"(module (import "env" "now" (func)) (import "wasi_snapshot_preview1" "fd_write" (func))
                (import "regatta:policy/observe@0.1.0" "steal" (func)) (import "regatta:policy/log@0.1.0" "log" (func)))"#,
        )
        .unwrap();
        let Err(LoadError::Imports { imports }) = prepare(&bytes) else {
            panic!("not refused for its imports")
        };
        assert_eq!(
            imports,
            ["`env` `now`", "`wasi_snapshot_preview1` `fd_write`", "`regatta:policy/observe@0.1.0` `steal`"]
        );
        let bytes = wat::parse_str(
            r#"(component (import "wasi:clocks/wall-clock@0.2.0" (instance))
                (import "regatta:policy/log@0.2.0" (instance))
                (import "regatta:policy/log@0.1.3" (instance (export "steal" (func)))))"#,
        )
        .unwrap();
        let Err(LoadError::Imports { imports }) = prepare(&bytes) else {
            panic!("not refused for its imports")
        };
        assert_eq!(
            imports,
            [
                "`wasi:clocks/wall-clock@0.2.0`",
                "`regatta:policy/log@0.2.0`",
                "`regatta:policy/log@0.1.3` `steal`"
            ]
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
