//! What the fuzz targets do with bytes that reach the host past no sandbox: manifests, pages of guests, events of VMMs, images,
//! recordings, copies of the state. The targets of `cargo xtask fuzz` call these, and so does a test of every build
//! (`tests/tests/it/parsers.rs`).
//!
//! A body panics when a parser is not what it promises to be, whatever the bytes: anything else is a fine answer.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use regatta_core::explain::explain;
use regatta_core::manifest::{Manifest, read_limits, read_manifest, to_manifest_yaml, units};
use regatta_core::record::TickRecord;
use regatta_metrics::text;
use regatta_policy_host::vectors;
use regatta_policy_tools::{check_recording, parameters};
use regatta_store::{Options, RedbStore, check_copy};
use regatta_traffic::{GuestClient, GuestRequest};
use regatta_util::{Said, steers};
use regatta_vmm::{EventParser, look_at, look_at_any, look_at_kernel};

/// A body and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: [Target; 10] = [
    ("manifest", manifest),
    ("quantities", quantities),
    ("guest_page", guest_page),
    ("guest_answer", guest_answer),
    ("vmm_events", vmm_events),
    ("image", image),
    ("record", record),
    ("recording", recording),
    ("state_copy", state_copy),
    ("policy_files", policy_files),
];

/// Longest text of all problems of one manifest.
const PROBLEMS_BYTES: usize = 1 << 20;

/// Any bytes as a manifest. What is read is written so that it reads the same.
pub(crate) fn manifest(bytes: &[u8]) {
    let read = |bytes: &[u8]| read_manifest(bytes, "m.yaml", "/base");
    match read(bytes) {
        Ok(Manifest { set, .. }) => {
            let yaml = to_manifest_yaml(&set);
            let again = read(yaml.as_bytes()).unwrap_or_else(|problems| panic!("{problems}\n{yaml}"));
            assert_eq!(again.set, set, "{yaml}");
        }
        Err(problems) => {
            let told = problems.to_string();
            assert!(!told.is_empty() && told.len() <= PROBLEMS_BYTES, "{} bytes", told.len());
        }
    }
}

/// Durations, sizes and limits as people write them.
pub(crate) fn quantities(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(ms) = units::parse_duration_ms(text) {
        assert_eq!(units::parse_duration_ms(&units::format_duration_ms(ms)), Ok(ms));
    }
    if let Ok(size) = units::parse_size_bytes(text) {
        assert_eq!(units::parse_size_bytes(&units::format_size_bytes(size)), Ok(size));
    }
    if let Err(why) = read_limits(text) {
        assert!(!why.is_empty() && why.len() <= 4 * text.len() + 4_096, "{} bytes", why.len());
    }
    let said = Said::from(text);
    assert!(!said.contains(steers) && Said::from(said.as_str()).as_str() == said.as_str());
}

/// Any bytes as the Prometheus text of a guest.
pub(crate) fn guest_page(bytes: &[u8]) {
    let wanted = ["load", "up", "a:b_c", "http_requests_total"];
    if let Ok(found) = text::scan(bytes, &wanted) {
        assert_eq!(found.len(), wanted.len());
        for value in found.into_iter().flatten() {
            assert!(value.abs() <= regatta_core::metrics::VALUE_MAX, "{value}");
        }
    }
}

/// A guest that answers with what it is told to.
struct Guest {
    addr: SocketAddr,
    answer: &'static Mutex<Vec<u8>>,
    runtime: tokio::runtime::Runtime,
}

static GUEST: LazyLock<Guest> = LazyLock::new(|| {
    static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The request is short: it comes in one piece.
            let _ = stream.read(&mut [0; 4_096]);
            let answer = ANSWER.lock().expect("nobody panics with it").clone();
            let _ = stream.write_all(&answer);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Guest { addr, answer: &ANSWER, runtime }
});

/// Any bytes as the answer of a guest to a probe.
pub(crate) fn guest_answer(bytes: &[u8]) {
    const LIMIT_BYTES: usize = 1_000;
    *GUEST.answer.lock().expect("nobody panics with it") = bytes.to_vec();
    let request = GuestRequest::new("/", Duration::from_secs(5), LIMIT_BYTES).expect("a path");
    let answer = GUEST.runtime.block_on(GuestClient::new(GUEST.addr).get(&request));
    if let Ok(reply) = answer {
        assert!(reply.body.len() <= LIMIT_BYTES, "{} bytes", reply.body.len());
        assert!((100..1_000).contains(&reply.status));
    }
}

/// Any bytes as the event file of a VMM, whole and in two pieces.
pub(crate) fn vmm_events(bytes: &[u8]) {
    let mut whole = EventParser::default();
    let events = whole.push(bytes);
    let at = bytes.first().map_or(0, |&first| usize::from(first) % bytes.len());
    let mut pieces = EventParser::default();
    let mut again = pieces.push(&bytes[..at]);
    again.extend(pieces.push(&bytes[at..]));
    assert_eq!((events, whole.skipped()), (again, pieces.skipped()));
}

/// A directory for files that are looked at by their names.
static SCRATCH: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::tempdir_in(dir).expect("a directory")
});

/// Any bytes as a disk, qcow2 above all, and as a kernel.
pub(crate) fn image(bytes: &[u8]) {
    let path = SCRATCH.path().join("image");
    fs::write(&path, bytes).expect("written");
    for told in [
        look_at(&path).err().map(|error| error.to_string()),
        look_at_kernel(&path).err().map(|error| error.to_string()),
        look_at_any(&path).err().map(|error| error.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert!(told.len() <= 8_192 && !told.contains(steers), "{told:?}");
    }
}

/// Any JSON as the record of a tick: what it says to people is lines of ours.
pub(crate) fn record(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<TickRecord>(bytes) else { return };
    let told = explain(&record, "now");
    // Names that a manifest checks are read as they are.
    let ours = record.observation.set.contains(steers);
    let json = serde_json::to_string(&record).expect("it can be written");
    let again: TickRecord = serde_json::from_str(&json).expect("it can be read again");
    assert_eq!(again, record);
    assert!(ours || told.lines().all(|line| !line.contains('\u{1b}')), "{told:?}");
}

/// Any lines as a recording, packed and as they are.
pub(crate) fn recording(bytes: &[u8]) {
    let packed = zstd::encode_all(bytes, 1).expect("packed");
    for file in [bytes, &packed] {
        if let Err(error) = check_recording(file) {
            assert!(error.to_string().len() <= 8_192);
        }
    }
}

/// A store of ours, and where its first page is.
static STORE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir_in(SCRATCH.path()).expect("a directory");
    drop(RedbStore::open(dir.path(), Options::default()).expect("a store"));
    fs::read(dir.path().join("state.redb")).expect("its file")
});

/// A copy of the state in which bytes are changed: three of each six say where (from the front, or from the back), the others what is put there.
/// The first byte says how much is cut off.
pub(crate) fn state_copy(bytes: &[u8]) {
    let mut file = STORE.clone();
    for patch in bytes.get(1..).unwrap_or_default().chunks_exact(6) {
        let at = usize::from(patch[0]) << 16 | usize::from(patch[1]) << 8 | usize::from(patch[2]);
        let at = at % file.len();
        for (offset, byte) in patch[3..].iter().enumerate() {
            if let Some(there) = file.get_mut(at + offset) {
                *there = *byte;
            }
        }
    }
    if let Some(cut @ 1..) = bytes.first() {
        file.truncate(file.len() * usize::from(*cut) / 256);
    }
    let path = SCRATCH.path().join("copy.redb");
    fs::write(&path, file).expect("written");
    if let Err(error) = check_copy(&path) {
        assert!(error.to_string().len() <= 8_192);
    }
}

/// Any text as vectors of decisions and as the schema of parameters.
pub(crate) fn policy_files(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Err(error) = vectors::parse(text) {
        assert!(error.to_string().len() <= 8_192 + text.len());
    }
    if let Ok(schema) = serde_json::from_str(text) {
        assert!(parameters(&schema).len() <= 10_000);
    }
}
