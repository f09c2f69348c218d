//! The guest's HTTP: one request at a time per connection, keep-alive. `httparse` reads the heads.

use std::time::Duration;

/// Largest request head.
pub(crate) const MAX_HEAD_BYTES: usize = 16 << 10;
/// Largest request body; it is read and dropped.
const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_HEADERS: usize = 64;
/// Longest `?work=`.
const MAX_WORK: Duration = Duration::from_secs(60);

/// What the bytes at the start of a buffer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not all of a request yet.
    Partial,
    /// No request; answer with this status and close.
    Bad(u16, &'static str),
    Request(Request),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) keep_alive: bool,
    /// HEAD: the answer has no body.
    pub(crate) head: bool,
    /// Bytes of the head, line ends included.
    pub(crate) head_bytes: usize,
    /// Bytes of body that follow the head.
    pub(crate) body_bytes: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Health,
    Metrics,
    /// Any other path: work, perhaps of a given length.
    Work(Option<Duration>),
}

/// Reads the head of a request.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Bad(431, "Request Header Fields Too Large");
        }
        Err(_) => return Parsed::Bad(400, "Bad Request"),
    };
    let mut keep_alive = request.version == Some(1);
    let mut body_bytes = 0;
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            body_bytes = match value.parse() {
                Ok(length) if length <= MAX_BODY_BYTES => length,
                Ok(_) => return Parsed::Bad(413, "Content Too Large"),
                Err(_) => return Parsed::Bad(400, "Bad Request"),
            };
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Parsed::Bad(411, "Length Required");
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = match value.to_ascii_lowercase() {
                value if value.contains("close") => false,
                value if value.contains("keep-alive") => true,
                _ => keep_alive,
            };
        }
    }
    let Some(target) = target(request.path.unwrap_or_default()) else {
        return Parsed::Bad(400, "Bad Request");
    };
    Parsed::Request(Request {
        target,
        keep_alive,
        head: request.method == Some("HEAD"),
        head_bytes,
        body_bytes,
    })
}

fn target(path: &str) -> Option<Target> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match path {
        "/healthz" => Some(Target::Health),
        "/metrics" => Some(Target::Metrics),
        _ => {
            let work = query.split('&').find_map(|pair| pair.strip_prefix("work="));
            match work {
                None => Some(Target::Work(None)),
                Some(work) => {
                    let ms: u64 = work.strip_suffix("ms").unwrap_or(work).parse().ok()?;
                    let work = Duration::from_millis(ms);
                    (work <= MAX_WORK).then_some(Target::Work(Some(work)))
                }
            }
        }
    }
}

/// A complete response.
pub(crate) fn response(
    status: u16,
    reason: &str,
    kind: &str,
    body: &str,
    keep_alive: bool,
    head: bool,
) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut text = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
        body.len()
    );
    if !head {
        text.push_str(body);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(bytes: &[u8]) -> Request {
        match parse(bytes) {
            Parsed::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn targets() {
        assert_eq!(request(b"GET /healthz HTTP/1.1\r\n\r\n").target, Target::Health);
        assert_eq!(request(b"GET /metrics?x HTTP/1.1\r\n\r\n").target, Target::Metrics);
        assert_eq!(
            request(b"GET /a?b=1&work=5 HTTP/1.1\r\n\r\n").target,
            Target::Work(Some(Duration::from_millis(5)))
        );
        assert_eq!(parse(b"GET /?work=lots HTTP/1.1\r\n\r\n"), Parsed::Bad(400, "Bad Request"));
        assert_eq!(parse(b"GET /?work=600000 HTTP/1.1\r\n\r\n"), Parsed::Bad(400, "Bad Request"));
    }

    #[test]
    fn connections_stay_open_as_the_version_says() {
        assert!(request(b"GET / HTTP/1.1\r\n\r\n").keep_alive);
        assert!(!request(b"GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(!request(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").keep_alive);
        assert!(request(b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn limits() {
        assert_eq!(parse(&[b'a'; MAX_HEAD_BYTES]), Parsed::Bad(431, "Request Header Fields Too Large"));
        assert_eq!(
            parse(b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n"),
            Parsed::Bad(413, "Content Too Large")
        );
        assert_eq!(
            parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Parsed::Bad(411, "Length Required")
        );
        assert_eq!(parse(b"GET / HT"), Parsed::Partial);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }
    }
}
