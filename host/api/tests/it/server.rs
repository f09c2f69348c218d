//! A server on a socket of its own. The tests of the command line and of the binary use this file too.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use regatta_api::{Caller, Role, bind, router, serve_unix};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::canned::Canned;

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with canned answers on a real socket.
pub(crate) struct Server {
    pub(crate) canned: Arc<Canned>,
    pub(crate) socket: PathBuf,
    dir: Option<TempDir>,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<io::Result<()>>>,
}

impl Server {
    pub(crate) fn start(canned: Canned) -> Self {
        let canned = Arc::new(canned);
        Self::start_with(canned.clone(), router(canned))
    }

    pub(crate) fn start_with(canned: Arc<Canned>, router: Router) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::serve(&dir.path().join("api.sock"), canned, router);
        server.dir = Some(dir);
        server
    }

    pub(crate) fn start_on(socket: &Path, canned: Arc<Canned>) -> Self {
        Self::serve(socket, canned.clone(), router(canned))
    }

    fn serve(socket: &Path, canned: Arc<Canned>, router: Router) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let entered = runtime.enter();
        let listener = bind(socket).unwrap();
        let served = runtime.spawn(serve_unix(listener, router, 64, async move {
            let _ = stopped.await;
        }));
        drop(entered);
        Self { canned, socket: socket.to_owned(), dir: None, runtime, stop: Some(stop), served: Some(served) }
    }

    /// Stops it the way a daemon stops; the socket's file stays.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(served) = self.served.take() {
            let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, served).await });
            ended
                .expect("the server ends")
                .expect("the server does not panic")
                .expect("the server ends well");
        }
    }

    /// Where a test may put files.
    pub(crate) fn dir(&self) -> &Path {
        self.socket.parent().unwrap()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a future on the server's runtime.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

/// The user that runs the tests, as the daemon names it.
pub(crate) fn me() -> String {
    Caller::of_uid(rustix::process::geteuid().as_raw(), Role::Admin).name
}

/// Waits until `condition` holds; `seen` tells what was there instead.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool, seen: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen; last seen: {}", seen());
        std::thread::sleep(Duration::from_millis(5));
    }
}
