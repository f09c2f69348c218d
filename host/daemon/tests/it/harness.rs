//! A server on a socket of its own, and the command line against it.

use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta::api::{Caller, bind, router, serve_unix};
use regatta::cli::{self, Io};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::canned::{Canned, NOW_MS};

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
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::start_on(&dir.path().join("api.sock"), Arc::new(canned));
        server.dir = Some(dir);
        server
    }

    pub(crate) fn start_on(socket: &Path, canned: Arc<Canned>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let entered = runtime.enter();
        let listener = bind(socket).unwrap();
        let router = router(canned.clone());
        let served = runtime.spawn(serve_unix(listener, router, async move {
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

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_on(args, &Surroundings::default())
    }

    pub(crate) fn run_on(&self, args: &[&str], surroundings: &Surroundings) -> Ran {
        run(&self.socket, args, surroundings)
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

/// What a command runs in.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) input: &'static str,
    pub(crate) in_terminal: bool,
    pub(crate) out_terminal: bool,
    pub(crate) err_terminal: bool,
    pub(crate) colour: bool,
}

/// What came of a command.
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// All of it, with what differs from run to run replaced.
    pub(crate) fn shown(&self, server: &Server) -> String {
        let dir = server.dir().to_str().unwrap();
        let text = format!("exit code {}\n--- out\n{}--- err\n{}", self.code, self.out, self.err);
        text.replace(dir, "[dir]").replace('\x1b', "␛").replace('\r', "␍")
    }
}

/// Runs the command line in this process against a socket.
pub(crate) fn run(socket: &Path, args: &[&str], surroundings: &Surroundings) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run_into(socket, args, surroundings, &mut out, &mut err);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

pub(crate) fn run_into(
    socket: &Path,
    args: &[&str],
    surroundings: &Surroundings,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let mut input = BufReader::new(surroundings.input.as_bytes());
    let mut io = Io {
        input: &mut input,
        out,
        err,
        in_terminal: surroundings.in_terminal,
        out_terminal: surroundings.out_terminal,
        err_terminal: surroundings.err_terminal,
        colour: surroundings.colour,
        clock_ms: &|| NOW_MS,
        serve: &|args| anyhow::bail!("{args:?}"),
    };
    let socket = socket.to_str().unwrap();
    let args = ["regatta"].into_iter().chain(args.iter().copied()).chain(["--socket", socket]);
    cli::run(args, &mut io)
}

/// The user that runs the tests, as the daemon names it.
pub(crate) fn me() -> String {
    Caller::of_uid(rustix::process::geteuid().as_raw()).name
}

/// Waits until `condition` holds; `seen` tells what was there instead.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool, seen: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen; last seen: {}", seen());
        std::thread::sleep(Duration::from_millis(5));
    }
}
