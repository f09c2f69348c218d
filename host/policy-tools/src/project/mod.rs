//! Projects of authors: made from a template, and the `policy.yaml` that tells tools what a folder is.

mod create;
mod file;
mod rename;
mod templates;

pub use create::{NewError, create};
pub use file::{ProjectError, ProjectFile};
