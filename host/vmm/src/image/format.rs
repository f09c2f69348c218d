//! What kind of disk image a file is, and whether it can be a golden image. Pure: decides on the first bytes and the length.
//!
//! The qcow2 layout is in QEMU's `docs/interop/qcow2.txt`.

use serde::{Deserialize, Serialize};

/// Layout of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The disk's bytes, one after the other.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

impl ImageFormat {
    /// The name that qcow2's backing-format header extension and `qemu-img` use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How many bytes from the start [`probe`] wants to see.
pub(crate) const PROBE_BYTES: usize = 4096;
pub(crate) const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
const SECTOR_BYTES: u64 = 512;

/// Why a file cannot be a golden disk image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("it is empty")]
    Empty,
    #[error(
        "its length of {len} bytes is not a multiple of 512: a raw image cut off, or no disk image at all"
    )]
    OddLength { len: u64 },
    #[error("its qcow2 header is cut off or contradicts itself ({what})")]
    BadHeader { what: &'static str },
    #[error("it is a qcow2 image of version {version}; versions 2 and 3 are supported")]
    Version { version: u32 },
    #[error(
        "it is a qcow2 overlay of another image{}; flatten it first (qemu-img convert -O qcow2)",
        of.as_deref().map(|of| format!(", {of:?}")).unwrap_or_default()
    )]
    HasBackingFile { of: Option<String> },
    #[error("it is cut off: {what} at byte {at} lies beyond its end ({len} bytes)")]
    CutOff { what: &'static str, at: u64, len: u64 },
    #[error("it is {what}; {hint}")]
    Foreign { what: &'static str, hint: &'static str },
    #[error("it is an encrypted qcow2 image")]
    Encrypted,
    #[error("it is marked as {what}; repair it first (qemu-img check -r all)")]
    Unclean { what: &'static str },
    #[error("it needs the qcow2 feature \"{what}\", which the VMM does not support")]
    Feature { what: &'static str },
}

/// Tells the format and the size of the disk that the image holds, in bytes, from its first bytes ([`PROBE_BYTES`] or all there are)
/// and its length.
pub(crate) fn probe(head: &[u8], len: u64) -> Result<(ImageFormat, u64), FormatError> {
    if len == 0 {
        return Err(FormatError::Empty);
    }
    if !head.starts_with(&QCOW2_MAGIC) {
        foreign(head)?;
        return if len.is_multiple_of(SECTOR_BYTES) {
            Ok((ImageFormat::Raw, len))
        } else {
            Err(FormatError::OddLength { len })
        };
    }
    probe_qcow2(head, len).map(|size| (ImageFormat::Qcow2, size))
}

/// What people take for a disk image and a guest would find no disk in.
fn foreign(head: &[u8]) -> Result<(), FormatError> {
    const UNPACK: &str = "unpack it first";
    const CONVERT: &str = "convert it first (qemu-img convert -O qcow2)";
    let known: [(usize, &[u8], &str, &str); 8] = [
        (0, b"\x1f\x8b\x08", "compressed with gzip", UNPACK),
        (0, b"\xfd7zXZ\0", "compressed with xz", UNPACK),
        (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", UNPACK),
        (0, b"BZh", "compressed with bzip2", UNPACK),
        (0, b"PK\x03\x04", "a zip archive", UNPACK),
        (0, b"KDMV", "a VMDK image", CONVERT),
        (0, b"vhdxfile", "a VHDX image", CONVERT),
        (0x40, b"\x7f\x10\xda\xbe", "a VDI image", CONVERT),
    ];
    match known.iter().find(|(at, magic, ..)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic))) {
        Some(&(_, _, what, hint)) => Err(FormatError::Foreign { what, hint }),
        None => Ok(()),
    }
}

fn probe_qcow2(head: &[u8], len: u64) -> Result<u64, FormatError> {
    let bad = |what| FormatError::BadHeader { what };
    let u32_at = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let u64_at = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let cut = || bad("shorter than its header");

    let version = u32_at(4).ok_or_else(cut)?;
    if !(2..=3).contains(&version) {
        return Err(FormatError::Version { version });
    }
    let backing_offset = u64_at(8).ok_or_else(cut)?;
    let cluster_bits = u32_at(20).ok_or_else(cut)?;
    let size_bytes = u64_at(24).ok_or_else(cut)?;
    let crypt_method = u32_at(32).ok_or_else(cut)?;
    let l1_entries = u64::from(u32_at(36).ok_or_else(cut)?);
    let l1_offset = u64_at(40).ok_or_else(cut)?;
    let refcount_offset = u64_at(48).ok_or_else(cut)?;
    u64_at(64).ok_or_else(cut)?;
    if version == 3 {
        let incompatible = u64_at(72).ok_or_else(cut)?;
        if u32_at(100).ok_or_else(cut)? < 104 {
            return Err(bad("header length"));
        }
        incompatible_features(incompatible)?;
    }
    if backing_offset != 0 {
        return Err(FormatError::HasBackingFile { of: backing_name(head) });
    }
    if crypt_method != 0 {
        return Err(FormatError::Encrypted);
    }
    if !(9..=21).contains(&cluster_bits) {
        return Err(bad("cluster size"));
    }
    if size_bytes == 0 {
        return Err(FormatError::Empty);
    }
    // One L1 entry covers a cluster full of 8-byte L2 entries.
    let bytes_per_l1_entry = 1u64 << (2 * cluster_bits - 3);
    if l1_entries < size_bytes.div_ceil(bytes_per_l1_entry) {
        return Err(bad("L1 table too small"));
    }
    if l1_offset.checked_add(l1_entries * 8).is_none_or(|end| end > len) || refcount_offset >= len {
        return Err(bad("tables beyond the end of the file"));
    }
    Ok(size_bytes)
}

/// The backing file that a qcow2 header names, if the name lies within `head`.
pub(crate) fn backing_name(head: &[u8]) -> Option<String> {
    let offset = u64::from_be_bytes(head.get(8..16)?.try_into().ok()?);
    let length = u32::from_be_bytes(head.get(16..20)?.try_into().ok()?);
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    if offset == 0 || length > 1023 {
        return None;
    }
    Some(String::from_utf8_lossy(head.get(offset..offset.checked_add(length)?)?).into_owned())
}

fn incompatible_features(bits: u64) -> Result<(), FormatError> {
    match bits {
        _ if bits & 1 != 0 => Err(FormatError::Unclean { what: "not closed cleanly" }),
        _ if bits & 2 != 0 => Err(FormatError::Unclean { what: "corrupt" }),
        _ if bits & 4 != 0 => Err(FormatError::Feature { what: "external data file" }),
        _ if bits & 16 != 0 => Err(FormatError::Feature { what: "extended L2 entries" }),
        // Bit 3 (another compression type, zstd) is supported.
        _ if bits & !8 != 0 => Err(FormatError::Feature { what: "unknown to us" }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Vec<u8> {
        let mut head = vec![0; PROBE_BYTES];
        head[..4].copy_from_slice(&QCOW2_MAGIC);
        head[4..8].copy_from_slice(&3u32.to_be_bytes());
        head[20..24].copy_from_slice(&16u32.to_be_bytes());
        head[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        head[36..40].copy_from_slice(&2u32.to_be_bytes());
        head[40..48].copy_from_slice(&0x3_0000u64.to_be_bytes());
        head[48..56].copy_from_slice(&0x1_0000u64.to_be_bytes());
        head[100..104].copy_from_slice(&104u32.to_be_bytes());
        head
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = header();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    const LEN: u64 = 0x4_0000;

    #[test]
    fn good_images() {
        assert_eq!(probe(&header(), LEN), Ok((ImageFormat::Qcow2, 1 << 30)));
        assert_eq!(probe(&with(72, &8u64.to_be_bytes()), LEN), Ok((ImageFormat::Qcow2, 1 << 30)));
        assert_eq!(probe(&with(4, &2u32.to_be_bytes())[..72], LEN), Ok((ImageFormat::Qcow2, 1 << 30)));
        assert_eq!(probe(b"\0\0", 1024), Ok((ImageFormat::Raw, 1024)));
    }

    #[test]
    fn every_refusal_has_its_reason() {
        let refused = |head: &[u8], len| probe(head, len).expect_err("refused").to_string();
        assert!(refused(b"", 0).contains("empty"));
        assert!(refused(b"x", 1025).contains("1025"));
        assert!(refused(&header()[..40], LEN).contains("cut off"));
        assert!(refused(&header()[..90], LEN).contains("cut off"));
        assert!(refused(&header(), 0x2_0000).contains("beyond the end"));
        assert!(refused(&with(4, &4u32.to_be_bytes()), LEN).contains("version 4"));
        assert!(refused(&with(8, &1u64.to_be_bytes()), LEN).contains("overlay"));
        let mut overlay = with(8, &104u64.to_be_bytes());
        overlay[16..20].copy_from_slice(&6u32.to_be_bytes());
        overlay[104..110].copy_from_slice(b"b\nse.q");
        assert!(refused(&overlay, LEN).contains(r#"of another image, "b\nse.q";"#), "the name, in one line");
        assert!(refused(b"\xfd7zXZ\0 and so on", 1024).contains("xz"));
        assert!(refused(b"KDMV", 1024).contains("qemu-img convert"));
        assert!(refused(&with(32, &2u32.to_be_bytes()), LEN).contains("encrypted"));
        assert!(refused(&with(20, &40u32.to_be_bytes()), LEN).contains("cluster size"));
        assert!(refused(&with(36, &1u32.to_be_bytes()), LEN).contains("L1"));
        assert!(refused(&with(72, &1u64.to_be_bytes()), LEN).contains("cleanly"));
        assert!(refused(&with(72, &4u64.to_be_bytes()), LEN).contains("external"));
        assert!(refused(&with(72, &64u64.to_be_bytes()), LEN).contains("unknown"));
    }

    proptest! {
        #[test]
        fn any_header_is_judged_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..120), len in any::<u64>()) {
            let mut head = QCOW2_MAGIC.to_vec();
            head.extend(tail);
            if let Ok((format, _)) = probe(&head, len) {
                prop_assert_eq!(format, ImageFormat::Qcow2);
            }
        }
    }
}
