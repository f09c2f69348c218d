//! Writer for empty qcow2 overlays: header, backing-format extension, one refcount table, refcount blocks, a zeroed L1 table.
//!
//! Layout after QEMU's `docs/interop/qcow2.txt`, version 3, clusters of 64 KiB: cluster 0 header and backing path, cluster 1
//! refcount table, cluster 2 refcount block, clusters 3… L1 table. Everything the guest did not write is a hole that reads through to the
//! backing file.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::OverlayError;
use crate::image::ImageFormat;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;
const HEADER_BYTES: u32 = 104;
const REFCOUNT_ORDER: u32 = 4;
const BACKING_FORMAT_EXTENSION: u32 = 0xE279_2ACA;
const BACKING_PATH_LIMIT: usize = 1023;
const FIXED_CLUSTERS: u64 = 3;
/// 16 clusters of L1 table; QEMU's own limit is twice that.
pub(crate) const MAX_SIZE_BYTES: u64 = 64 << 40;

/// What to write where; everything else of the file is a hole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Offset and bytes.
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    pub(crate) file_bytes: u64,
}

/// Lays out an overlay of `size_bytes` over `backing`. Pure.
pub(crate) fn plan(backing: &Path, format: ImageFormat, size_bytes: u64) -> Result<Plan, OverlayError> {
    let name = backing.as_os_str().as_bytes();
    if name.len() > BACKING_PATH_LIMIT {
        return Err(OverlayError::BackingPathTooLong { len: name.len(), limit: BACKING_PATH_LIMIT });
    }
    let l1_entries = size_bytes.div_ceil(CLUSTER_BYTES * CLUSTER_BYTES / 8);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER_BYTES).max(1);
    let used_clusters = FIXED_CLUSTERS + l1_clusters;

    let mut extensions = Vec::new();
    let format = format.name().as_bytes();
    extensions.extend(BACKING_FORMAT_EXTENSION.to_be_bytes());
    extensions.extend((format.len() as u32).to_be_bytes());
    extensions.extend(format);
    extensions.resize(extensions.len().next_multiple_of(8), 0);
    extensions.extend([0; 8]); // end of extensions

    let mut header = Vec::new();
    header.extend(crate::image::QCOW2_MAGIC);
    header.extend(3u32.to_be_bytes());
    header.extend((u64::from(HEADER_BYTES) + extensions.len() as u64).to_be_bytes()); // backing file offset
    header.extend((name.len() as u32).to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size_bytes.to_be_bytes());
    header.extend(0u32.to_be_bytes()); // not encrypted
    header.extend((l1_entries as u32).to_be_bytes());
    header.extend((FIXED_CLUSTERS * CLUSTER_BYTES).to_be_bytes()); // L1 table
    header.extend(CLUSTER_BYTES.to_be_bytes()); // refcount table
    header.extend(1u32.to_be_bytes()); // its clusters
    header.extend(0u32.to_be_bytes()); // no snapshots
    header.extend(0u64.to_be_bytes());
    header.extend([0; 24]); // no feature bits
    header.extend(REFCOUNT_ORDER.to_be_bytes());
    header.extend(HEADER_BYTES.to_be_bytes());
    debug_assert_eq!(header.len(), HEADER_BYTES as usize);
    header.extend(extensions);
    header.extend(name);

    let refcount_table = (2 * CLUSTER_BYTES).to_be_bytes().to_vec();
    let refcounts = (0..used_clusters).flat_map(|_| 1u16.to_be_bytes()).collect();
    Ok(Plan {
        pieces: vec![(0, header), (CLUSTER_BYTES, refcount_table), (2 * CLUSTER_BYTES, refcounts)],
        file_bytes: used_clusters * CLUSTER_BYTES,
    })
}

/// Writes the plan to a new file. Nothing is synced: an overlay whose VM never ran is made again, not repaired.
///
/// # Errors
/// The file exists, or writing fails (the file may be left then).
pub(crate) fn write(path: &Path, plan: &Plan) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(path)?;
    file.set_len(plan.file_bytes)?;
    for (offset, bytes) in &plan.pieces {
        file.write_all_at(bytes, *offset)?;
    }
    Ok(())
}
