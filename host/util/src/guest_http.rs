//! The HTTP of the guests: heads are read by `httparse`, one request at a time per connection, keep-alive.

use std::time::Duration;

/// Largest request head.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Longest work of one request.
const MAX_WORK: Duration = Duration::from_secs(60);

/// What the bytes at the start of a buffer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// Not all of a request's head yet.
    Partial,
    /// Not a request: answer with this status and close.
    Bad(u16),
    /// A request's whole head.
    Request(Request),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Without the query.
    pub path: String,
    /// How much work is asked for, in milliseconds of the query: `?work=5`, `?work=5ms` or `?ms=5`.
    pub work: Option<Duration>,
    /// Whether the connection stays open after the answer.
    pub keep_alive: bool,
    /// HEAD: the answer has no body.
    pub head: bool,
    /// Bytes of the head, line ends included.
    pub head_bytes: usize,
    /// Bytes of body that follow the head.
    pub body_bytes: usize,
}

/// Reads the head of a request whose body may have this many bytes.
#[must_use]
pub fn parse(bytes: &[u8], max_body_bytes: usize) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head_bytes = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(431),
        Err(_) => return Parsed::Bad(400),
    };
    let mut keep_alive = request.version == Some(1);
    let mut body_bytes = 0;
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            body_bytes = match value.parse() {
                Ok(length) if length <= max_body_bytes => length,
                Ok(_) => return Parsed::Bad(413),
                Err(_) => return Parsed::Bad(400),
            };
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Parsed::Bad(411);
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = match value.to_ascii_lowercase() {
                value if value.contains("close") => false,
                value if value.contains("keep-alive") => true,
                _ => keep_alive,
            };
        }
    }
    let (path, query) =
        request.path.and_then(|path| path.split_once('?')).unwrap_or((request.path.unwrap_or_default(), ""));
    let Ok(work) = query.split('&').find_map(work).transpose() else {
        return Parsed::Bad(400);
    };
    let head = request.method == Some("HEAD");
    Parsed::Request(Request { path: path.to_owned(), work, keep_alive, head, head_bytes, body_bytes })
}

/// The work that a part of the query asks for, if it is about that.
fn work(pair: &str) -> Option<Result<Duration, ()>> {
    let ms = pair.strip_prefix("work=").or(pair.strip_prefix("ms="))?;
    let work = ms.strip_suffix("ms").unwrap_or(ms).parse().map(Duration::from_millis);
    Some(work.ok().filter(|work| *work <= MAX_WORK).ok_or(()))
}

/// What a status means, for people.
#[must_use]
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// A complete response; to HEAD (`head`) one without its body.
#[must_use]
pub fn response(status: u16, kind: &str, body: &str, keep_alive: bool, head: bool) -> Vec<u8> {
    let reason = reason(status);
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let length = body.len();
    let body = if head { "" } else { body };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Parsed {
        super::parse(bytes, 16 << 10)
    }

    fn request(bytes: &[u8]) -> Request {
        match parse(bytes) {
            Parsed::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn work_is_in_the_query() {
        for (target, path, ms) in [
            ("/healthz", "/healthz", None),
            ("/metrics?x", "/metrics", None),
            ("/burn?ms=50", "/burn", Some(50)),
            ("/a?b=1&work=50ms", "/a", Some(50)),
            ("/?work=5", "/", Some(5)),
        ] {
            let request = request(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
            assert_eq!((request.path.as_str(), request.work), (path, ms.map(Duration::from_millis)));
        }
        assert_eq!(parse(b"GET /?work=lots HTTP/1.1\r\n\r\n"), Parsed::Bad(400));
        assert_eq!(parse(b"GET /burn?ms=600000 HTTP/1.1\r\n\r\n"), Parsed::Bad(400));
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
        assert_eq!(parse(&[b'a'; MAX_HEAD_BYTES]), Parsed::Bad(431));
        assert_eq!(parse(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"), Parsed::Bad(413));
        assert_eq!(parse(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Parsed::Bad(411));
        assert_eq!(parse(b"GET / HT"), Parsed::Partial);
    }

    #[test]
    fn what_follows_the_head_is_not_read() {
        let whole = request(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET");
        assert_eq!((whole.head_bytes, whole.body_bytes), (38, 3));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }
    }
}
