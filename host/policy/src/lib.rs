//! Runs scaling policies in a WebAssembly sandbox and swaps them while they run.
