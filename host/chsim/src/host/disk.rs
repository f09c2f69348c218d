//! Disk images: what a header says, whether the files behind it are there. Nothing is ever read from or written to the
//! disk itself. Source: `block/src/factory.rs` and `block/src/formats/qcow` of v53.0.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::config::{DiskConfig, ImageType, LockGranularity};
use crate::vmm::VmError;

use super::lock::{LockError, LockKind, Range, lock};

/// How many files an overlay may stand on.
const MAX_BACKING_FILES: u32 = 10;
const QCOW_MAGIC: u32 = 0x5146_49fb;
const VHDX_SIGNATURE: u64 = 0x656c_6966_7864_6876;
const MAX_BACKING_NAME_BYTES: u32 = 1023;
const HEADER_V2_BYTES: u32 = 72;
const HEADER_V3_BYTES: u32 = 104;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// What is read to tell the type; a shorter file is not a disk.
const SECTOR_BYTES: usize = 512;

/// One file of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) path: PathBuf,
    pub(crate) format: ImageType,
}

/// An open disk image.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    /// The files that it stands on, the nearest first.
    backing: Vec<Layer>,
    path: PathBuf,
    readonly: bool,
    granularity: LockGranularity,
    logical_bytes: u64,
}

/// A problem inside a qcow2 chain: upstream's kind of error and the messages below it.
struct Broken {
    kind: &'static str,
    messages: Vec<String>,
}

impl Broken {
    fn format(text: impl Into<String>) -> Self {
        Self { kind: "Invalid format", messages: vec![text.into()] }
    }
}

impl Disk {
    /// Opens an image, tells its type from its header and, of a qcow2 overlay, opens the files it stands on.
    pub(crate) fn open(config: &DiskConfig) -> Result<(Self, ImageType), VmError> {
        let Some(path) = config.path.clone() else {
            return Err(VmError::device(["No disk path was specified when one was expected"]));
        };
        let cannot = |kind: &str, path: Option<&Path>, op: &str, below: &[String]| {
            let context = match path {
                Some(path) => format!("{kind} (path={} op={op})", path.display()),
                None => format!("{kind} (op={op})"),
            };
            VmError::device(
                ["Cannot open disk path".to_owned(), context].into_iter().chain(below.iter().cloned()),
            )
        };
        let file = File::options()
            .read(true)
            .write(!config.readonly)
            .open(&path)
            .map_err(|error| cannot("I/O error", Some(&path), "open", &[error.to_string()]))?;
        let kind = image_type(&file)
            .map_err(|error| cannot("I/O error", None, "detect_image_type", &[error.to_string()]))?;
        let mut logical_bytes = file.metadata().map(|meta| meta.len()).unwrap_or(0);
        let mut backing = Vec::new();
        if kind == ImageType::Qcow2 {
            let depth = if config.backing_files { MAX_BACKING_FILES } else { 0 };
            logical_bytes = check_qcow(&file, &path, depth, &mut backing).map_err(|broken| {
                let kind = match broken.kind {
                    // Without the flag an overlay is unsupported rather than too deep.
                    "Overflow" if !config.backing_files => "Unsupported feature",
                    kind => kind,
                };
                cannot(kind, Some(&path), "open", &broken.messages)
            })?;
        }
        let disk = Self {
            file,
            backing,
            path,
            readonly: config.readonly,
            granularity: config.lock_granularity,
            logical_bytes,
        };
        Ok((disk, kind))
    }

    /// Its size as the guest sees it, bytes.
    pub(super) fn logical_bytes(&self) -> u64 {
        self.logical_bytes
    }

    /// The open image; its lock lasts as long as anybody has this very opening of it.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The files that it stands on, the nearest first.
    pub(super) fn backing(&self) -> &[Layer] {
        &self.backing
    }

    /// Locks the image: shared when read-only, else exclusive.
    pub(crate) fn lock(&self) -> Result<(), VmError> {
        let kind = if self.readonly { LockKind::Read } else { LockKind::Write };
        let range = match self.granularity {
            LockGranularity::Full => Range::WholeFile,
            LockGranularity::ByteRange => {
                let physical_bytes = self.file.metadata().map(|meta| meta.blocks() * 512).unwrap_or(0);
                Range::First(self.logical_bytes.max(physical_bytes))
            }
        };
        lock(&self.file, kind, range).map_err(|error| self.lock_failed(&error))
    }

    /// The failure to lock this disk.
    pub(crate) fn lock_failed(&self, error: &LockError) -> VmError {
        let kind = if self.readonly { LockKind::Read } else { LockKind::Write };
        let mut messages = vec![
            "Cannot lock images of all block devices".to_owned(),
            format!("Failed to get {kind:?} lock for disk image: {}", self.path.display()),
            error.to_string(),
        ];
        if let LockError::Io(source) = error {
            messages.push(source.to_string());
        }
        VmError::Chain(messages)
    }

    /// Changes the size of a raw image, bytes.
    pub(crate) fn resize(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)?;
        self.logical_bytes = bytes;
        Ok(())
    }
}

fn image_type(file: &File) -> io::Result<ImageType> {
    let mut block = [0; SECTOR_BYTES];
    file.read_exact_at(&mut block, 0)?;
    if be32(&block, 0) == QCOW_MAGIC {
        return Ok(ImageType::Qcow2);
    }
    let bytes = file.metadata()?.len();
    let mut footer = [0; 64];
    if bytes >= SECTOR_BYTES as u64 {
        file.read_exact_at(&mut footer, bytes - SECTOR_BYTES as u64)?;
        if footer.starts_with(b"conectix") && be32(&footer, 60) == 2 {
            return Ok(ImageType::FixedVhd);
        }
    }
    let signature = block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(if signature == VHDX_SIGNATURE { ImageType::Vhdx } else { ImageType::Raw })
}

/// Big-endian number at an offset that the caller knows to be inside.
fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Checks a qcow2 header and what it stands on, which it appends to `backing`; returns the virtual size, bytes.
fn check_qcow(file: &File, path: &Path, depth: u32, backing: &mut Vec<Layer>) -> Result<u64, Broken> {
    let io = |error: io::Error| Broken {
        kind: "I/O error",
        messages: vec!["Failed to read header".to_owned(), error.to_string()],
    };
    let mut header = [0; HEADER_V3_BYTES as usize + 8];
    file.read_exact_at(&mut header, 0).map_err(io)?;
    let version = be32(&header, 4);
    if version != 2 && version != 3 {
        let messages = vec![format!("Unsupported version: {version}")];
        return Err(Broken { kind: "Unsupported feature", messages });
    }
    let cluster_bits = be32(&header, 20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(Broken::format("Invalid cluster size"));
    }
    let cluster_bytes = 1u64 << cluster_bits;
    let header_bytes = if version == 3 { be32(&header, 100) } else { HEADER_V2_BYTES };
    if version == 3 {
        // Dirty, corrupt and compression are the incompatible features that upstream knows.
        let unknown = be64(&header, 72) & !0b1011;
        if unknown != 0 {
            let bits = (0..64).filter(|bit| unknown >> bit & 1 == 1);
            let names: Vec<String> = bits.map(|bit| format!("unknown feature bit {bit}")).collect();
            let missing = format!("Missing features: {}", names.join(", "));
            let messages = vec!["Unsupported qcow2 feature(s)".to_owned(), missing];
            return Err(Broken { kind: "Unsupported feature", messages });
        }
    }
    let (offset, length) = (be64(&header, 8), be32(&header, 16));
    match (offset, length) {
        (0, 0) => {}
        (0, _) => {
            return Err(Broken::format(format!("Backing file size {length:#x} with zero offset")));
        }
        (_, 0) => {
            return Err(Broken::format(format!("Backing file offset {offset:#x} with zero size")));
        }
        _ => {
            if length > MAX_BACKING_NAME_BYTES {
                return Err(Broken::format(format!("Backing file name is too long: {length} bytes over")));
            }
            if offset < u64::from(header_bytes) {
                return Err(Broken::format(format!(
                    "Backing file name at offset {offset:#x} length {length:#x} overlaps header of size {header_bytes:#x}"
                )));
            }
            if offset.saturating_add(u64::from(length)) > cluster_bytes {
                return Err(Broken::format(format!(
                    "Backing file name at offset {offset:#x} length {length:#x} lies outside first cluster of {cluster_bytes:#x}"
                )));
            }
            let mut name = vec![0; length as usize];
            file.read_exact_at(&mut name, offset).map_err(io)?;
            let name = String::from_utf8(name).map_err(|error| Broken {
                kind: "Invalid format",
                messages: vec!["Failed to parse filename".to_owned(), error.utf8_error().to_string()],
            })?;
            let format = if version == 3 { backing_format(file, header_bytes, cluster_bytes) } else { None };
            // A relative name counts from the image that holds it.
            let base = if Path::new(&name).is_absolute() {
                PathBuf::from(&name)
            } else {
                path.parent().unwrap_or(Path::new("")).join(&name)
            };
            check_backing(&base, format.as_deref(), depth, backing)?;
        }
    }
    Ok(be64(&header, 24))
}

/// The header extension that names the format of the backing file.
fn backing_format(file: &File, header_bytes: u32, cluster_bytes: u64) -> Option<String> {
    let mut at = u64::from(header_bytes);
    while at + 8 <= cluster_bytes {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at).ok()?;
        let (kind, length) = (be32(&head, 0), u64::from(be32(&head, 4)));
        at += 8;
        match kind {
            0 => return None,
            EXTENSION_BACKING_FORMAT if length < 64 => {
                let mut name = vec![0; length as usize];
                file.read_exact_at(&mut name, at).ok()?;
                return String::from_utf8(name).ok();
            }
            _ => at += length.next_multiple_of(8),
        }
    }
    None
}

/// Opens a backing file, read-only and, as upstream does, without a lock.
fn check_backing(
    path: &Path,
    format: Option<&str>,
    depth: u32,
    backing: &mut Vec<Layer>,
) -> Result<(), Broken> {
    if depth == 0 {
        return Err(Broken {
            kind: "Overflow",
            messages: vec!["Maximum disk nesting depth exceeded".to_owned()],
        });
    }
    let io = |error: io::Error| Broken {
        kind: "I/O error",
        messages: vec![format!("Backing file I/O error: {}", path.display()), error.to_string()],
    };
    let file = File::open(path).map_err(io)?;
    let qcow = match format {
        Some("raw") => false,
        Some("qcow2") => true,
        Some(other) => {
            return Err(Broken::format(format!("Unsupported backing file format: {other}")));
        }
        None => image_type(&file).map_err(io)? == ImageType::Qcow2,
    };
    let format = if qcow { ImageType::Qcow2 } else { ImageType::Raw };
    backing.push(Layer { path: path.to_path_buf(), format });
    if !qcow {
        return Ok(());
    }
    check_qcow(&file, path, depth - 1, backing).map(|_| ()).map_err(|mut broken| {
        broken.messages.insert(0, format!("Backing file open error: {}", path.display()));
        broken
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow(backing: Option<&str>) -> Vec<u8> {
        let mut image = vec![0; 65_536];
        image[..4].copy_from_slice(&QCOW_MAGIC.to_be_bytes());
        image[4..8].copy_from_slice(&3u32.to_be_bytes());
        image[20..24].copy_from_slice(&16u32.to_be_bytes());
        image[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
        image[100..104].copy_from_slice(&104u32.to_be_bytes());
        if let Some(name) = backing {
            image[8..16].copy_from_slice(&512u64.to_be_bytes());
            image[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            image[512..512 + name.len()].copy_from_slice(name.as_bytes());
        }
        image
    }

    fn open(json: serde_json::Value) -> Result<ImageType, VmError> {
        let config: DiskConfig = serde_json::from_value(json).unwrap();
        Disk::open(&config).map(|(_, kind)| kind)
    }

    #[test]
    fn a_chain_is_followed_from_the_overlays_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("base.raw"), [0; 4096]).unwrap();
        std::fs::write(path("middle.qcow2"), qcow(Some("base.raw"))).unwrap();
        std::fs::write(path("top.qcow2"), qcow(Some("middle.qcow2"))).unwrap();
        assert_eq!(
            open(serde_json::json!({"path": path("top.qcow2"), "backing_files": true})),
            Ok(ImageType::Qcow2)
        );
        assert_eq!(open(serde_json::json!({"path": path("base.raw")})), Ok(ImageType::Raw));
        let config =
            serde_json::from_value(serde_json::json!({"path": path("top.qcow2"), "backing_files": true}));
        let (disk, _) = Disk::open(&config.unwrap()).unwrap();
        let layer = |name, format| Layer { path: path(name), format };
        assert_eq!(
            disk.backing(),
            [layer("middle.qcow2", ImageType::Qcow2), layer("base.raw", ImageType::Raw)]
        );

        std::fs::remove_file(path("base.raw")).unwrap();
        let messages = open(serde_json::json!({"path": path("top.qcow2"), "backing_files": true}))
            .unwrap_err()
            .messages();
        assert_eq!(messages[2], format!("I/O error (path={} op=open)", path("top.qcow2").display()));
        assert!(messages[3].starts_with("Backing file open error: "), "{messages:?}");
        assert_eq!(messages.last().unwrap(), "No such file or directory (os error 2)");
    }

    #[test]
    fn without_the_flag_an_overlay_is_unsupported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.qcow2");
        std::fs::write(&path, qcow(Some("/base"))).unwrap();
        let messages = open(serde_json::json!({"path": path})).unwrap_err().messages();
        assert_eq!(
            messages[1..],
            [
                "Cannot open disk path".to_owned(),
                format!("Unsupported feature (path={} op=open)", path.display()),
                "Maximum disk nesting depth exceeded".to_owned()
            ]
        );
    }

    #[test]
    fn broken_images_are_refused_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut version = qcow(None);
        version[7] = 9;
        let mut clusters = qcow(None);
        clusters[23] = 63;
        for (bytes, text) in [
            (vec![0; 100], "failed to fill whole buffer"),
            (version, "Unsupported version: 9"),
            (clusters, "Invalid cluster size"),
            (qcow(None)[..512].to_vec(), ""),
        ] {
            std::fs::write(&path, bytes).unwrap();
            match open(serde_json::json!({"path": path})) {
                Err(error) => assert!(error.messages().contains(&text.to_owned()), "{error}"),
                Ok(kind) => assert_eq!((kind, text), (ImageType::Qcow2, "")),
            }
        }
    }
}
