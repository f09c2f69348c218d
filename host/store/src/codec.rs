//! Stored values as bytes and back.
//!
//! Everything is JSON, readable with any tool once it is unpacked. Floats come
//! back bit for bit (`serde_json` prints the shortest digits that do and reads
//! them exactly); values that JSON lacks (NaN, infinities) are refused before.

use regatta_core::observation::WindowSample;
use regatta_core::record::{RECORD_VERSION, TickRecord};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::batch::BLOB_BYTES_MAX;

/// zstd level of records. Measured on records of 100 instances, each packed
/// against its predecessor (`examples/measure_records.rs`): level 3 gives 1,118 bytes in
/// 0.49 ms, 6 gives 1,098 in 0.42 ms, 9 gives 1,070 in 0.53 ms, 12 gives 1,063
/// in 3.6 ms (all in an unoptimized build on a busy machine).
pub(crate) const RECORD_LEVEL: i32 = 6;

/// zstd level of blobs: written once, read rarely.
const BLOB_LEVEL: i32 = 3;

/// Bytes that one sample of a window takes as JSON, give or take a few: the limit of a record would be reached by printing thousands.
const SAMPLE_JSON_BYTES: usize = 45;

/// Any stored value as JSON.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // The types of the core are structs, enums and strings: none can fail.
    serde_json::to_vec(value).expect("the core's types serialize")
}

/// A stored value; the error says what is wrong with it.
pub(crate) fn from_json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} cannot be read: {error}"))
}

/// The windows of a record's metrics, in the order of its metrics.
pub(crate) type Windows = Vec<Vec<WindowSample>>;

/// A record whose windows are kept apart: they hardly change from tick to tick.
#[derive(Debug)]
pub(crate) struct Plain {
    /// The record as JSON, its windows empty.
    pub(crate) json: Vec<u8>,
    pub(crate) windows: Windows,
}

impl Plain {
    /// About as many bytes as the whole record has as JSON.
    pub(crate) fn json_bytes(&self) -> usize {
        self.json.len() + self.windows.iter().map(Vec::len).sum::<usize>() * SAMPLE_JSON_BYTES
    }
}

/// Takes a record apart.
pub(crate) fn plain(record: &TickRecord) -> Plain {
    let mut record = record.clone();
    let windows =
        record.observation.metrics.iter_mut().map(|metric| std::mem::take(&mut metric.window)).collect();
    Plain { json: to_json(&record), windows }
}

/// A record from JSON. With `windows`, those that were kept apart.
pub(crate) fn record_from_json(json: &[u8], windows: Option<&Windows>) -> Result<TickRecord, String> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let record = from_json::<TickRecord>("a record", json);
    match &record {
        Ok(record) if record.v <= RECORD_VERSION => {}
        _ => {
            let Version { v } = from_json("a record", json)?;
            if v > RECORD_VERSION {
                return Err(format!(
                    "a record has version {v}, this Regatta reads versions up to {RECORD_VERSION}"
                ));
            }
        }
    }
    let mut record = record?;
    if let Some(windows) = windows {
        let metrics = &mut record.observation.metrics;
        if metrics.len() != windows.len() {
            return Err(format!("a record has {} metrics and {} windows", metrics.len(), windows.len()));
        }
        for (metric, window) in metrics.iter_mut().zip(windows) {
            metric.window.clone_from(window);
        }
    }
    Ok(record)
}

/// Packs `bytes`; with a `predecessor`, only what differs from it takes room.
pub(crate) fn pack(bytes: &[u8], predecessor: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::with_dictionary(level, predecessor)?;
    compressor.include_checksum(true)?;
    compressor.compress(bytes)
}

/// The reverse of [`pack`]; `len` is the length of what was packed.
pub(crate) fn unpack(packed: &[u8], predecessor: &[u8], len: usize) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("packed data cannot be unpacked: {error}");
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

/// A blob for storage: its length, then the packed bytes.
pub(crate) fn blob_to_stored(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let len = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    let mut stored = len.to_le_bytes().to_vec();
    stored.extend(pack(bytes, &[], BLOB_LEVEL)?);
    Ok(stored)
}

/// The reverse of [`blob_to_stored`].
pub(crate) fn blob_from_stored(stored: &[u8]) -> Result<Vec<u8>, String> {
    let (len, packed) = stored.split_first_chunk().ok_or("a blob is cut short")?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > BLOB_BYTES_MAX {
        return Err(format!("a blob claims {len} bytes"));
    }
    unpack(packed, &[], len)
}
