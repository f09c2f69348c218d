//! The line by which a plugin says where it listens, as HashiCorp's go-plugin has it. Pure.
//!
//! `CORE-PROTOCOL|APP-PROTOCOL|NETWORK|ADDRESS|PROTOCOL`, for example `1|1|unix|/tmp/plugin.sock|grpc`.

use thiserror::Error;

/// Version of go-plugin's own protocol.
const CORE_PROTOCOL: &str = "1";
/// Version of what host and plugin say to each other.
const APP_PROTOCOL: &str = "1";
const NETWORK: &str = "unix";
const PROTOCOL: &str = "grpc";

/// Where a plugin listens: a Unix socket, for gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// Path of the socket.
    pub(crate) socket: String,
}

/// A line that is not a handshake of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum HandshakeError {
    /// It has other parts.
    #[error("`{line}` is not a handshake: five parts with | between them were expected")]
    Parts { line: String },
    /// One part is not what it must be.
    #[error("the plugin's {what} is `{found}`, and must be `{expected}`")]
    Other { what: &'static str, found: String, expected: &'static str },
}

impl Handshake {
    /// Reads the line.
    pub(crate) fn parse(line: &str) -> Result<Self, HandshakeError> {
        let parts: Vec<&str> = line.trim_end().split('|').collect();
        let &[core, app, network, socket, protocol] = parts.as_slice() else {
            return Err(HandshakeError::Parts { line: line.to_owned() });
        };
        for (what, found, expected) in [
            ("core protocol", core, CORE_PROTOCOL),
            ("app protocol", app, APP_PROTOCOL),
            ("network", network, NETWORK),
            ("protocol", protocol, PROTOCOL),
        ] {
            if found != expected {
                return Err(HandshakeError::Other { what, found: found.to_owned(), expected });
            }
        }
        Ok(Self { socket: socket.to_owned() })
    }
}

impl std::fmt::Display for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{CORE_PROTOCOL}|{APP_PROTOCOL}|{NETWORK}|{}|{PROTOCOL}", self.socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where() {
        let handshake = Handshake { socket: "/run/p 1.sock".to_owned() };
        assert_eq!(handshake.to_string(), "1|1|unix|/run/p 1.sock|grpc");
        assert_eq!(Handshake::parse("1|1|unix|/run/p 1.sock|grpc\n"), Ok(handshake));
    }

    #[test]
    fn another_line_is_refused_with_its_reason() {
        for (line, told) in [
            ("", "five parts"),
            ("1|1|unix|/x", "five parts"),
            ("1|1|unix|/x|grpc|cert", "five parts"),
            ("2|1|unix|/x|grpc", "core protocol is `2`"),
            ("1|7|unix|/x|grpc", "app protocol is `7`"),
            ("1|1|tcp|127.0.0.1:1|grpc", "network is `tcp`"),
            ("1|1|unix|/x|netrpc", "protocol is `netrpc`"),
        ] {
            let error = Handshake::parse(line).expect_err(line).to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
