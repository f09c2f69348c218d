//! Whether a file is a kernel that a VMM can start. Decides on the contents.
//!
//! ELF with a PVH entry point: `arch/x86/include/asm/elfnote`, note 18 of "Xen"; bzImage: `Documentation/arch/x86/boot.rst`;
//! arm64 `Image`: `Documentation/arch/arm64/booting.rst`.

use std::io;

/// How many bytes from the start are looked at first.
const HEAD_BYTES: usize = 1024;
/// Notes are a few hundred bytes; a file that claims more is not believed.
const NOTES_BYTES_MAX: u64 = 1 << 20;
const PT_NOTE: u32 = 4;
const PVH_ENTRY_NOTE: u32 = 18;

/// What kind of kernel a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelKind {
    /// An x86-64 ELF file with a PVH entry point (`vmlinux`).
    PvhElf,
    /// An x86 `bzImage` (`vmlinuz`).
    BzImage,
    /// An arm64 `Image`.
    Arm64,
}

impl std::fmt::Display for KernelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PvhElf => "PVH ELF",
            Self::BzImage => "bzImage",
            Self::Arm64 => "arm64 Image",
        })
    }
}

/// What a look at the contents showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KernelLook {
    /// A kernel.
    Kernel(KernelKind),
    /// It looks like one, and no VMM could start it.
    Broken(&'static str),
    /// Something else.
    NoKernel,
}

/// Looks at a file of `len` bytes; `read` fills a buffer from an offset.
pub(crate) fn look(
    len: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<KernelLook> {
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(len).unwrap_or(HEAD_BYTES))];
    read(&mut head, 0)?;
    let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
    Ok(if has(0, b"\x7fELF") {
        match has_pvh_entry(&head, len, read)? {
            Some(true) => KernelLook::Kernel(KernelKind::PvhElf),
            Some(false) => KernelLook::Broken(
                "it is an ELF file without a PVH entry point (a Linux kernel needs CONFIG_PVH)",
            ),
            None => KernelLook::Broken("it is an ELF file that was cut off, or that is not for x86-64"),
        }
    } else if has(0x202, b"HdrS") && has(0x1fe, b"\x55\xaa") {
        // Where the protected-mode kernel begins, and how long it is at least: in 512-byte sectors and 16-byte paragraphs.
        let setup = u64::from(head.get(0x1f1).copied().unwrap_or(0).max(1)) + 1;
        let paragraphs = head.get(0x1f4..0x1f8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        if setup * 512 + u64::from(paragraphs) * 16 > len {
            KernelLook::Broken("it is a bzImage that was cut off")
        } else {
            KernelLook::Kernel(KernelKind::BzImage)
        }
    } else if has(0x38, b"ARM\x64") {
        KernelLook::Kernel(KernelKind::Arm64)
    } else {
        KernelLook::NoKernel
    })
}

/// Whether a note segment of an x86-64 ELF file holds the PVH entry point; none when there is no telling.
fn has_pvh_entry(
    head: &[u8],
    len: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
) -> io::Result<Option<bool>> {
    const X86_64: u16 = 62;
    let class_and_order = head.get(4..6);
    let (Some(machine), Some(table), Some(entry_bytes), Some(entries)) =
        (u16_at(head, 18), u64_at(head, 32), u16_at(head, 54), u16_at(head, 56))
    else {
        return Ok(None);
    };
    if class_and_order != Some(&[2, 1]) || machine != X86_64 || entry_bytes < 56 {
        return Ok(None);
    }
    let table_bytes = u64::from(entry_bytes) * u64::from(entries);
    if table.checked_add(table_bytes).is_none_or(|end| end > len) {
        return Ok(None);
    }
    let mut segments = vec![0; usize::try_from(table_bytes).unwrap_or(0)];
    read(&mut segments, table)?;
    for segment in segments.chunks_exact(usize::from(entry_bytes)) {
        let (Some(kind), Some(offset), Some(bytes)) =
            (u32_at(segment, 0), u64_at(segment, 8), u64_at(segment, 32))
        else {
            return Ok(None);
        };
        if offset.checked_add(bytes).is_none_or(|end| end > len) {
            return Ok(None);
        }
        if kind != PT_NOTE || bytes > NOTES_BYTES_MAX {
            continue;
        }
        let mut notes = vec![0; usize::try_from(bytes).unwrap_or(0)];
        read(&mut notes, offset)?;
        if has_note(&notes) {
            return Ok(Some(true));
        }
    }
    Ok(Some(false))
}

fn has_note(mut notes: &[u8]) -> bool {
    while let (Some(name), Some(description), Some(kind)) =
        (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8))
    {
        if kind == PVH_ENTRY_NOTE && notes.get(12..).is_some_and(|rest| rest.starts_with(b"Xen\0")) {
            return true;
        }
        let aligned = |bytes: u32| (bytes as usize).next_multiple_of(4);
        match notes.get(12 + aligned(name)..).and_then(|rest| rest.get(aligned(description)..)) {
            Some(rest) => notes = rest,
            None => return false,
        }
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look_at(bytes: &[u8]) -> KernelLook {
        let read = |buffer: &mut [u8], at: u64| {
            let at = usize::try_from(at).expect("small");
            let from = bytes.get(at..at + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(from);
            Ok(())
        };
        look(bytes.len() as u64, read).expect("reads only what is there")
    }

    /// An ELF file with one note segment.
    fn elf(note_kind: u32) -> Vec<u8> {
        let mut elf = vec![0; 256];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&62_u16.to_le_bytes());
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
        elf[56..58].copy_from_slice(&1_u16.to_le_bytes());
        elf[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        elf[72..80].copy_from_slice(&128_u64.to_le_bytes());
        elf[96..104].copy_from_slice(&44_u64.to_le_bytes());
        // Another note comes first, with a name and a description that need padding.
        for (at, number) in [(128, 2), (132, 5), (136, 1), (152, 4), (156, 4), (160, note_kind)] {
            elf[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        elf[164..168].copy_from_slice(b"Xen\0");
        elf
    }

    fn bz_image() -> Vec<u8> {
        let mut image = vec![0; 4096];
        image[0x1f1] = 3;
        image[0x1f4..0x1f8].copy_from_slice(&128_u32.to_le_bytes());
        image[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image
    }

    #[test]
    fn kernels_are_told_by_their_contents() {
        assert_eq!(look_at(&elf(PVH_ENTRY_NOTE)), KernelLook::Kernel(KernelKind::PvhElf));
        assert_eq!(look_at(&bz_image()), KernelLook::Kernel(KernelKind::BzImage));
        let mut arm64 = vec![0; 64];
        arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(look_at(&arm64), KernelLook::Kernel(KernelKind::Arm64));
    }

    #[test]
    fn what_only_looks_like_a_kernel_is_told_apart_from_what_does_not() {
        assert!(matches!(look_at(&elf(7)), KernelLook::Broken(why) if why.contains("CONFIG_PVH")));
        assert!(matches!(look_at(&elf(PVH_ENTRY_NOTE)[..120]), KernelLook::Broken(_)));
        assert!(matches!(look_at(&bz_image()[..3000]), KernelLook::Broken(why) if why.contains("cut off")));
        let mut disk = vec![0; 1024];
        disk[0x1fe..0x200].copy_from_slice(b"\x55\xaa");
        for bytes in [&disk[..], b"", b"\x7fEL", b"stands for a kernel\n"] {
            assert_eq!(look_at(bytes), KernelLook::NoKernel);
        }
    }

    proptest! {
        #[test]
        fn any_file_is_judged_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            note in any::<u32>(),
            cut in 0_usize..256,
        ) {
            look_at(&bytes);
            bytes.splice(0..bytes.len().min(4), *b"\x7fELF");
            look_at(&bytes);
            let mut elf = elf(note);
            let noise = bytes.len().min(64);
            elf[192..192 + noise].copy_from_slice(&bytes[..noise]);
            elf[24..24 + noise.min(40)].copy_from_slice(&bytes[..noise.min(40)]);
            look_at(&elf);
            look_at(&elf[..cut]);
        }
    }
}
