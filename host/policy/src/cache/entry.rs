//! The form of an entry: `magic`, key, MAC, content; and the secret of the MAC.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use rustix::rand::GetRandomFlags;
use sha2::Sha256;

use super::files::{self, Temporary};
use super::key::Key;

/// Changes with the form of an entry, and with that of an artifact.
const MAGIC: &[u8; 8] = b"RGTCODE1";
const MAC_BYTES: usize = 32;
const SECRET_FILE: &str = "secret";
const SECRET_BYTES: usize = 32;

/// What only the owner of the cache knows.
pub(super) struct Secret([u8; SECRET_BYTES]);

impl Secret {
    fn mac(&self, key: &Key) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).map_err(io::Error::other)?;
        mac.update(MAGIC);
        mac.update(key.bytes());
        Ok(mac)
    }

    /// What stands before the content in an entry.
    ///
    /// # Errors
    /// Never, with a secret of that length.
    pub(super) fn seal(&self, key: &Key, content: &[u8]) -> io::Result<Vec<u8>> {
        let mut mac = self.mac(key)?;
        mac.update(content);
        Ok([&MAGIC[..], key.bytes(), &mac.finalize().into_bytes()].concat())
    }

    /// What an entry holds.
    ///
    /// # Errors
    /// When it is not, to the last bit, what was sealed under that key and secret.
    pub(super) fn open(&self, key: &Key, mut sealed: Vec<u8>) -> io::Result<Vec<u8>> {
        let broken = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        let Some((head, content)) = sealed.split_at_checked(MAGIC.len() + key.bytes().len() + MAC_BYTES)
        else {
            return broken("it is cut off");
        };
        let (magic, rest) = head.split_at(MAGIC.len());
        let (found, tag) = rest.split_at(key.bytes().len());
        if magic != MAGIC {
            return broken("it has another form");
        }
        if found != key.bytes() {
            return broken("it was made of something else");
        }
        let mut mac = self.mac(key)?;
        mac.update(content);
        if mac.verify_slice(tag).is_err() {
            return broken("its content is not what was written, or it was written by somebody else");
        }
        let start = head.len();
        sealed.drain(..start);
        Ok(sealed)
    }
}

/// The secret in `dir`, made on first use.
///
/// # Errors
/// When it can neither be read nor made. One that is not ours alone is replaced, which makes all entries worthless.
pub(super) fn secret(dir: &Path) -> io::Result<Secret> {
    let path = dir.join(SECRET_FILE);
    let read = || {
        let (_, bytes) = files::read_own(&path, SECRET_BYTES as u64)?;
        bytes
            .try_into()
            .map(Secret)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it has another length"))
    };
    match read() {
        Ok(secret) => return Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the secret of the compiled policies is not trusted: a new one");
            fs::remove_file(&path)?;
        }
    }
    let mut bytes = [0; SECRET_BYTES];
    // So short a piece comes whole.
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    let temporary = Temporary::new(dir)?;
    let mut file = temporary.file()?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    match temporary.link(&path) {
        Ok(()) => Ok(Secret(bytes)),
        // Somebody of ours was quicker: theirs it is.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_opens_under_its_key_and_secret_only() {
        let (secret, key) = (Secret([1; 32]), Key::of([2; 32]));
        let sealed = [secret.seal(&key, b"code").unwrap(), b"code".to_vec()].concat();
        assert_eq!(secret.open(&key, sealed.clone()).unwrap(), b"code");
        assert!(secret.open(&Key::of([3; 32]), sealed.clone()).is_err());
        assert!(Secret([4; 32]).open(&key, sealed.clone()).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(secret.open(&key, flipped).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(secret.open(&key, sealed[..length].to_vec()).is_err(), "{length} bytes");
        }
        assert!(secret.open(&key, [sealed, vec![0]].concat()).is_err());
    }
}
