//! Importing golden images: from what an operator names to the files of one image.
//!
//! [`layout`] decides, purely, which file of a directory is what; [`mod@plan`] looks at
//! the files and refuses what instances could not start from, before anything is
//! copied.

mod layout;
mod plan;

pub(crate) use plan::{ImportPlan, PlannedFile, plan};
