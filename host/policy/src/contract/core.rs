//! Core modules: which door they want, and whether they fit through it.

use super::outline::Outline;
use super::{canonical, compatible, functions, interface, missing};
use crate::door::json::{EXPORTS, IMPORTS, MODULE};
use crate::error::LoadError;
use crate::load::{Abi, Prepared};
use crate::wasi;

/// Checks a core module and readies it for its door.
pub(super) fn prepare(bytes: &[u8], outline: &Outline) -> Result<Prepared, LoadError> {
    let imports = outline.imports.iter().map(|(module, name)| format!("{module} {name}")).collect();
    let canonical = outline.component_type
        || outline.exports.iter().any(|export| canonical_export(export).is_some())
        || outline.imports.iter().any(|(module, _)| interface(module).is_some());
    if canonical {
        check_canonical(outline)?;
        let component = canonical::component(bytes, outline)?;
        super::component::check(&component, super::component::Made::ByTheHost)?;
        return Ok(Prepared { abi: Abi::CoreCanonical, bytes: component, imports });
    }
    check_imports(outline, |module, name| match module {
        MODULE => IMPORTS.contains(&name),
        _ => wasi::preview1::is(module, name),
    })?;
    if !outline.exports.iter().any(|export| export.starts_with("regatta_")) {
        return Err(LoadError::NoComponentType);
    }
    let missing = EXPORTS.iter().filter(|name| !outline.exports.iter().any(|export| export == *name));
    let missing: Vec<String> = missing.map(|name| format!("`{name}`")).collect();
    if !missing.is_empty() {
        return Err(LoadError::Exports { missing });
    }
    Ok(Prepared { abi: Abi::CoreJson, bytes: bytes.to_vec(), imports })
}

/// Splits `regatta:policy/scaling@0.1.0#decide` into interface, version and function.
pub(super) fn canonical_export(export: &str) -> Option<(&str, &str, &str)> {
    let (name, function) = export.split_once('#')?;
    let (interface, version) = interface(name)?;
    Some((interface, version, function))
}

fn check_imports(outline: &Outline, allowed: impl Fn(&str, &str) -> bool) -> Result<(), LoadError> {
    let outside = outline.imports.iter().filter(|(module, name)| !allowed(module, name));
    let imports: Vec<String> = outside.map(|(module, name)| format!("`{module}` `{name}`")).collect();
    if imports.is_empty() { Ok(()) } else { Err(LoadError::Imports { imports }) }
}

fn check_canonical(outline: &Outline) -> Result<(), LoadError> {
    check_imports(outline, |module, name| {
        let known = interface(module).is_some_and(|(interface, version)| {
            compatible(version) && functions(interface).is_some_and(|functions| functions.contains(&name))
        });
        known || wasi::preview1::is(module, name)
    })?;
    let exported = |function: &str| {
        outline.exports.iter().filter_map(|export| canonical_export(export)).any(
            |(interface, version, name)| interface == "scaling" && compatible(version) && name == function,
        )
    };
    missing(exported)
}
