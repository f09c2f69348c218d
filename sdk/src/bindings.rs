//! What wit-bindgen makes of `wit/v0.1.1`. On targets other than wasm32 the
//! types are the same and the imports cannot be called.

#![allow(clippy::all, missing_docs, reason = "the code is generated")]

wit_bindgen::generate!({
    path: "wit/v0.1.1",
    world: "migrating-policy",
    pub_export_macro: true,
    export_macro_name: "__export_world",
    additional_derives: [PartialEq],
});
