//! What `build.rs` put into the program.

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// The SDK's manifest, which inherits nothing.
pub(super) static SDK_MANIFEST: &str = include_str!(concat!(env!("OUT_DIR"), "/sdk-Cargo.toml"));
