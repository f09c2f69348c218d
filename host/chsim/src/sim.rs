//! The control socket for tests, `<api-socket>.sim`: one JSON object per line in, one per line out. It exists only when
//! asked for (`--sim-control` or `REGATTA_CHSIM_CONTROL=1`).
//!
//! ```json
//! {"do":"clock","mode":"explicit"}      {"do":"poke","by":"400ms"}       {"do":"status"}
//! {"do":"fault","list":"hang:vm.info"}  {"do":"clear-faults"}
//! {"do":"power-off"} {"do":"reset"} {"do":"panic"} {"do":"hang"} {"do":"crash"}
//! ```
//! Answers are `{"ok":true,…}` or `{"ok":false,"error":"…"}`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::{Message, path_with};
use crate::clock::{Clock, Mode};
use crate::faults::Faults;
use crate::guest::Misdeed;
use crate::knobs::parse_duration;

/// Clients at a time; the next one is turned away.
const MAX_CLIENTS: usize = 4;
const MAX_LINE_BYTES: u64 = 16 << 10;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Order {
    Clock { mode: String },
    Poke { by: String },
    Status,
    Fault { list: String },
    ClearFaults,
    PowerOff,
    Reset,
    Panic,
    Hang,
    Crash,
}

#[derive(Debug, Clone)]
struct Control {
    sender: mpsc::Sender<Message>,
    clock: Arc<Clock>,
    faults: Arc<Faults>,
    clients: Arc<AtomicUsize>,
}

/// Opens the socket and serves it until the process ends; returns its path.
pub(crate) fn start(
    api_socket: &Path,
    sender: mpsc::Sender<Message>,
    clock: Arc<Clock>,
    faults: Arc<Faults>,
) -> io::Result<PathBuf> {
    let path = path_with(api_socket, ".sim");
    // The API socket's lock says that nobody else owns this one either.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    let control = Control { sender, clock, faults, clients: Arc::default() };
    thread::Builder::new().name("sim-control".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            if control.clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
                control.clients.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let control = control.clone();
            // A client that gets no thread sees its connection closed.
            let _ = thread::Builder::new().name("sim-client".to_owned()).spawn(move || {
                let _ = control.serve(&stream);
                control.clients.fetch_sub(1, Ordering::SeqCst);
            });
        }
    })?;
    Ok(path)
}

impl Control {
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream);
        let mut out = stream;
        loop {
            let mut line = Vec::new();
            if lines.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let (answered, wait) = mpsc::channel();
            let answer = match serde_json::from_slice(&line)
                .map_err(|error| error.to_string())
                .and_then(|order| self.obey(order, wait))
            {
                Ok(answer) => answer,
                Err(error) => json!({"ok": false, "error": error}),
            };
            writeln!(out, "{answer}")?;
            drop(answered);
        }
    }

    fn obey(&self, order: Order, answered: mpsc::Receiver<()>) -> Result<Value, String> {
        match order {
            Order::Clock { mode } => self.clock.set_mode(Mode::parse(&mode)?),
            Order::Poke { by } => self.clock.poke(parse_duration(&by)?),
            Order::Status => {
                return Ok(json!({"ok": true, "now_ns": self.clock.now(), "pid": std::process::id()}));
            }
            Order::Fault { list } => self.faults.add(&list)?,
            Order::ClearFaults => self.faults.clear(),
            Order::PowerOff => self.misdeed(Misdeed::PowerOff, answered)?,
            Order::Reset => self.misdeed(Misdeed::Reset, answered)?,
            Order::Panic => self.misdeed(Misdeed::Panic, answered)?,
            Order::Hang => self.misdeed(Misdeed::Hang, answered)?,
            Order::Crash => self.misdeed(Misdeed::Crash, answered)?,
        }
        Ok(json!({"ok": true}))
    }

    fn misdeed(&self, misdeed: Misdeed, answered: mpsc::Receiver<()>) -> Result<(), String> {
        let (reply, outcome) = mpsc::sync_channel(1);
        self.sender
            .send(Message::Misdeed(misdeed, reply, answered))
            .map_err(|_| "the VMM is on its way out".to_owned())?;
        match outcome.recv_timeout(PATIENCE) {
            Ok(true) => Ok(()),
            Ok(false) => Err("there is no guest".to_owned()),
            Err(_) => Err("the VMM does not answer".to_owned()),
        }
    }
}
