//! A small HTTP/1.1 client for one instance, shared by its probes and scrapes.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::lb::connect_to;

/// Connections that are kept for the next request. A probe and a scrape at the
/// same moment need two.
const KEPT_CONNECTIONS: usize = 2;
/// Head of an answer, and the read buffer of a connection.
const HEAD_LIMIT_BYTES: usize = 16 << 10;
const USER_AGENT_VALUE: HeaderValue = HeaderValue::from_static("regatta");

type Sender = http1::SendRequest<Empty<Bytes>>;
type Connection = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

/// Why an instance gave no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The connection was not made: refused while it boots, unreachable.
    #[error("cannot connect to {addr}")]
    Connect {
        /// The service asked.
        addr: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No complete answer within the time.
    #[error("{addr} did not answer within {timeout_ms} ms")]
    TimedOut {
        /// The service asked.
        addr: SocketAddr,
        /// The time given.
        timeout_ms: u128,
    },
    /// The path is none, for example because it holds a space.
    #[error("invalid path `{path}`")]
    Path {
        /// The path asked for.
        path: String,
    },
    /// The connection broke, or what came is not HTTP/1.1.
    #[error("no valid answer from {addr}")]
    Http {
        /// The service asked.
        addr: SocketAddr,
        /// What the HTTP library said.
        #[source]
        source: hyper::Error,
    },
    /// The body is larger than allowed.
    #[error("the answer of {addr} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The service asked.
        addr: SocketAddr,
        /// The limit.
        limit_bytes: usize,
    },
}

/// A GET for one path, checked once and sent many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestRequest {
    uri: Uri,
    /// From the connect to the last byte of the body.
    pub timeout: Duration,
    /// Of the body.
    pub limit_bytes: usize,
}

impl GuestRequest {
    /// A GET of `path`, which starts with `/`.
    ///
    /// # Errors
    /// [`GuestError::Path`].
    pub fn new(path: &str, timeout: Duration, limit_bytes: usize) -> Result<Self, GuestError> {
        let uri = path.parse::<Uri>().ok().filter(|uri| path.starts_with('/') && uri.host().is_none());
        let uri = uri.ok_or_else(|| GuestError::Path { path: path.to_owned() })?;
        Ok(Self { uri, timeout, limit_bytes })
    }
}

/// An answer of an instance, of any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReply {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// Asks one instance over HTTP/1.1 and keeps its connections alive. Clones share
/// the connections.
///
/// A connection is driven by the request that uses it and rests in between, so
/// an instance costs no task of its own for it.
#[derive(Debug, Clone)]
pub struct GuestClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    addr: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<(Sender, Connection)>>,
}

impl GuestClient {
    /// A client for the service at `addr`; nothing is connected yet.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        // The text of an address is always a valid header value.
        let host = HeaderValue::from_str(&addr.to_string()).unwrap_or(HeaderValue::from_static("localhost"));
        Self { inner: Arc::new(Inner { addr, host, idle: Mutex::default() }) }
    }

    /// The service that is asked.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// Asks, over a kept connection where there is one. A kept connection that
    /// the instance has closed meanwhile is not a failure: a new one is made.
    ///
    /// # Errors
    /// Every kind of [`GuestError`] but `Path`.
    pub async fn get(&self, request: &GuestRequest) -> Result<GuestReply, GuestError> {
        let asked = timeout(request.timeout, self.ask(request)).await;
        let addr = self.inner.addr;
        asked.unwrap_or(Err(GuestError::TimedOut { addr, timeout_ms: request.timeout.as_millis() }))
    }

    async fn ask(&self, request: &GuestRequest) -> Result<GuestReply, GuestError> {
        while let Some((sender, connection)) = self.take_idle() {
            match self.exchange(sender, connection, request).await {
                // GET is idempotent, so it may be asked again.
                Err(GuestError::Http { .. }) => {}
                result => return result,
            }
        }
        let addr = self.inner.addr;
        let stream =
            connect_to(addr, request.timeout).await.map_err(|source| GuestError::Connect { addr, source })?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_LIMIT_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| GuestError::Http { addr, source })?;
        self.exchange(sender, connection, request).await
    }

    async fn exchange(
        &self,
        mut sender: Sender,
        connection: Connection,
        request: &GuestRequest,
    ) -> Result<GuestReply, GuestError> {
        let addr = self.inner.addr;
        let answer = async {
            sender.ready().await.map_err(|source| GuestError::Http { addr, source })?;
            let response = sender.send_request(self.request(request)).await;
            read(addr, response.map_err(|source| GuestError::Http { addr, source })?, request.limit_bytes)
                .await
        };
        let mut connection = Some(connection);
        let reply = {
            let mut answer = pin!(answer);
            tokio::select! {
                biased;
                reply = &mut answer => reply?,
                _ = drive(&mut connection) => answer.await?,
            }
        };
        if let Some(connection) = connection.filter(|_| !sender.is_closed()) {
            self.put_idle((sender, connection));
        }
        Ok(reply)
    }

    fn request(&self, request: &GuestRequest) -> Request<Empty<Bytes>> {
        let mut asked = Request::new(Empty::new());
        *asked.uri_mut() = request.uri.clone();
        asked.headers_mut().insert(HOST, self.inner.host.clone());
        asked.headers_mut().insert(USER_AGENT, USER_AGENT_VALUE);
        asked
    }

    fn take_idle(&self) -> Option<(Sender, Connection)> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_idle(&self, connection: (Sender, Connection)) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT_CONNECTIONS {
            idle.push(connection);
        }
    }
}

/// Drives a connection until the instance has closed it, then drops it: what
/// came before is with the request, which learns that no more will come.
async fn drive(connection: &mut Option<Connection>) {
    if let Some(open) = connection {
        // Why it ended, the request is told.
        let _ = open.await;
    }
    *connection = None;
}

async fn read(
    addr: SocketAddr,
    response: Response<Incoming>,
    limit_bytes: usize,
) -> Result<GuestReply, GuestError> {
    let status = response.status().as_u16();
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|source| GuestError::Http { addr, source })?;
        let Some(data) = frame.data_ref() else { continue };
        if body.len() + data.len() > limit_bytes {
            return Err(GuestError::TooLarge { addr, limit_bytes });
        }
        body.extend_from_slice(data);
    }
    Ok(GuestReply { status, body })
}
