//! Reading requests and writing answers; `httparse` reads the heads.

use std::time::Duration;

/// Largest request head.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Largest request body; it is read and dropped.
const MAX_BODY_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Longest work of one request.
const MAX_WORK: Duration = Duration::from_secs(60);

/// What the bytes at the start of a buffer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not all of a request yet.
    Partial,
    /// No request; answer with this status and close.
    Bad(u16),
    Request(Request),
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) keep_alive: bool,
    /// HEAD: the answer has no body.
    pub(crate) head: bool,
    /// Bytes of head and body.
    pub(crate) bytes: usize,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Health,
    Metrics,
    Identity,
    UserData,
    Panic,
    Hang,
    PowerOff,
    Reboot,
    /// Any other path: this much CPU time, then the guest's name.
    Work(Duration),
}

/// Reads one request.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
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
                Ok(length) if length <= MAX_BODY_BYTES => length,
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
    let Some(target) = target(request.path.unwrap_or_default()) else {
        return Parsed::Bad(400);
    };
    if bytes.len() < head_bytes + body_bytes {
        return Parsed::Partial;
    }
    let head = request.method == Some("HEAD");
    Parsed::Request(Request { target, keep_alive, head, bytes: head_bytes + body_bytes })
}

fn target(path: &str) -> Option<Target> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    Some(match path {
        "/healthz" => Target::Health,
        "/metrics" => Target::Metrics,
        "/identity" => Target::Identity,
        "/user-data" => Target::UserData,
        "/panic" => Target::Panic,
        "/hang" => Target::Hang,
        "/poweroff" => Target::PowerOff,
        "/reboot" => Target::Reboot,
        _ => {
            // `work` is what the stand-in's modelled guest takes.
            let ms = |pair: &str| pair.strip_prefix("ms=").or(pair.strip_prefix("work=")).map(str::to_owned);
            match query.split('&').find_map(ms) {
                None => Target::Work(Duration::ZERO),
                Some(ms) => {
                    let work = Duration::from_millis(ms.strip_suffix("ms").unwrap_or(&ms).parse().ok()?);
                    if work > MAX_WORK {
                        return None;
                    }
                    Target::Work(work)
                }
            }
        }
    })
}

/// A complete response.
pub(crate) fn response(status: u16, kind: &str, body: &str, keep_alive: bool, head: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    };
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

    fn request(bytes: &[u8]) -> Request {
        match parse(bytes) {
            Parsed::Request(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn targets() {
        assert_eq!(request(b"GET /healthz HTTP/1.1\r\n\r\n").target, Target::Health);
        assert_eq!(request(b"POST /panic HTTP/1.1\r\n\r\n").target, Target::Panic);
        assert_eq!(request(b"GET / HTTP/1.1\r\n\r\n").target, Target::Work(Duration::ZERO));
        let burn = Target::Work(Duration::from_millis(50));
        assert_eq!(request(b"GET /burn?ms=50 HTTP/1.1\r\n\r\n").target, burn);
        assert_eq!(request(b"GET /a?b=1&work=50ms HTTP/1.1\r\n\r\n").target, burn);
        assert_eq!(parse(b"GET /burn?ms=lots HTTP/1.1\r\n\r\n"), Parsed::Bad(400));
        assert_eq!(parse(b"GET /burn?ms=600000 HTTP/1.1\r\n\r\n"), Parsed::Bad(400));
    }

    #[test]
    fn a_request_is_complete_with_its_body() {
        assert_eq!(parse(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"), Parsed::Partial);
        let whole = request(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET");
        assert_eq!(whole.bytes, 41);
        assert!(whole.keep_alive);
        assert!(!request(b"GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert_eq!(parse(b"POST / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n"), Parsed::Bad(413));
        assert_eq!(parse(&[b'a'; MAX_HEAD_BYTES]), Parsed::Bad(431));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
        }
    }
}
