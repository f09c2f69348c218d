//! What no module may have, found before anything is compiled: one pass over its headers, without taking memory.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wasmparser::{Parser, Payload};

/// Functions with a body, over all modules in it; the largest language runtimes have some 30,000.
const MAX_FUNCTIONS: u64 = 100_000;
/// Bytes of code of one function; the compiler's time and memory grow faster than this does. The largest functions of
/// interpreters have some 100 KB.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;
/// Bytes of code of all functions.
const MAX_CODE_BYTES: u64 = 24 << 20;
/// Modules and components inside of it.
const MAX_PARTS: u64 = 200;
/// How deep components may be nested.
const MAX_DEPTH: u64 = 10;

/// A limit of compilation that a module goes past.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum CompileLimit {
    /// Too many of something.
    #[error("it has {count} {what}, more than {limit}")]
    Count {
        /// What there are too many of.
        what: String,
        /// How many were found, at least.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// Compiling takes too long.
    #[error("compiling it takes more than {seconds} s of CPU time")]
    Time {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// The compiler got no CPU time.
    #[error(
        "the compiler got too little CPU time and was ended after {seconds} s; try again when the host is less busy"
    )]
    Stalled {
        /// How long it ran.
        seconds: u64,
    },
    /// Compiling takes too much memory.
    #[error("compiling it takes more than {mebibytes} MiB of memory")]
    Memory {
        /// The limit, in MiB.
        mebibytes: u64,
    },
    /// The machine code is too large.
    #[error("its machine code has more than {mebibytes} MiB")]
    Code {
        /// The limit, in MiB.
        mebibytes: u64,
    },
    /// The compiler crashed.
    #[error("the compiler ended with {status}")]
    Crash {
        /// How it ended, and what it said last.
        status: String,
    },
}

/// Refuses what is too large to be compiled. Bytes that are not a module at all pass: others say what is wrong with them.
pub(crate) fn check(bytes: &[u8]) -> Result<(), CompileLimit> {
    let (mut functions, mut code, mut parts, mut depth) = (0, 0, 0, 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::Version { .. }) => {
                parts += 1;
                depth += 1;
                at_most("modules and components in it", parts, MAX_PARTS)?;
                at_most("levels of nesting", depth, MAX_DEPTH)?;
            }
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            // The header comes first, and says the number before any of them is read.
            Ok(Payload::CodeSectionStart { count, .. }) => {
                functions += u64::from(count);
                at_most("functions", functions, MAX_FUNCTIONS)?;
            }
            Ok(Payload::CodeSectionEntry(body)) => {
                let range = body.range();
                let bytes = range.end.saturating_sub(range.start);
                code += bytes;
                at_most("bytes of code in one function", bytes, MAX_FUNCTION_BYTES)?;
                at_most("bytes of code", code, MAX_CODE_BYTES)?;
            }
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

fn at_most(what: &str, count: u64, limit: u64) -> Result<(), CompileLimit> {
    if count > limit { Err(CompileLimit::Count { what: what.to_owned(), count, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leb(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// A module of nothing but functions of `bytes` bytes each.
    fn code(functions: u64, bytes: u64) -> Vec<u8> {
        let body = [leb(bytes), vec![0; usize::try_from(bytes).unwrap()]].concat();
        let count = usize::try_from(functions).unwrap();
        let types = [leb(functions), vec![0; count]].concat();
        let bodies = [leb(functions), body.repeat(count)].concat();
        let section = |id: u8, content: Vec<u8>| [vec![id], leb(content.len() as u64), content].concat();
        [b"\0asm\x01\0\0\0".to_vec(), section(3, types), section(10, bodies)].concat()
    }

    #[test]
    fn code_is_counted_by_function_and_in_all() {
        let refused = |functions, bytes| match check(&code(functions, bytes)) {
            Err(CompileLimit::Count { what, .. }) => what,
            other => panic!("{functions} of {bytes}: {other:?}"),
        };
        assert_eq!(check(&code(24, 1 << 20)), Ok(()));
        assert_eq!(refused(25, 1 << 20), "bytes of code");
        assert_eq!(refused(1, (1 << 20) + 1), "bytes of code in one function");
        assert_eq!(check(&code(100_000, 1)), Ok(()));
        assert_eq!(refused(100_001, 1), "functions");
    }

    #[test]
    fn what_is_no_module_passes() {
        for bytes in [&b""[..], b"no module", b"\0asm\x01\0\0\0\x0a\xff\xff\xff\xff\x0f"] {
            assert_eq!(check(bytes), Ok(()));
        }
    }
}
