//! What content is known by.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// SHA-256 of a policy's module, a manifest as it is stored, or a file of an image: 64 hexadecimal digits in lower case,
/// those of images after `sha256:`. Empty for a policy that could not be loaded, and in records of before manifests were named.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 12 digits, enough for people to tell contents apart.
    #[must_use]
    pub fn short(&self) -> &str {
        let digits = self.0.strip_prefix("sha256:").unwrap_or(&self.0);
        digits.get(..12).unwrap_or(digits)
    }
}

impl From<&str> for Digest {
    fn from(digits: &str) -> Self {
        Self(digits.to_owned())
    }
}

impl From<String> for Digest {
    fn from(digits: String) -> Self {
        Self(digits)
    }
}

impl From<Digest> for serde_json::Value {
    fn from(digest: Digest) -> Self {
        digest.0.into()
    }
}

impl Deref for Digest {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Digest {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Digest {
    fn eq(&self, digits: &str) -> bool {
        self.0 == digits
    }
}

impl PartialEq<&str> for Digest {
    fn eq(&self, digits: &&str) -> bool {
        self.0 == *digits
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha256_in_hexadecimal_digits() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.short(), "ba7816bf8f01");
        assert_eq!(Digest::default().short(), "");
    }
}
