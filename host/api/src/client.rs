//! The client of the API: typed calls over the daemon's Unix socket.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regatta_core::compare::Comparison;
use regatta_core::record::TickRecord;
use reqwest::{RequestBuilder, Url, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::endpoints::{Endpoint, endpoints};
use crate::image_types::*;
use crate::input::{Json, Query, QueryRules, Upload};
use crate::log_types::*;
use crate::recording_types::*;
use crate::recovery_types::*;
use crate::size_types::*;
use crate::types::*;
use crate::upgrade_types::*;

/// Time for a call that only looks something up.
const SHORT: Duration = Duration::from_secs(30);

/// Time for a call that may compile a policy or digest an image.
const LONG: Duration = Duration::from_secs(600);

/// How long an unused connection is kept; less than the server's own limit.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Longest line of the answer to an import; an error may list many problems.
const IMPORT_LINE_BYTES_MAX: usize = 4 << 20;

const OUR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A call that gave no answer, or an error for one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("no daemon listens on {}; start one with `{}`", socket.display(), how_to_start(socket))]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The user may not connect to the socket.
    #[error("this user may not talk to the daemon on {}; run as the daemon's user", socket.display())]
    Denied {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon is of another version and does not understand the call, or its
    /// answer is not understood.
    #[error(
        "the daemon is version {daemon} and this command is {OUR_VERSION}: incompatible versions ({what})"
    )]
    VersionMismatch {
        /// Version of the daemon.
        daemon: String,
        /// What was not understood.
        what: String,
    },
    /// What listens on the socket is not a Regatta daemon.
    #[error("what answers on {} is not a regatta daemon ({what})", socket.display())]
    NotRegatta {
        /// The socket.
        socket: PathBuf,
        /// What it did.
        what: String,
    },
    /// The daemon answered with an error.
    #[error("{}", .0.message)]
    Api(ApiError),
    /// The daemon did not answer in time.
    #[error("the daemon on {} did not answer in {} s", socket.display(), limit.as_secs())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// The time it had.
        limit: Duration,
    },
    /// The connection broke before the answer was complete. What was asked for may
    /// or may not have happened.
    #[error("the connection to the daemon on {} broke before it answered", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// How.
        #[source]
        source: reqwest::Error,
    },
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up")]
    Setup(#[source] reqwest::Error),
}

fn how_to_start(socket: &Path) -> String {
    match socket.parent() {
        Some(data) if socket == crate::paths::socket_in(data) => {
            format!("regatta serve --data {}", data.display())
        }
        _ => format!("regatta serve --socket {}", socket.display()),
    }
}

/// A client of one daemon. Cheap to clone; keeps its connection alive.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon on `socket`; nothing is connected yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(socket: impl Into<PathBuf>) -> Result<Self, ClientError> {
        let socket = socket.into();
        let http = reqwest::Client::builder()
            .unix_socket(socket.clone())
            .http1_only()
            .no_proxy()
            .pool_max_idle_per_host(1)
            // Before the server closes it: a call must not meet a closing connection.
            .pool_idle_timeout(IDLE_MAX)
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { http, socket })
    }

    /// Waits for a daemon that is just starting to listen, at most `patience`. Says nothing about whether it does: the call that
    /// follows finds out.
    pub async fn wait_until_it_listens(&self, patience: Duration) {
        const PAUSE: Duration = Duration::from_millis(50);
        let listens = async {
            while let Err(error) = tokio::net::UnixStream::connect(&self.socket).await {
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        tokio::time::sleep(PAUSE).await
                    }
                    _ => break,
                }
            }
        };
        // Out of patience: as before.
        let _ = tokio::time::timeout(patience, listens).await;
    }

    /// The socket of its daemon.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Takes a golden image into the catalogue; `progress` hears how far it is.
    ///
    /// # Errors
    /// [`ErrorCode::Invalid`] when instances could not start from it,
    /// [`ErrorCode::Conflict`] when there is one of this name.
    pub async fn import_image(
        &self,
        request: &ImportImageRequest,
        mut progress: impl FnMut(ImportProgress),
    ) -> Result<ImageInfo, ClientError> {
        let request = self.http.post(url(Endpoint::import_image.path, &[])).json(request);
        let in_time = |limit: Duration| {
            let socket = self.socket.clone();
            move |_| ClientError::TimedOut { socket, limit }
        };
        let sent = tokio::time::timeout(SHORT, request.send()).await.map_err(in_time(SHORT))?;
        let mut response = sent.map_err(|error| self.failed(error, SHORT))?;
        let status = response.status();
        let server = Server::of(response.headers());
        if !status.is_success() {
            let body = tokio::time::timeout(SHORT, response.bytes()).await.map_err(in_time(SHORT))?;
            return Err(self.refusal(&server, status, &body.map_err(|error| self.failed(error, SHORT))?));
        }
        let mut lines = Vec::new();
        loop {
            // However long an import takes, a line comes every few seconds.
            let chunk = tokio::time::timeout(SHORT, response.chunk()).await.map_err(in_time(SHORT))?;
            let chunk = chunk.map_err(|error| self.failed(error, SHORT))?;
            let ended = chunk.is_none();
            lines.extend(chunk.unwrap_or_default());
            while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(ImportEvent::Progress { progress: now }) => progress(now),
                    Ok(ImportEvent::Done { image }) => return Ok(*image),
                    Ok(ImportEvent::Failed { error }) => return Err(ClientError::Api(error)),
                    Err(error) => return Err(self.misunderstood(&server, format!("its answer: {error}"))),
                }
            }
            if ended || lines.len() > IMPORT_LINE_BYTES_MAX {
                return Err(self.misunderstood(&server, "its answer has no end".to_owned()));
            }
        }
    }

    /// The daemon's own metrics as OpenMetrics text.
    ///
    /// # Errors
    /// As every call.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let body = self.body(self.http.get(url(Endpoint::metrics.path, &[])), SHORT).await?.1;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let (server, body) = self.body(request, limit).await?;
        serde_json::from_slice(&body)
            .map_err(|error| self.misunderstood(&server, format!("its answer: {error}")))
    }

    /// Sends, and gives the name of the server and the body of a success.
    async fn body(&self, request: RequestBuilder, limit: Duration) -> Result<(Server, Vec<u8>), ClientError> {
        let response = request.timeout(limit).send().await.map_err(|error| self.failed(error, limit))?;
        let status = response.status();
        let server = Server::of(response.headers());
        let body = response.bytes().await.map_err(|error| self.failed(error, limit))?;
        if status.is_success() {
            return Ok((server, body.into()));
        }
        Err(self.refusal(&server, status, &body))
    }

    /// What an answer with an error's status means.
    fn refusal(&self, server: &Server, status: reqwest::StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ApiError>(body) {
            Ok(error) if error.code == ErrorCode::BadRequest && server.is_another_version() => {
                self.misunderstood(server, error.message)
            }
            Ok(error) => ClientError::Api(error),
            Err(_) => self.misunderstood(server, format!("it answers {status}")),
        }
    }

    fn misunderstood(&self, server: &Server, what: String) -> ClientError {
        match server {
            Server::Regatta(version) if version == OUR_VERSION => {
                ClientError::Api(ApiError::internal(format!("the daemon's answer is not understood: {what}")))
            }
            Server::Regatta(version) => ClientError::VersionMismatch { daemon: version.clone(), what },
            Server::Other => ClientError::NotRegatta { socket: self.socket.clone(), what },
        }
    }

    fn failed(&self, error: reqwest::Error, limit: Duration) -> ClientError {
        let socket = self.socket.clone();
        if error.is_timeout() {
            return ClientError::TimedOut { socket, limit };
        }
        if !error.is_connect() {
            return ClientError::Broken { socket, source: error };
        }
        let source = io_error(&error);
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket, source },
            _ => ClientError::Unreachable { socket, source },
        }
    }
}

macro_rules! calls {
    ($(
        $(#[doc = $doc:literal])+
        $method:ident $path:literal [$tag:ident, $role:ident, $time:ident]
        $name:ident($($parameter:ident: $parameter_type:ty),*) $($input:ident: $carrier:ident<$input_type:ty>)? => $answer:ty;
    )* @by_hand $($by_hand:tt)*) => {
        impl Client {
            $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// As every call: see [`ClientError`].
                pub async fn $name(
                    &self,
                    $($parameter: $parameter_type,)*
                    $($input: &$input_type,)?
                ) -> Result<$answer, ClientError> {
                    let request = self.http.$method(url($path, &[$(&$parameter.to_string()),*]));
                    let limit = $time;
                    $(let (request, limit) = $carrier($input).put(request, limit);)?
                    self.call(request, limit).await
                }
            )*
        }
    };
}
endpoints!(calls);

impl<T: Serialize> Json<&T> {
    fn put(self, request: RequestBuilder, limit: Duration) -> (RequestBuilder, Duration) {
        (request.json(self.0), limit)
    }
}

impl<T: Serialize> Upload<&T> {
    fn put(self, request: RequestBuilder, limit: Duration) -> (RequestBuilder, Duration) {
        Json(self.0).put(request, limit)
    }
}

impl<T: Serialize + QueryRules> Query<&T> {
    fn put(self, request: RequestBuilder, limit: Duration) -> (RequestBuilder, Duration) {
        (request.query(self.0), limit + self.0.wait())
    }
}

/// Who answers, by the `server` header.
enum Server {
    /// A Regatta daemon of this version.
    Regatta(String),
    /// Something else.
    Other,
}

impl Server {
    fn of(headers: &header::HeaderMap) -> Self {
        let name = headers.get(header::SERVER).and_then(|name| name.to_str().ok());
        match name.and_then(|name| name.strip_prefix("regatta/")) {
            Some(version) => Self::Regatta(version.to_owned()),
            None => Self::Other,
        }
    }

    fn is_another_version(&self) -> bool {
        !matches!(self, Self::Regatta(version) if version == OUR_VERSION)
    }
}

/// The system's error at the bottom of a failed connect.
fn io_error(error: &reqwest::Error) -> io::Error {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(system) = inner.downcast_ref::<io::Error>() {
            return match system.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(system.kind(), system.to_string()),
            };
        }
        source = inner.source();
    }
    io::Error::other(error.to_string())
}

/// An address on the daemon: `path` with `parameters` in place of what stands in braces, each encoded as one
/// segment, so that no name can lead to another route.
fn url(path: &str, parameters: &[&str]) -> Url {
    #[expect(clippy::expect_used, reason = "constant text, checked by the tests")]
    let mut url = Url::parse("http://regatta/").expect("a constant URL is valid");
    let mut parameters = parameters.iter().copied();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.split('/').skip(1).map(|segment| match segment.strip_prefix('{') {
            Some(_) => parameters.next().unwrap_or_default(),
            None => segment,
        }));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        let url = url(Endpoint::drop_policy.path, &["a/b?c#d é", "3"]);
        assert_eq!(url.path(), "/v1/sets/a%2Fb%3Fc%23d%20%C3%A9/policy/candidates/3");
    }

    #[test]
    fn the_advice_starts_a_daemon_on_the_very_socket() {
        assert_eq!(how_to_start(Path::new("/d/api.sock")), "regatta serve --data /d");
        assert_eq!(how_to_start(Path::new("/d/other")), "regatta serve --socket /d/other");
    }
}
