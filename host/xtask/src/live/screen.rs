//! Where the live view goes: a block that is redrawn on a terminal, plain lines elsewhere.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::view::Frame;

/// How often a log gets a line.
const LOG_EVERY: Duration = Duration::from_secs(2);

/// Columns when the terminal does not say.
const USUAL_WIDTH: usize = 80;

/// Standard output.
pub(crate) struct Screen {
    terminal: bool,
    /// Lines of the block that are on the screen.
    drawn: usize,
    logged: Option<Instant>,
}

impl Screen {
    /// Finds out what stdout is.
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0, logged: None }
    }

    /// Shows a moment.
    pub(crate) fn show(&mut self, frame: &Frame<'_>) {
        if self.terminal {
            let lines = frame.block(width());
            let mut text = self.erasure();
            for line in &lines {
                text.push_str(line);
                text.push('\n');
            }
            self.write(&text);
            self.drawn = lines.len();
        } else if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            print(frame.line());
        }
    }

    /// Prints a line that stays, above the block.
    pub(crate) fn say(&mut self, line: impl Display) {
        let erasure = self.erasure();
        self.write(&format!("{erasure}{line}\n"));
        self.drawn = 0;
    }

    /// What removes the block from the screen.
    fn erasure(&self) -> String {
        match self.drawn {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // When nobody reads any more there is nobody to tell.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Prints a line. When nobody reads any more there is nobody to tell, but what was started must
/// still be ended: `println!` would panic.
pub(crate) fn print(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Columns of the terminal.
fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        // The last column is left free: some terminals wrap when it is written.
        .map_or(USUAL_WIDTH, |columns| columns - 1)
}
