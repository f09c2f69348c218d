//! Components: their imports and exports.

use wasmparser::component_types::{ComponentEntityType, ComponentInstanceTypeId};
use wasmparser::{Validator, WasmFeatures};

use super::{compatible, functions, interface, missing, outline};
use crate::error::LoadError;
use crate::wasi;

/// Who made a component: what the host's own adapter imports is nobody else's to import.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Elsewhere,
    ByTheHost,
}

/// Validates it and returns the names of its imports.
pub(super) fn check(bytes: &[u8], made: Made) -> Result<Vec<String>, LoadError> {
    let types = Validator::new_with_features(WasmFeatures::default())
        .validate_all(bytes)
        .map_err(|error| LoadError::Malformed(error.into()))?;
    let types = types.as_ref();
    let exports_of = |id: ComponentInstanceTypeId| types[id].exports.iter();
    let (outline, read) = outline(bytes);
    read?;
    let imports: Vec<String> = outline.imports.into_iter().map(|(_, name)| name).collect();

    let mut outside = Vec::new();
    for name in &imports {
        if wasi::preview2::is(name) || (made == Made::ByTheHost && name == wasi::adapter::INTERFACE) {
            continue;
        }
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
    let is_scaling = |name: &&String| {
        interface(name).is_some_and(|(name, version)| name == "scaling" && compatible(version))
    };
    let scaling = outline.exports.iter().rfind(is_scaling);
    let scaling = scaling.and_then(|name| types.component_item_for_export(name)).map(|item| item.ty);
    missing(|function| match scaling {
        Some(ComponentEntityType::Instance(id)) => exports_of(id).any(|(name, _)| name == function),
        _ => false,
    })?;
    Ok(imports)
}
