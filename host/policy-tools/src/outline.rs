//! What the headers of a module say, whether or not it can be loaded.

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

const PACKAGE: &str = "regatta:policy/";
const VERSION_SECTION: &str = "regatta-contract";

/// What kind of binary a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleKind {
    /// A component.
    Component,
    /// A core module.
    CoreModule,
    /// No WebAssembly.
    NotWasm,
}

impl ModuleKind {
    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::CoreModule => "core module",
            Self::NotWasm => "not WebAssembly",
        }
    }
}

/// What the headers of a module say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// What kind of binary it is.
    pub kind: ModuleKind,
    /// Version of the contract that it was made for: what its custom section `regatta-contract` says, else
    /// what the names of its exports say; none when neither does.
    pub contract: Option<String>,
    /// What it imports: interfaces of a component, `module name` of a core module.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// Reads the headers. A module that breaks off, or is broken, gives what was read until there.
#[must_use]
pub fn outline(bytes: &[u8]) -> Outline {
    let mut outline =
        Outline { kind: ModuleKind::NotWasm, contract: None, imports: Vec::new(), exports: Vec::new() };
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(payload) = payload else { break };
        match payload {
            Payload::Version { encoding, .. } => {
                if depth == 0 {
                    outline.kind = match encoding {
                        Encoding::Component => ModuleKind::Component,
                        Encoding::Module => ModuleKind::CoreModule,
                    };
                }
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == VERSION_SECTION => {
                outline.contract = Some(String::from_utf8_lossy(section.data()).trim().to_owned());
            }
            Payload::ImportSection(section) if depth == 1 => {
                let imports = section.into_imports().flatten();
                outline.imports.extend(imports.map(|import| format!("{} {}", import.module, import.name)));
            }
            Payload::ExportSection(section) if depth == 1 => {
                outline.exports.extend(section.into_iter().flatten().map(|export| export.name.to_owned()));
            }
            Payload::ComponentImportSection(section) if depth == 1 => {
                outline
                    .imports
                    .extend(section.into_iter().flatten().map(|import| import.name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                outline
                    .exports
                    .extend(section.into_iter().flatten().map(|export| export.name.name.to_owned()));
            }
            _ => {}
        }
    }
    if outline.contract.is_none() {
        outline.contract = outline.exports.iter().find_map(|export| version_of(export)).map(str::to_owned);
    }
    outline
}

/// The version in `regatta:policy/scaling@0.1.1` or `regatta:policy/scaling@0.1.1#decide`.
fn version_of(export: &str) -> Option<&str> {
    let (interface, rest) = export.strip_prefix(PACKAGE)?.split_once('@')?;
    (interface == "scaling").then(|| rest.split_once('#').map_or(rest, |(version, _)| version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_module_is_outlined_by_its_sections() {
        let bytes = wat::parse_str(
            r#"(module (import "regatta" "log" (func (param i32 i32 i32))) (func $d (result i64) i64.const 0)
                (memory (export "memory") 1) (export "regatta_describe" (func $d))
                (@custom "regatta-contract" " 0.1.1\n"))"#,
        )
        .expect("wat");
        let found = outline(&bytes);
        assert_eq!(found.kind, ModuleKind::CoreModule);
        assert_eq!(found.contract.as_deref(), Some("0.1.1"));
        assert_eq!(found.imports, ["regatta log"]);
        assert_eq!(found.exports, ["memory", "regatta_describe"]);
    }

    #[test]
    fn a_component_is_outlined_without_what_is_inside() {
        let bytes = wat::parse_str(
            r#"(component (import "regatta:policy/log@0.1.1" (instance $log))
                (core module (import "a" "b" (func)) (func (export "inner")))
                (instance $scaling) (export "regatta:policy/scaling@0.1.0" (instance $scaling)))"#,
        )
        .expect("wat");
        let found = outline(&bytes);
        assert_eq!(found.kind, ModuleKind::Component);
        assert_eq!(found.contract.as_deref(), Some("0.1.0"), "by the export's name");
        assert_eq!(found.imports, ["regatta:policy/log@0.1.1"]);
        assert_eq!(found.exports, ["regatta:policy/scaling@0.1.0"]);
    }

    #[test]
    fn what_is_broken_is_outlined_as_far_as_it_goes() {
        assert_eq!(outline(b"#!/bin/sh").kind, ModuleKind::NotWasm);
        assert_eq!(outline(b"").kind, ModuleKind::NotWasm);
        let mut bytes = wat::parse_str(r#"(module (import "env" "now" (func)) (func nop))"#).expect("wat");
        bytes.truncate(bytes.len() - 2);
        let found = outline(&bytes);
        assert_eq!((found.kind, found.imports), (ModuleKind::CoreModule, vec!["env now".to_owned()]));
    }
}
