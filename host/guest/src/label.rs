//! The label of a FAT file system, read from its first sector.

/// Bytes of the first sector.
pub(crate) const SECTOR_BYTES: usize = 512;

/// The label that a FAT boot sector carries, without its padding; `None` when this is no such sector.
pub(crate) fn fat_label(sector: &[u8; SECTOR_BYTES]) -> Option<String> {
    if sector[510..] != [0x55, 0xaa] {
        return None;
    }
    // The extended boot record stands further down in FAT32; its type text says where.
    let label = if sector[82..].starts_with(b"FAT32") {
        &sector[71..82]
    } else if sector[54..].starts_with(b"FAT1") {
        &sector[43..54]
    } else {
        return None;
    };
    Some(String::from_utf8_lossy(label).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_known() {
        let sector = |at: usize, label: &[u8], kind: &[u8]| {
            let mut sector = [0; SECTOR_BYTES];
            sector[510] = 0x55;
            sector[511] = 0xaa;
            sector[at..at + 11].copy_from_slice(label);
            sector[at + 11..at + 19].copy_from_slice(kind);
            sector
        };
        assert_eq!(fat_label(&sector(43, b"CIDATA     ", b"FAT12   ")).as_deref(), Some("CIDATA"));
        assert_eq!(fat_label(&sector(71, b"REGATTA    ", b"FAT32   ")).as_deref(), Some("REGATTA"));
        assert_eq!(fat_label(&sector(43, b"CIDATA     ", b"NTFS    ")), None);
        assert_eq!(fat_label(&[0; SECTOR_BYTES]), None);
    }
}
