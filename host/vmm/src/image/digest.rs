//! SHA-256 digests of files.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// The text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a SHA-256 digest (64 hexadecimal digits, \"sha256:\" before them or not)")]
pub struct DigestError {
    /// What was given, at most 100 characters of it.
    pub text: String,
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.strip_prefix("sha256:").unwrap_or(text), &mut bytes)
            .map_err(|_| DigestError { text: text.chars().take(100).collect() })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Hashes everything that `input` yields and hands every piece to `each` on the way.
///
/// # Errors
/// Reading failed, or `each` did.
pub(crate) fn hash_stream(
    input: &mut impl Read,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Digest> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                each(&buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_known_text_in_both_spellings() {
        let digest = Digest::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        assert_eq!(hex.parse(), Ok(digest));
        assert_eq!(format!("sha256:{}", hex.to_uppercase()).parse(), Ok(digest));
        let json = serde_json::to_string(&digest).expect("json");
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("digest"), digest);
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in ["", "sha256:", "md5:00", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn stream_equals_whole_and_pieces_are_passed_on() {
        let data: Vec<u8> = (0..600_000u32).map(|n| n as u8).collect();
        let mut copy = Vec::new();
        let digest = hash_stream(&mut &data[..], |piece| {
            copy.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!(digest.expect("hashed"), Digest::of(&data));
        assert_eq!(copy, data);
    }
}
