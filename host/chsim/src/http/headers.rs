//! Request headers: only the ones that change what the server does are understood, all others are skipped.

use super::parser::ParseError;

/// What the headers of one request said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Headers {
    /// Body bytes announced by `Content-Length`.
    pub(crate) content_length: u32,
    /// `Expect: 100-continue` was sent.
    pub(crate) expect: bool,
}

impl Headers {
    /// Takes one header line, without its line end. Values that upstream merely does not support are ignored.
    pub(crate) fn parse_line(&mut self, line: &[u8]) -> Result<(), ParseError> {
        let text = std::str::from_utf8(line)
            .map_err(|e| ParseError::Header(format!("Header contains invalid characters. Key: {e}")))?;
        let Some((name, value)) = text.split_once(':') else {
            return Err(ParseError::Header(format!("Header is incorrectly formatted. Key: {text}")));
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "content-length" => {
                self.content_length = value.trim().parse().map_err(|_| invalid(name, value))?;
            }
            "expect" if value.trim() == "100-continue" => self.expect = true,
            "accept-encoding" => accept_encoding(value.trim())?,
            _ => {}
        }
        Ok(())
    }
}

fn invalid(name: &str, value: &str) -> ParseError {
    ParseError::Header(format!("Invalid value. Key:{name}; Value:{value}"))
}

/// The body always goes out as it is, so a client that rules out `identity` cannot be served.
fn accept_encoding(value: &str) -> Result<(), ParseError> {
    if value.is_empty() {
        return Err(ParseError::InvalidRequest);
    }
    for encoding in value.split(',').map(str::trim) {
        if encoding == "identity;q=0" || (encoding == "*;q=0" && !value.contains("identity")) {
            return Err(invalid("Accept-Encoding", encoding));
        }
    }
    Ok(())
}
