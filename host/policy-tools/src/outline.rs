//! What the headers of a module say, whether or not it can be loaded.

use serde::Serialize;

const PACKAGE: &str = "regatta:policy/";

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
    let (found, _) = regatta_policy_host::outline(bytes);
    let by_name = || found.exports.iter().find_map(|export| version_of(export)).map(str::to_owned);
    Outline {
        kind: match found.component {
            None => ModuleKind::NotWasm,
            Some(true) => ModuleKind::Component,
            Some(false) => ModuleKind::CoreModule,
        },
        contract: found.versions.last().cloned().or_else(by_name),
        imports: found
            .imports
            .into_iter()
            .map(|(module, name)| if module.is_empty() { name } else { format!("{module} {name}") })
            .collect(),
        exports: found.exports,
    }
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
