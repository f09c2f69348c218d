//! What wit-bindgen makes of `wit/v0.1.0`. On targets other than wasm32 the
//! types are the same and the imports cannot be called.

#![allow(clippy::all, reason = "the code is generated")]

wit_bindgen::generate!({
    path: "wit/v0.1.0",
    world: "policy",
    pub_export_macro: true,
    export_macro_name: "__export_world",
    additional_derives: [PartialEq],
});
