//! Errors of API calls, classified by the chain of messages in the body.
//!
//! The status alone says little: v53 answers 500 to nearly everything, later versions move the same errors to 400, 404 and 409.

use std::fmt;
use std::time::Duration;

use regatta_util::{Said, cut};

/// What went wrong, as far as the caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiErrorKind {
    /// No VM was described to this VMM yet.
    NotCreated,
    /// A VM is already there: described, running or half-made. `vm.delete` clears all three.
    AlreadyCreated,
    /// The VM is not running.
    NotRunning,
    /// The VM is in another state than the call needs, such as paused.
    WrongState,
    /// Another process holds a lock on a disk.
    DiskLocked,
    /// A disk, or a file behind it, does not exist.
    DiskMissing,
    /// A disk cannot be used: wrong type, unreadable, unsupported feature.
    DiskInvalid,
    /// The kernel, initramfs or firmware does not exist.
    KernelMissing,
    /// The kernel, initramfs or firmware cannot be loaded.
    KernelInvalid,
    /// The host has no memory (or huge pages) left for the guest.
    OutOfMemory,
    /// The network device is used by another process.
    TapBusy,
    /// The configuration contradicts itself.
    Validation,
    /// No device has the given id.
    UnknownDevice,
    /// The VMM cannot do it right now; the same call may work later.
    TryLater,
    /// The VMM did not understand the request: another version, or an error on our side.
    BadRequest,
    /// The VMM has no such call: another version, or built without it.
    UnknownCall,
    /// No answer in time. **Not** a sign of death: a VMM that boots or migrates does not answer.
    Timeout,
    /// The connection could not be made or broke off.
    ConnectionLost,
    /// Another process than the VMM listens on its socket; nothing was sent to it.
    Stranger,
    /// The request would be larger than the VMM can read; it was not sent.
    RequestTooLarge,
    /// The call was answered, but not with what it should return.
    BadResponse,
    /// Anything else; the chain says what.
    Other,
}

/// A failed API call with everything the VMM said.
#[derive(Debug)]
pub struct ApiError {
    /// The call, as in `vm.boot`.
    pub call: &'static str,
    /// The class.
    pub kind: ApiErrorKind,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The messages of the VMM, outermost first; or one message of ours when there was no answer.
    pub chain: Vec<Said>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.call)?;
        if let Some(status) = self.status {
            write!(f, " ({status})")?;
        }
        // "Error from API" opens every chain and says nothing.
        let chain = match &self.chain[..] {
            [first, rest @ ..] if *first == "Error from API" && !rest.is_empty() => rest,
            chain => chain,
        };
        for message in chain {
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl ApiError {
    /// The VMM answered with an error.
    pub(crate) fn refused(call: &'static str, status: u16, body: &[u8]) -> Self {
        let chain = parse_chain(body);
        Self { call, kind: classify(status, &chain), status: Some(status), chain, source: None }
    }

    pub(crate) fn timeout(call: &'static str, after: Duration) -> Self {
        let message = format!("no answer within {} ms", after.as_millis());
        Self { call, kind: ApiErrorKind::Timeout, status: None, chain: vec![message.into()], source: None }
    }

    pub(crate) fn connection(
        call: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let chain = vec!["connection to the VMM failed".to_owned()];
        Self {
            call,
            kind: ApiErrorKind::ConnectionLost,
            status: None,
            chain: chain.into_iter().map(Into::into).collect(),
            source: Some(Box::new(source)),
        }
    }

    /// Nothing was sent: it is another process that would have got it.
    pub(crate) fn stranger(call: &'static str, why: String) -> Self {
        Self { call, kind: ApiErrorKind::Stranger, status: None, chain: vec![why.into()], source: None }
    }

    pub(crate) fn too_large(call: &'static str, size_bytes: usize, limit_bytes: usize) -> Self {
        let message = format!("request of {size_bytes} bytes is over the VMM's limit of {limit_bytes}");
        Self {
            call,
            kind: ApiErrorKind::RequestTooLarge,
            status: None,
            chain: vec![message.into()],
            source: None,
        }
    }

    pub(crate) fn bad_response(call: &'static str, status: u16, message: String) -> Self {
        Self {
            call,
            kind: ApiErrorKind::BadResponse,
            status: Some(status),
            chain: vec![message.into()],
            source: None,
        }
    }
}

/// The chain in a body: a JSON array of strings, or an object with `error` (whose value may hold a raw line break, so that it is no
/// valid JSON), or, failing both, the text itself. Never empty messages, never more than 32, each at most 2 KiB.
fn parse_chain(body: &[u8]) -> Vec<Said> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let messages = serde_json::from_str::<Vec<String>>(text).unwrap_or_else(|_| {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).map(str::trim);
        let value = inner
            .and_then(|text| text.strip_prefix("\"error\""))
            .and_then(|text| text.trim_start().strip_prefix(':'))
            .map(|text| text.trim().trim_matches('"'));
        value.unwrap_or(text).lines().map(|line| line.trim().to_owned()).collect()
    });
    messages
        .into_iter()
        .map(|message| without_backtrace(&message).to_owned())
        .filter(|message| !message.is_empty())
        .take(32)
        .map(|message| Said::from(cut(&message, 2048).as_ref()))
        .collect()
}

/// Some messages of Cloud Hypervisor are made by `{:?}` of an `anyhow::Error`, which adds where in its own code they arose.
fn without_backtrace(message: &str) -> &str {
    message.split("\n\nStack backtrace:").next().unwrap_or(message)
}

/// One line of the table: every message of `all` must begin some message of the chain.
struct Rule {
    all: &'static [&'static str],
    kind: ApiErrorKind,
}

/// First match wins: specific causes stand before the messages that only say where they were met.
const RULES: &[Rule] = {
    use ApiErrorKind as K;
    const NO_FILE: &str = "No such file or directory";
    &[
        Rule { all: &["VM is already created"], kind: K::AlreadyCreated },
        Rule { all: &["VM is not created"], kind: K::NotCreated },
        Rule { all: &["VM config is missing"], kind: K::NotCreated },
        Rule { all: &["VM is not running"], kind: K::NotRunning },
        Rule { all: &["VM is currently migrating"], kind: K::TryLater },
        Rule { all: &["VM on-demand memory restore is still in progress"], kind: K::TryLater },
        Rule { all: &["Invalid transition: InvalidStateTransition"], kind: K::WrongState },
        Rule { all: &["Trying to snapshot while VM is running"], kind: K::WrongState },
        Rule { all: &["The file is already locked"], kind: K::DiskLocked },
        Rule { all: &["Error locking disk images"], kind: K::DiskLocked },
        Rule { all: &["Failed to open taps", "Device or resource busy"], kind: K::TapBusy },
        Rule { all: &["Cannot open kernel file", NO_FILE], kind: K::KernelMissing },
        Rule { all: &["Cannot open initramfs file", NO_FILE], kind: K::KernelMissing },
        Rule { all: &["Cannot open initramfs", NO_FILE], kind: K::KernelMissing },
        Rule { all: &["Cannot open firmware file", NO_FILE], kind: K::KernelMissing },
        Rule { all: &["Cannot open kernel file"], kind: K::KernelInvalid },
        Rule { all: &["Cannot load kernel"], kind: K::KernelInvalid },
        Rule { all: &["Cannot load the kernel"], kind: K::KernelInvalid },
        Rule { all: &["Cannot load initramfs"], kind: K::KernelInvalid },
        Rule { all: &["Cannot load firmware"], kind: K::KernelInvalid },
        Rule { all: &["Cannot open firmware file"], kind: K::KernelInvalid },
        Rule { all: &["Cannot open disk path", NO_FILE], kind: K::DiskMissing },
        Rule { all: &["Cannot open disk path"], kind: K::DiskInvalid },
        Rule { all: &["Disk image type does not match"], kind: K::DiskInvalid },
        Rule { all: &["Memory manager error", "Cannot allocate memory"], kind: K::OutOfMemory },
        Rule { all: &["Memory manager error", "Failed to stat filesystem", NO_FILE], kind: K::OutOfMemory },
        Rule {
            all: &["Failed to find device corresponding to the given identifier"],
            kind: K::UnknownDevice,
        },
        Rule { all: &["No device with id"], kind: K::UnknownDevice },
        Rule { all: &["Failed to validate config"], kind: K::Validation },
        Rule { all: &["Payload configuration is not bootable"], kind: K::Validation },
        Rule { all: &["Too Many Requests"], kind: K::TryLater },
        Rule { all: &["Too many open connections"], kind: K::TryLater },
        Rule { all: &["Failed to deserialize JSON"], kind: K::BadRequest },
        Rule { all: &["Bad Request"], kind: K::BadRequest },
        Rule { all: &["Invalid HTTP Method"], kind: K::BadRequest },
        Rule { all: &["Invalid header"], kind: K::BadRequest },
        Rule { all: &["Invalid request"], kind: K::BadRequest },
        Rule { all: &["Request payload with size"], kind: K::BadRequest },
        Rule { all: &["Not Found"], kind: K::UnknownCall },
    ]
};

/// The class of an error answer: by its messages, and where they say nothing known, by its status. Total: every input has one.
fn classify(status: u16, chain: &[Said]) -> ApiErrorKind {
    let matches =
        |rule: &Rule| rule.all.iter().all(|start| chain.iter().any(|message| message.starts_with(start)));
    if let Some(rule) = RULES.iter().find(|rule| matches(rule)) {
        return rule.kind;
    }
    match status {
        400 => ApiErrorKind::BadRequest,
        404 if chain.is_empty() => ApiErrorKind::UnknownCall,
        429 | 503 => ApiErrorKind::TryLater,
        _ => ApiErrorKind::Other,
    }
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;
