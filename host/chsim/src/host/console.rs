//! Serial port and consoles: where the guest's output goes. Source: `vmm/src/console_devices.rs` of v53.0.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::config::{ConsoleMode, VmConfig};
use crate::vmm::VmError;

/// Output kept for a client that has not connected to a serial socket yet; the oldest goes first.
const SOCKET_BACKLOG_BYTES: usize = 256 << 10;

/// One open console.
#[derive(Debug)]
pub(crate) enum Sink {
    Nowhere,
    File(File),
    /// Kept open at both ends, so that output before the first reader is not an error.
    Pty {
        main: File,
        _sub: OwnedFd,
    },
    Stdout,
    Socket {
        listener: UnixListener,
        client: Option<UnixStream>,
        backlog: VecDeque<u8>,
    },
}

impl Sink {
    /// A second handle to the same console.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Nowhere => Self::Nowhere,
            Self::File(file) => Self::File(file.try_clone()?),
            Self::Pty { main, _sub } => Self::Pty { main: main.try_clone()?, _sub: _sub.try_clone()? },
            Self::Stdout => Self::Stdout,
            Self::Socket { listener, .. } => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                Self::Socket { listener, client: None, backlog: VecDeque::new() }
            }
        })
    }

    /// The listener of a serial socket.
    pub(crate) fn listener(&self) -> Option<&UnixListener> {
        match self {
            Self::Socket { listener, .. } => Some(listener),
            _ => None,
        }
    }

    /// Takes the client that waits at a serial socket, instead of the one before, and gives it what it missed.
    pub(crate) fn accept(&mut self) {
        let Self::Socket { listener, client, backlog } = self else {
            return;
        };
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let missed: Vec<u8> = backlog.drain(..).collect();
        if stream.set_nonblocking(true).is_ok() && stream.write_all(&missed).is_ok() {
            *client = Some(stream);
        }
    }

    /// Writes a line of the guest's. A console that cannot take it drops it: a guest does not fail for its serial port.
    pub(crate) fn line(&mut self, text: &str) {
        self.write(&[text.as_bytes(), b"\r\n"].concat());
    }

    /// Writes what comes out of the guest's serial port; see [`Sink::line`].
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Nowhere => Ok(()),
            Self::File(file) => file.write_all(bytes),
            Self::Pty { main, .. } => main.write_all(bytes),
            Self::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Self::Socket { client, backlog, .. } => {
                if client.as_mut().is_none_or(|client| client.write_all(bytes).is_err()) {
                    *client = None;
                    backlog.extend(bytes);
                    let surplus = backlog.len().saturating_sub(SOCKET_BACKLOG_BYTES);
                    backlog.drain(..surplus);
                }
                Ok(())
            }
        };
    }
}

/// All consoles of a VM.
#[derive(Debug)]
pub(crate) struct Consoles {
    pub(crate) serial: Sink,
    pub(crate) console: Sink,
    /// Socket file of the serial port, to be removed with the VM.
    pub(crate) socket: Option<PathBuf>,
}

impl Consoles {
    /// Opens what the configuration asks for, and writes the paths of new pseudo-terminals into it.
    pub(crate) fn create(config: &mut VmConfig) -> Result<Self, VmError> {
        let failed = |error: &io::Error| {
            VmError::chain([
                "Error creating console devices",
                "Error creating console device",
                &error.to_string(),
            ])
        };
        let no_socket = || {
            VmError::chain(["Error creating console devices", "No socket option support for console device"])
        };

        let console = match config.console.mode {
            ConsoleMode::Socket => return Err(no_socket()),
            mode => open(mode, &mut config.console.file).map_err(|error| failed(&error))?,
        };
        let (serial, socket) = match config.serial.mode {
            ConsoleMode::Socket => {
                let path = config.serial.socket.clone().unwrap_or_default();
                let listener = UnixListener::bind(&path).map_err(|error| failed(&error))?;
                (Sink::Socket { listener, client: None, backlog: VecDeque::new() }, Some(path))
            }
            mode => (open(mode, &mut config.serial.file).map_err(|error| failed(&error))?, None),
        };
        match config.debug_console.mode {
            ConsoleMode::Socket => return Err(no_socket()),
            // Nothing ever writes to the debug port, but its file must be creatable.
            mode => drop(open(mode, &mut config.debug_console.file).map_err(|error| failed(&error))?),
        }
        Ok(Self { serial, console, socket })
    }
}

fn open(mode: ConsoleMode, file: &mut Option<PathBuf>) -> io::Result<Sink> {
    Ok(match mode {
        ConsoleMode::Off | ConsoleMode::Null | ConsoleMode::Socket => Sink::Nowhere,
        ConsoleMode::Tty => Sink::Stdout,
        ConsoleMode::File => Sink::File(File::create(file.clone().unwrap_or_default())?),
        ConsoleMode::Pty => {
            let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
            grantpt(&main)?;
            unlockpt(&main)?;
            let name = ptsname(&main, Vec::new())?;
            let path = PathBuf::from(name.to_string_lossy().into_owned());
            let sub = File::options().read(true).write(true).open(&path)?;
            rustix::fs::fcntl_setfl(&main, OFlags::NONBLOCK)?;
            *file = Some(path);
            Sink::Pty { main: File::from(main), _sub: sub.into() }
        }
    })
}
