//! JSON text and pointers to it.

use serde_json::value::RawValue;

/// Checks that `text` is JSON, without making anything of it: any depth and any numbers will do.
pub(super) fn raw(text: &str) -> serde_json::Result<&RawValue> {
    serde_json::from_str(text)
}

/// JSON text without the space between its tokens; numbers and strings stay as they were written.
pub(super) fn compact(raw: &RawValue) -> String {
    let mut compact = String::with_capacity(raw.get().len());
    let (mut string, mut escaped) = (false, false);
    for character in raw.get().chars() {
        if string {
            string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            string = character == '"';
        }
        compact.push(character);
    }
    compact
}

/// Pointer and length of a result.
pub(super) fn unpack(packed: i64) -> (usize, usize) {
    let packed = packed.cast_unsigned();
    let half = |half: u64| usize::try_from(half & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    (half(packed >> 32), half(packed))
}

/// A pointer or length as WebAssembly means it.
pub(crate) fn unsigned(value: i32) -> usize {
    usize::try_from(value.cast_unsigned()).unwrap_or(usize::MAX)
}

/// `length` bytes of `memory` from `pointer`.
pub(crate) fn slice_mut(memory: &mut [u8], pointer: i32, length: i32) -> Option<&mut [u8]> {
    let start = unsigned(pointer);
    memory.get_mut(start..start.checked_add(unsigned(length))?)
}

/// `length` bytes of `memory` from `pointer`.
pub(crate) fn slice(memory: &[u8], pointer: i32, length: i32) -> Option<&[u8]> {
    let start = unsigned(pointer);
    memory.get(start..start.checked_add(unsigned(length))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_goes_and_content_stays() {
        let text =
            "\n{ \"a \\\" b\\\\\" : [ 1.50 , 1e2 ,\t\" x \" ], \"n\": 123456789012345678901234567890 } ";
        let compacted = compact(raw(text).unwrap());
        assert_eq!(compacted, r#"{"a \" b\\":[1.50,1e2," x "],"n":123456789012345678901234567890}"#);
        assert_eq!(compact(raw(&compacted).unwrap()), compacted);
    }

    #[test]
    fn what_lies_outside_is_nothing() {
        let mut memory = [0; 8];
        assert_eq!(slice(&memory, 6, 2), Some(&[0, 0][..]));
        for (pointer, length) in [(6, 3), (9, 0), (-1, 1), (0, -1), (-1, -1)] {
            assert_eq!(slice(&memory, pointer, length), None, "{pointer} {length}");
            assert_eq!(slice_mut(&mut memory, pointer, length), None, "{pointer} {length}");
        }
        assert_eq!(unpack(-1), (0xffff_ffff, 0xffff_ffff));
        assert_eq!(unpack((7 << 32) | 3), (7, 3));
    }
}
