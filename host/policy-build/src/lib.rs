//! Builds policies in every language with the language's own tools.
//!
//! [`build()`] runs what [`Language`] says for a folder with one policy, with programs that [`Tools`] finds, and
//! installs nothing. Both `regatta policy build` and `cargo xtask policies --language` are thin around it.

mod build;
mod error;
mod language;
mod steps;
mod tools;

pub use build::{Project, build, install};
pub use error::BuildError;
pub use language::{Language, UnknownLanguage};
pub use tools::Tools;
