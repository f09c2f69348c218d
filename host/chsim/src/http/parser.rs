//! The request parser: bytes in, requests and errors out, no I/O.
//!
//! It keeps upstream's 1,024-byte buffer and its habit of leaving the state alone after an error, because both are
//! visible: a body over the limit is answered once per 1,024-byte read, a chunked body is read as the next request.

use thiserror::Error;

use super::Method;
use super::headers::Headers;

/// Size of the read buffer, and so the longest request or header line.
pub(crate) const BUFFER_BYTES: usize = 1024;
const CRLF: &[u8] = b"\r\n";

/// Why bytes are not a request. Display is the text between `"error": "` and the newline of the error body.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ParseError {
    #[error("Invalid header. Reason: {0}")]
    Header(String),
    #[error("Invalid HTTP Method: Unsupported HTTP method.")]
    Method,
    #[error("Invalid HTTP Version: Unsupported HTTP version.")]
    Version,
    #[error("Invalid request.")]
    InvalidRequest,
    #[error("Invalid URI: {0}")]
    Uri(&'static str),
    #[error("Overflow occurred when parsing a request.")]
    Overflow,
    #[error("Request payload with size {size} is larger than the limit of {limit} allowed by server.")]
    TooLarge { limit: usize, size: usize },
}

/// One complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: Method,
    uri: String,
    /// `None` when `Content-Length` was absent or zero.
    pub(crate) body: Option<Vec<u8>>,
}

impl Request {
    /// The path with its query string; of an absolute URI, what follows the host. Empty when there is none.
    pub(crate) fn path(&self) -> &str {
        match self.uri.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
            None if self.uri.starts_with('/') => &self.uri,
            None => "",
        }
    }
}

/// What one read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A complete request.
    Request(Request),
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    /// The bytes were no request; requests of the same read before it are dropped, as upstream does.
    Error(ParseError),
}

#[derive(Debug)]
enum State {
    RequestLine,
    Headers(Request, Headers),
    Body(Request, usize),
}

/// The state of one connection's input.
#[derive(Debug)]
pub(crate) struct Parser {
    buffer: [u8; BUFFER_BYTES],
    filled: usize,
    state: State,
    body_limit: usize,
}

impl Parser {
    /// A parser that refuses bodies over `body_limit` bytes.
    pub(crate) fn new(body_limit: usize) -> Self {
        Self { buffer: [0; BUFFER_BYTES], filled: 0, state: State::RequestLine, body_limit }
    }

    /// Where the next read goes. Never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// Takes in the `read` bytes that were put into [`Parser::space`].
    pub(crate) fn advance(&mut self, read: usize) -> Vec<Step> {
        let end = (self.filled + read).min(BUFFER_BYTES);
        let mut steps = Vec::new();
        if let Err(error) = self.consume(end, &mut steps) {
            // Upstream drops the requests of this read that it had not answered yet, but not a `100 Continue`.
            steps.retain(|step| *step == Step::Continue);
            steps.push(Step::Error(error));
            if self.filled >= BUFFER_BYTES {
                self.filled = 0;
            }
        }
        steps
    }

    fn consume(&mut self, end: usize, steps: &mut Vec<Step>) -> Result<(), ParseError> {
        let mut start = 0;
        loop {
            match &mut self.state {
                State::RequestLine => {
                    let Some(length) = find(&self.buffer[start..end], CRLF) else {
                        if start == 0 && end == BUFFER_BYTES {
                            return Err(ParseError::InvalidRequest);
                        }
                        self.keep(start, end);
                        return Ok(());
                    };
                    let request = request_line(&self.buffer[start..start + length])?;
                    start += length + CRLF.len();
                    self.state = State::Headers(request, Headers::default());
                }
                State::Headers(_, headers) => {
                    let Some(length) = find(&self.buffer[start..end], CRLF) else {
                        if start == 0 && end == BUFFER_BYTES {
                            let line = String::from_utf8_lossy(&self.buffer);
                            return Err(ParseError::Header(format!(
                                "Invalid content length. Header: {line}"
                            )));
                        }
                        self.keep(start, end);
                        return Ok(());
                    };
                    if length > 0 {
                        headers.parse_line(&self.buffer[start..start + length])?;
                        start += length + CRLF.len();
                        continue;
                    }
                    let size = headers.content_length as usize;
                    if size > self.body_limit {
                        return Err(ParseError::TooLarge { limit: self.body_limit, size });
                    }
                    start += CRLF.len();
                    if size > 0 && headers.expect {
                        steps.push(Step::Continue);
                    }
                    let State::Headers(mut request, _) =
                        std::mem::replace(&mut self.state, State::RequestLine)
                    else {
                        return Err(ParseError::Overflow);
                    };
                    if size == 0 {
                        steps.push(Step::Request(request));
                    } else {
                        request.body = Some(Vec::with_capacity(size));
                        self.state = State::Body(request, size);
                    }
                }
                State::Body(request, missing) => {
                    let take = (*missing).min(end - start);
                    if let Some(body) = &mut request.body {
                        body.extend_from_slice(&self.buffer[start..start + take]);
                    }
                    start += take;
                    *missing -= take;
                    if *missing > 0 {
                        self.filled = 0;
                        return Ok(());
                    }
                    if let State::Body(request, _) = std::mem::replace(&mut self.state, State::RequestLine) {
                        steps.push(Step::Request(request));
                    }
                }
            }
        }
    }

    /// Moves an unfinished line to the front of the buffer.
    fn keep(&mut self, start: usize, end: usize) {
        self.buffer.copy_within(start..end, 0);
        self.filled = end - start;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn request_line(line: &[u8]) -> Result<Request, ParseError> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(uri), Some(version)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ParseError::InvalidRequest);
    };
    let method = match method {
        b"GET" => Method::Get,
        b"PUT" => Method::Put,
        b"PATCH" => Method::Patch,
        _ => return Err(ParseError::Method),
    };
    if uri.is_empty() {
        return Err(ParseError::Uri("Empty URI not allowed."));
    }
    let uri = std::str::from_utf8(uri).map_err(|_| ParseError::Uri("Cannot parse URI as UTF-8."))?;
    if !matches!(version, b"HTTP/1.0" | b"HTTP/1.1") {
        return Err(ParseError::Version);
    }
    Ok(Request { method, uri: uri.to_owned(), body: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `bytes` in reads of the given sizes (cycled), never more than the buffer has room for.
    fn feed(bytes: &[u8], reads: &[usize]) -> Vec<Step> {
        let mut parser = Parser::new(51_200);
        let mut steps = Vec::new();
        let mut rest = bytes;
        let mut sizes = reads.iter().cycle();
        while !rest.is_empty() {
            let space = parser.space();
            assert!(!space.is_empty(), "the parser must always have room");
            let size = sizes.next().copied().unwrap_or(usize::MAX).max(1).min(space.len()).min(rest.len());
            space[..size].copy_from_slice(&rest[..size]);
            steps.extend(parser.advance(size));
            rest = &rest[size..];
        }
        steps
    }

    fn requests(steps: &[Step]) -> Vec<&Request> {
        steps
            .iter()
            .filter_map(|step| if let Step::Request(request) = step { Some(request) } else { None })
            .collect()
    }

    #[test]
    fn pipelined_requests_come_out_in_order() {
        let steps = feed(b"GET /a HTTP/1.1\r\n\r\nPUT /b HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", &[7]);
        let paths: Vec<_> = requests(&steps).iter().map(|request| request.path()).collect();
        assert_eq!(paths, ["/a", "/b"]);
        assert_eq!(requests(&steps)[1].body.as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn a_large_body_is_answered_once_per_buffer() {
        let mut bytes = b"PUT /api/v1/vm.create HTTP/1.1\r\nContent-Length: 52026\r\n\r\n".to_vec();
        bytes.resize(bytes.len() + 52_026, b'a');
        let steps = feed(&bytes, &[usize::MAX]);
        assert_eq!(steps[0], Step::Error(ParseError::TooLarge { limit: 51_200, size: 52_026 }));
        assert!(steps.len() > 20, "{}", steps.len());
        assert!(matches!(&steps[1], Step::Error(ParseError::Header(text)) if text.len() > 1024));
    }

    #[test]
    fn a_chunked_body_is_read_as_the_next_request() {
        let steps = feed(
            b"PUT /api/v1/vm.boot HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            &[usize::MAX],
        );
        assert_eq!(steps, [Step::Error(ParseError::InvalidRequest)]);
    }

    #[test]
    fn absolute_uris_lose_their_host() {
        let steps = feed(b"GET http://localhost:1/api/v1/vmm.ping HTTP/1.1\r\n\r\n", &[usize::MAX]);
        assert_eq!(requests(&steps)[0].path(), "/api/v1/vmm.ping");
    }

    fn request_bytes() -> impl Strategy<Value = Vec<u8>> {
        let head = (
            "(GET|PUT|PATCH)",
            "/[a-z.]{0,40}",
            "1\\.[01]",
            proptest::collection::vec("[A-Za-z-]{1,20}x: [ -~]{0,60}", 0..4),
        );
        (head, proptest::option::of(proptest::collection::vec(any::<u8>(), 1..3000)), any::<bool>()).prop_map(
            |((method, path, version, headers), body, expect)| {
                let mut bytes = format!("{method} {path} HTTP/{version}\r\n").into_bytes();
                for header in headers {
                    bytes.extend(format!("{header}\r\n").bytes());
                }
                if expect {
                    bytes.extend(b"Expect: 100-continue\r\n");
                }
                if let Some(body) = &body {
                    bytes.extend(format!("Content-Length: {}\r\n", body.len()).bytes());
                }
                bytes.extend(b"\r\n");
                bytes.extend(body.unwrap_or_default());
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..5000), reads in proptest::collection::vec(1usize..1500, 1..6)) {
            feed(&bytes, &reads);
        }

        #[test]
        fn any_chunking_gives_the_same_requests(
            parts in proptest::collection::vec(request_bytes(), 1..5),
            reads in proptest::collection::vec(1usize..1500, 1..6),
        ) {
            let bytes = parts.concat();
            let whole = feed(&bytes, &[usize::MAX]);
            prop_assert_eq!(requests(&whole).len(), parts.len());
            prop_assert_eq!(&feed(&bytes, &reads), &whole);
        }
    }
}
