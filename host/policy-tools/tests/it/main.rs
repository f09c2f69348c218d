//! The tools, on the built-in policies (built by `cargo xtask policies`).

mod check;
mod windows;
