//! A core module whose exports have the canonical names becomes a component.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::CONTRACT_VERSION;
use super::core::canonical_export;
use super::outline::Outline;
use crate::error::LoadError;
use crate::wasi;

/// The contract as this host speaks it.
const CONTRACT: &str = include_str!("../../../../sdk/wit/v0.1.1/policy.wit");

/// Makes a component of a checked core module. One that does not say what its functions mean has the names of
/// the contract, so they mean what the contract says.
pub(super) fn component(bytes: &[u8], outline: &Outline) -> Result<Vec<u8>, LoadError> {
    let embedded;
    let mut module = bytes;
    if !outline.component_type {
        embedded = embed(bytes, outline).map_err(LoadError::Componentize)?;
        module = &embedded;
    }
    encode(module, outline).map_err(LoadError::Componentize)
}

type Error = Box<dyn std::error::Error + Send + Sync>;

fn encode(module: &[u8], outline: &Outline) -> Result<Vec<u8>, Error> {
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true).module(module)?;
    if outline.imports.iter().any(|(module, name)| wasi::preview1::is(module, name)) {
        encoder.adapter(wasi::preview1::MODULE, &wasi::adapter::module()?)?;
    }
    Ok(encoder.encode()?)
}

/// The module with the component type of the contract, in the version that its exports name.
fn embed(bytes: &[u8], outline: &Outline) -> Result<Vec<u8>, Error> {
    let exports = || outline.exports.iter().filter_map(|export| canonical_export(export));
    let version = exports().next().map_or(CONTRACT_VERSION, |(_, version, _)| version);
    // The records are the same in all versions that fit.
    let wit = CONTRACT.replacen(CONTRACT_VERSION, version, 1);
    let migrates = exports().any(|(interface, ..)| interface == "migration");
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", &wit)?;
    let world = if migrates { "migrating-policy" } else { "policy" };
    let world = resolve.select_world(&[package], Some(world))?;
    let mut module = bytes.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}
