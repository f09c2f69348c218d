//! Whether everything that a qcow2 image points to lies within its file. A file that was cut off keeps its header, so only a walk through
//! its tables tells; QEMU and Cloud Hypervisor read zeros where data is missing.

use std::collections::BTreeSet;
use std::io;

use super::format::{FormatError, PROBE_BYTES};

/// Bits of a table entry that are an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;

/// What went wrong on the walk.
#[derive(Debug)]
pub(crate) enum WalkError {
    Read(io::Error),
    Format(FormatError),
}

/// Walks the tables of an image whose header [`super::format::probe`] has accepted. `read` fills a buffer from an offset of the file,
/// which has `len` bytes.
///
/// The last cluster may be incomplete: some writers do not fill it up. All others must be there.
pub(crate) fn check(
    head: &[u8],
    len: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> Result<(), WalkError> {
    debug_assert!(head.len() <= PROBE_BYTES, "the probe reads no more");
    let u32_at =
        |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    let u64_at =
        |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    let cluster_bits = u32_at(20).clamp(9, 21);
    let cluster = 1_u64 << cluster_bits;
    let cut = |what, at| WalkError::Format(FormatError::CutOff { what, at, len });

    let refcounts = u64::from(u32_at(56)) * cluster;
    if u64_at(48).saturating_add(refcounts) > len {
        return Err(cut("its refcount table", u64_at(48)));
    }
    // As many as the size of the disk needs; more would map nothing. The probe saw that they lie in the file.
    let entries = u64_at(24).div_ceil(1 << (2 * cluster_bits - 3)).min(u64::from(u32_at(36)));
    let mut tables = BTreeSet::new();
    let mut piece = vec![0; 64 * 1024];
    let (mut at, end) = (u64_at(40), u64_at(40) + entries * 8);
    while at < end {
        let bytes = usize::try_from((end - at).min(piece.len() as u64)).unwrap_or(piece.len());
        read(&mut piece[..bytes], at).map_err(WalkError::Read)?;
        tables.extend(offsets(&piece[..bytes]).map(|entry| entry & OFFSET).filter(|table| *table != 0));
        at += bytes as u64;
    }
    // Each table once, however many entries point to it: no file makes this walk longer than itself.
    let mut table = vec![0; 1 << cluster_bits];
    let mut furthest = 0;
    for offset in tables {
        if offset.saturating_add(cluster) > len {
            return Err(cut("a table of clusters", offset));
        }
        read(&mut table, offset).map_err(WalkError::Read)?;
        let data = |entry: u64| match entry & COMPRESSED {
            0 => entry & OFFSET,
            _ => entry & ((1 << (62 - (cluster_bits - 8))) - 1),
        };
        furthest = furthest.max(offsets(&table).map(data).max().unwrap_or(0));
    }
    // Every cluster before the furthest one ends where that begins, or before.
    if furthest >= len { Err(cut("data", furthest)) } else { Ok(()) }
}

fn offsets(table: &[u8]) -> impl Iterator<Item = u64> + '_ {
    table.chunks_exact(8).map(|entry| entry.try_into().map_or(0, u64::from_be_bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::format::{QCOW2_MAGIC, probe};
    use super::*;

    const CLUSTER: u64 = 1 << 16;

    /// A qcow2 image of 1 GiB with two L2 tables and three clusters of data, the last one at the end of the file: header, refcount table,
    /// refcount block, L1, L2, L2, data, data, data.
    pub(in super::super) fn image() -> Vec<u8> {
        let mut image = vec![0; 9 * CLUSTER as usize];
        let mut put = |at: u64, bytes: &[u8]| image[at as usize..][..bytes.len()].copy_from_slice(bytes);
        let in_use = |cluster: u64| (cluster * CLUSTER) | (1 << 63);
        put(0, &QCOW2_MAGIC);
        put(4, &3_u32.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &(1_u64 << 30).to_be_bytes());
        put(36, &2_u32.to_be_bytes());
        put(40, &(3 * CLUSTER).to_be_bytes());
        put(48, &CLUSTER.to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &104_u32.to_be_bytes());
        put(CLUSTER, &(2 * CLUSTER).to_be_bytes());
        put(3 * CLUSTER, &in_use(4).to_be_bytes());
        put(3 * CLUSTER + 8, &in_use(5).to_be_bytes());
        put(4 * CLUSTER, &in_use(6).to_be_bytes());
        put(4 * CLUSTER + 24, &in_use(7).to_be_bytes());
        put(5 * CLUSTER + 8, &in_use(8).to_be_bytes());
        for cluster in 6..9 {
            put(cluster * CLUSTER, b"data of the guest");
        }
        image
    }

    fn walk(image: &[u8]) -> Result<(), String> {
        let head = &image[..PROBE_BYTES];
        let len = image.len() as u64;
        probe(head, len).map_err(|error| error.to_string())?;
        let read = |buffer: &mut [u8], at: u64| {
            let at = at as usize;
            let from = image.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(from);
            Ok(())
        };
        check(head, len, read).map_err(|error| match error {
            WalkError::Format(error) => error.to_string(),
            WalkError::Read(error) => panic!("read past what the walk had checked: {error}"),
        })
    }

    #[test]
    fn a_whole_image_passes_and_its_last_cluster_may_be_incomplete() {
        walk(&image()).expect("whole");
        walk(&image()[..8 * CLUSTER as usize + 100]).expect("QEMU writes such files");
    }

    #[test]
    fn wherever_it_is_cut_off_before_that_it_is_seen() {
        let image = image();
        for keep in [1, 2, 3, 4, 5, 6, 7, 8] {
            let cut = walk(&image[..keep * CLUSTER as usize]).expect_err("cut off");
            assert!(cut.contains("cut off") || cut.contains("beyond the end"), "{keep}: {cut}");
        }
        let cut = walk(&image[..8 * CLUSTER as usize]).expect_err("cut off");
        assert!(cut.contains("data at byte 524288 lies beyond its end (524288 bytes)"), "{cut}");
    }

    #[test]
    fn compressed_clusters_are_found_where_they_are() {
        let mut image = image();
        let sectors = 3 << (62 - 8);
        let entry = |at: u64| (COMPRESSED | sectors | at).to_be_bytes();
        image[4 * CLUSTER as usize..][..8].copy_from_slice(&entry(8 * CLUSTER + 77));
        walk(&image).expect("within");
        image[4 * CLUSTER as usize..][..8].copy_from_slice(&entry(12 * CLUSTER + 77));
        assert!(walk(&image).expect_err("beyond").contains("data at byte 786509"));
    }

    proptest::proptest! {
        #[test]
        fn any_tables_are_walked_without_a_panic(
            noise in proptest::collection::vec((0_usize..6 * CLUSTER as usize, proptest::prelude::any::<u8>()), 0..60),
        ) {
            let mut image = image();
            for (at, byte) in noise {
                image[at] = byte;
            }
            let _ = walk(&image);
        }
    }
}
