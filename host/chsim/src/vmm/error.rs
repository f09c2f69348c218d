//! Failures of calls, as the chain of messages that the API answers with.

use std::error::Error;

use thiserror::Error;

use crate::config::ValidationError;

/// Why a call failed. The API prints it behind `"Error from API"` and the call's own text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum VmError {
    #[error("VM config is missing")]
    MissingConfig,
    #[error("VM is not created")]
    NotCreated,
    #[error("VM is already created")]
    AlreadyCreated,
    #[error("VM is not running")]
    NotRunning,
    #[error("Too many virtio-vsock devices")]
    TooManyVsockDevices,
    #[error("Failed to validate config")]
    Validation(#[source] ValidationError),
    /// The one failure that answers 429.
    #[error("Error from CPU manager")]
    VcpusLeaving,
    #[error("No device with id {0:?} to remove")]
    NoDeviceToRemove(String),
    #[error("Error from device manager")]
    UnknownDevice(#[source] UnknownDevice),
    #[error("Failed resizing a memory zone")]
    ResizeZone,
    #[error("Failed resizing a disk image")]
    ResizeDisk,
    /// Any other failure: its messages, outermost first.
    #[error("{}", .0.join(": "))]
    Chain(Vec<String>),
}

/// No device in the device tree has this id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("Failed to find device corresponding to the given identifier: {0}")]
pub(crate) struct UnknownDevice(pub(crate) String);

impl VmError {
    /// A failure given by its messages, outermost first.
    pub(crate) fn chain<T: Into<String>>(messages: impl IntoIterator<Item = T>) -> Self {
        Self::Chain(messages.into_iter().map(Into::into).collect())
    }

    /// A failure of the device manager.
    pub(crate) fn device<T: Into<String>>(messages: impl IntoIterator<Item = T>) -> Self {
        let mut chain = vec!["Error from device manager".to_owned()];
        chain.extend(messages.into_iter().map(Into::into));
        Self::Chain(chain)
    }

    /// The messages, outermost first.
    pub(crate) fn messages(&self) -> Vec<String> {
        messages(self)
    }
}

/// The messages of an error and its sources, outermost first.
pub(crate) fn messages(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut messages = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref() {
            Some(VmError::Chain(chain)) => messages.extend(chain.iter().cloned()),
            _ => messages.push(error.to_string()),
        }
        next = error.source();
    }
    messages
}
