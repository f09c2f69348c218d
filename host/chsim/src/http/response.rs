//! Responses, written with exactly the headers upstream writes and in its order.

/// A response to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    status: u16,
    server: &'static str,
    body: Option<String>,
}

/// What the API's own answers carry in `Server`.
const API: &str = "Cloud Hypervisor API";
/// What answers of the HTTP library itself carry, for requests that never reach the API.
const LIBRARY: &str = "Firecracker API";

impl Response {
    /// The API's answer with a JSON body.
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self { status, server: API, body: Some(body) }
    }

    /// The API's answer without a body; `Content-Length: 0` except for 204.
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, server: API, body: None }
    }

    /// `100 Continue`.
    pub(crate) fn proceed() -> Self {
        Self { status: 100, server: LIBRARY, body: None }
    }

    /// The library's answer to bytes that are not a request. The newline inside the string is upstream's.
    pub(crate) fn unparsable(error: &super::parser::ParseError) -> Self {
        let body = format!("{{ \"error\": \"{error}\nAll previous unanswered requests will be dropped.\" }}");
        Self { status: 400, server: LIBRARY, body: Some(body) }
    }

    /// The bytes on the wire. The reason phrase is empty, as upstream's always is.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut text =
            format!("HTTP/1.1 {} \r\nServer: {}\r\nConnection: keep-alive\r\n", self.status, self.server);
        let body = self.body.as_deref().unwrap_or_default();
        if !matches!(self.status, 100 | 204) {
            text += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += body;
        text.into_bytes()
    }
}

/// Sent to the eleventh connection, which is then closed.
pub(crate) const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n\
    Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }";
