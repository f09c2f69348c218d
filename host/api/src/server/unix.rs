//! The API on a Unix socket.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use regatta_util::Seldom;
use rustix::fs::{Mode, chmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::impatient::Impatient;
use crate::caller::{Caller, Role};

/// Connections that the kernel keeps for us beyond those that are served.
const BACKLOG: i32 = 128;

/// How long a client may take to send the head of a request, the first one included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests may still take once the daemon shall stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause after a failed accept (out of file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the API's socket, which only its owner may connect to (mode 0600).
///
/// A socket that a dead daemon left behind is replaced. Needs a tokio runtime.
///
/// # Errors
/// `AddrInUse` when somebody listens there, or something that is not a socket has the
/// name; else whatever the system says.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    // Nobody can connect before `listen`, so there is no moment with a wider mode.
    chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let in_use = |what| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    if !metadata.file_type().is_socket() {
        return in_use("something that is not a socket has this name");
    }
    match StdUnixStream::connect(path) {
        Ok(_) => in_use("a daemon listens there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Failed accepts are told once in such a period.
static ACCEPTS_FAIL: Seldom = Seldom::new(Duration::from_secs(10));

/// Serves `router` on `listener`, at most `connections_max` connections at a time (the next ones wait), until `shutdown` completes, then gives open
/// requests 3 s to end and cuts off those that do not (what they change is changed
/// all the same). Puts a [`Caller`] from the peer's credentials into the
/// extensions of every request.
///
/// # Errors
/// When the listener can never accept a connection again.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    connections_max: usize,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let graceful = GracefulShutdown::new();
    let cut_off = CancellationToken::new();
    let _cut_off_at_the_end = cut_off.clone().drop_guard();
    let slots = Arc::new(Semaphore::new(connections_max));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = &mut shutdown => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = graceful.watch(connection(stream, router.clone()));
                let cut_off = cut_off.clone();
                tokio::spawn(async move {
                    if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                        tracing::debug!(%error, "a connection to the API ended badly");
                    }
                    drop(slot);
                });
            }
            // The descriptor is not a listening socket (any more): waiting cannot help.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
            Err(error) => {
                if let Some(more) = ACCEPTS_FAIL.due(std::time::Instant::now()) {
                    tracing::warn!(%error, more, "the API cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("some requests to the API were cut off: they took too long to end");
    }
    Ok(())
}

/// One connection: HTTP/1.1, keep-alive, the caller put into every request.
fn connection(
    stream: UnixStream,
    router: Router,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<> {
    // Only the owner of the socket and root can connect to it.
    let admin = |uid| Caller::of_uid(uid, Role::Admin);
    let caller = stream.peer_cred().map_or_else(|_| Caller::unknown(), |peer| admin(peer.uid()));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        router.call(request)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT)), service)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let _listener = bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(bind(&path).unwrap());
        assert!(path.exists(), "a closed socket leaves its file behind");
        let _listener = bind(&path).unwrap();
        let second = bind(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert!(StdUnixStream::connect(&path).is_ok(), "the first one still listens");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
