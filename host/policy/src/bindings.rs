//! What wasmtime makes of the contract.

#![allow(clippy::all, missing_docs, unreachable_pub, reason = "the code is generated")]

wasmtime::component::bindgen!({
    path: "../../sdk/wit/v0.1.1",
    world: "policy",
    additional_derives: [serde::Deserialize, serde::Serialize],
});
