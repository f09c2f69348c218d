//! The API's HTTP/1.1 dialect, as upstream's `micro_http` speaks it.
//!
//! A general HTTP crate cannot stand in here: clients of the real thing see its ten-connection limit, its 1,024-byte
//! buffer, its raw newlines in error bodies and its head-of-line blocking, and so must clients of this one.

mod headers;
mod parser;
mod response;
mod server;

pub(crate) use parser::Request;
pub(crate) use response::Response;
pub(crate) use server::{Answer, Server, serve};

/// Methods the parser knows; every other one is refused before routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Put,
    Patch,
}
