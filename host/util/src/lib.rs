//! Small functions that several crates need and the standard library lacks. It compiles in a moment: even `cargo xtask`
//! can afford it.

#[cfg(feature = "guest-http")]
pub mod guest_http;
#[cfg(feature = "locks")]
mod locks;
pub mod program;
mod said;
mod samples;
mod seldom;
mod text;
pub mod units;
mod words;

#[cfg(feature = "locks")]
pub use locks::KeyedLocks;
pub use said::{SAID_BYTES, Said};
pub use samples::{percentile, percentiles};
pub use seldom::Seldom;
pub use text::{chain, thousands};
pub use words::{cut, lines, one_line, steers};
