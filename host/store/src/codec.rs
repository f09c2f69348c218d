//! Stored values as bytes and back.
//!
//! Everything is JSON, readable with any tool once it is unpacked. Floats come
//! back bit for bit (`serde_json` prints the shortest digits that do and reads
//! them exactly); values that JSON lacks (NaN, infinities) are refused before.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use regatta_core::record::{RECORD_VERSION, TickRecord};

use crate::batch::RECORD_JSON_BYTES_MAX;
use crate::error::Problem;

/// zstd level of records. Measured on records of 100 instances, each packed
/// against its predecessor (`examples/measure_records.rs`): level 3 gives 1,118 bytes in
/// 0.49 ms, 6 gives 1,098 in 0.42 ms, 9 gives 1,070 in 0.53 ms, 12 gives 1,063
/// in 3.6 ms (all in an unoptimised build on a busy machine).
pub(crate) const RECORD_LEVEL: i32 = 6;

/// zstd level of modules: written once, read rarely.
const MODULE_LEVEL: i32 = 3;

/// Any stored value as JSON.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // The types of the core are structs, enums and strings: none can fail.
    serde_json::to_vec(value).expect("the core's types serialise")
}

/// A stored value; the error says what is wrong with it.
pub(crate) fn from_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} does not read: {error}"))
}

/// A record as JSON.
pub(crate) fn record_to_json(record: &TickRecord) -> Result<Vec<u8>, Problem> {
    let json = to_json(record);
    if json.len() > RECORD_JSON_BYTES_MAX {
        return Err(Problem::RecordTooLarge {
            set: record.observation.set.clone(),
            tick: record.observation.tick,
            bytes: json.len(),
            max_bytes: RECORD_JSON_BYTES_MAX,
        });
    }
    Ok(json)
}

/// A record from JSON; older versions are converted here once there are any.
pub(crate) fn record_from_json(json: &[u8]) -> Result<TickRecord, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let record = from_json::<TickRecord>("a record", json);
    match &record {
        Ok(record) if record.v == RECORD_VERSION => {}
        _ => {
            let Version { v } = from_json("a record", json)?;
            if v != RECORD_VERSION {
                return Err(format!("a record has version {v}, this Regatta reads {RECORD_VERSION}"));
            }
        }
    }
    record
}

/// Packs `bytes`; with a `predecessor`, only what differs from it takes room.
pub(crate) fn pack(bytes: &[u8], predecessor: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::with_dictionary(level, predecessor)?;
    compressor.include_checksum(true)?;
    compressor.compress(bytes)
}

/// The reverse of [`pack`]; `len` is the length of what was packed.
pub(crate) fn unpack(packed: &[u8], predecessor: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("packed data does not unpack: {error}");
    let bytes = zstd::bulk::Decompressor::with_dictionary(predecessor)
        .map_err(failed)?
        .decompress(packed, len)
        .map_err(failed)?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(format!("packed data has {} bytes, not {len}", bytes.len()))
    }
}

/// A module for storage: its length, then the packed bytes.
pub(crate) fn module_to_stored(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    let mut stored = len.to_le_bytes().to_vec();
    stored.extend(pack(bytes, &[], MODULE_LEVEL)?);
    Ok(stored)
}

/// The reverse of [`module_to_stored`].
pub(crate) fn module_from_stored(stored: &[u8]) -> Result<Vec<u8>, String> {
    let (len, packed) = stored.split_first_chunk().ok_or("a module is cut short")?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > crate::batch::MODULE_BYTES_MAX {
        return Err(format!("a module claims {len} bytes"));
    }
    unpack(packed, &[], len)
}
