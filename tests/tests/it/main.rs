//! End to end: the real daemon, real VMM processes (the stand-in), real HTTP.

mod bad_input;
mod crash;
mod policies;
mod scaling;
