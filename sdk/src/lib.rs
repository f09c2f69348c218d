//! Write Regatta scaling policies in Rust.
