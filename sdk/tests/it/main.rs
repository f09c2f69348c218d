//! The SDK as the author of a policy uses it.

mod documentation;
mod policies;
mod properties;
mod scenario;
mod tick;
mod window;
