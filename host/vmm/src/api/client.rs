//! One client per VMM: one keep-alive connection, one call at a time, every call bounded.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::connection::{ConnectError, Held};
use super::error::{ApiError, ApiErrorKind};
use super::response::{Ping, VmInfo};

/// The VMM reads bodies of at most 51,200 bytes; a larger one desynchronises the connection.
const REQUEST_LIMIT_BYTES: usize = 50 * 1024 - 1;
/// More than any answer is; a VMM gone mad must not fill our memory.
const RESPONSE_LIMIT_BYTES: usize = 4 * 1024 * 1024;

const QUICK: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(10);

/// Speaks to one VMM. Clones share the connection and the queue for it.
#[derive(Clone, Debug)]
pub(crate) struct VmmClient {
    socket: PathBuf,
    pid: i32,
    /// The VMM serves one call at a time and takes 10 connections: calls wait here, not there. Its socket is held from the first on.
    turn: Arc<Mutex<Option<Held>>>,
}

impl VmmClient {
    /// A client for the VMM, process `pid`, that listens (or will listen) on `socket`. Nothing is sent yet.
    pub(crate) fn new(socket: &Path, pid: i32) -> Self {
        Self { socket: socket.to_path_buf(), pid, turn: Arc::default() }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) async fn ping(&self, within: Duration) -> Result<Ping, ApiError> {
        self.get("vmm.ping", within).await
    }

    pub(crate) async fn info(&self) -> Result<VmInfo, ApiError> {
        self.get("vm.info", QUICK).await
    }

    /// `vm.info`, with "no VM was described" as `None`.
    pub(crate) async fn info_if_created(&self) -> Result<Option<VmInfo>, ApiError> {
        match self.info().await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind == ApiErrorKind::NotCreated => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn create(&self, config: &Value) -> Result<(), ApiError> {
        self.put("vm.create", Some(config), SLOW).await
    }

    pub(crate) async fn boot(&self, within: Duration) -> Result<(), ApiError> {
        self.put("vm.boot", None, within).await
    }

    pub(crate) async fn delete(&self) -> Result<(), ApiError> {
        self.put("vm.delete", None, SLOW).await
    }

    pub(crate) async fn shutdown(&self, within: Duration) -> Result<(), ApiError> {
        self.put("vm.shutdown", None, within).await
    }

    pub(crate) async fn power_button(&self) -> Result<(), ApiError> {
        self.put("vm.power-button", None, QUICK).await
    }

    pub(crate) async fn reboot(&self) -> Result<(), ApiError> {
        self.put("vm.reboot", None, SLOW).await
    }

    pub(crate) async fn pause(&self) -> Result<(), ApiError> {
        self.put("vm.pause", None, SLOW).await
    }

    pub(crate) async fn resume(&self) -> Result<(), ApiError> {
        self.put("vm.resume", None, SLOW).await
    }

    /// Writes the paused VM into the directory `to`.
    pub(crate) async fn snapshot(&self, to: &Path, within: Duration) -> Result<(), ApiError> {
        let body = json!({ "destination_url": file_url(to) });
        self.put("vm.snapshot", Some(&body), within).await
    }

    /// Restores a VM from the directory `from` and lets it run.
    pub(crate) async fn restore(
        &self,
        from: &Path,
        on_demand: bool,
        within: Duration,
    ) -> Result<(), ApiError> {
        let mut body = json!({ "source_url": file_url(from), "resume": true });
        if on_demand {
            body["memory_restore_mode"] = "OnDemand".into();
        }
        self.put("vm.restore", Some(&body), within).await
    }

    async fn get<T: DeserializeOwned>(&self, call: &'static str, within: Duration) -> Result<T, ApiError> {
        let (status, body) = self.call(Method::GET, call, None, within).await?;
        serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_response(call, status, format!("unreadable answer: {error}")))
    }

    async fn put(&self, call: &'static str, body: Option<&Value>, within: Duration) -> Result<(), ApiError> {
        let body = body.map(Value::to_string);
        if let Some(body) = &body
            && body.len() > REQUEST_LIMIT_BYTES
        {
            return Err(ApiError::too_large(call, body.len(), REQUEST_LIMIT_BYTES));
        }
        self.call(Method::PUT, call, body, within).await.map(|_| ())
    }

    /// Waits for its turn and makes the call, both within `within`.
    async fn call(
        &self,
        method: Method,
        call: &'static str,
        body: Option<String>,
        within: Duration,
    ) -> Result<(u16, Vec<u8>), ApiError> {
        let work = async {
            let mut turn = self.turn.lock().await;
            let http = self.held(&mut turn, call)?;
            let mut request = http.request(method, format!("http://localhost/api/v1/{call}"));
            if let Some(body) = body {
                // A string body is sent with Content-Length, never chunked (which the VMM cannot read).
                request = request.header("Content-Type", "application/json").body(body);
            }
            let lost = |error: reqwest::Error| ApiError::connection(call, error.without_url());
            let mut response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    // It may have made another socket.
                    *turn = None;
                    return Err(lost(error));
                }
            };
            let status = response.status().as_u16();
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(lost)? {
                if bytes.len() + chunk.len() > RESPONSE_LIMIT_BYTES {
                    let message = format!("answer longer than {RESPONSE_LIMIT_BYTES} bytes");
                    return Err(ApiError::bad_response(call, status, message));
                }
                bytes.extend_from_slice(&chunk);
            }
            if (200..300).contains(&status) {
                Ok((status, bytes))
            } else {
                Err(ApiError::refused(call, status, &bytes))
            }
        };
        tokio::time::timeout(within, work).await.unwrap_or_else(|_| Err(ApiError::timeout(call, within)))
    }
}

impl VmmClient {
    /// The way to the VMM.
    fn held(&self, held: &mut Option<Held>, call: &'static str) -> Result<reqwest::Client, ApiError> {
        if let Some(held) = held {
            return Ok(held.http.clone());
        }
        let opened = Held::open(&self.socket, self.pid).map_err(|error| match error {
            ConnectError::Stranger { .. } => ApiError::stranger(call, error.to_string()),
            // A link in the place of its socket: whatever is told to what it leads to, the VMM does not hear it.
            ConnectError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                ApiError::stranger(call, error.to_string())
            }
            error => ApiError::connection(call, error),
        })?;
        Ok(held.insert(opened).http.clone())
    }
}

/// Not escaped: the VMM takes all after `file://` for the path.
fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
