//! Running commands in this process.

use std::io::{BufReader, Write};
use std::path::Path;

use regatta_cli::backup::RestoredState;
use regatta_cli::{self as cli, Io};

use crate::canned::{Canned, NOW_MS};
pub(crate) use crate::server::{Server, me, wait_until};

/// A daemon with the set `web`.
pub(crate) fn web() -> Server {
    Server::start(Canned::with_web())
}

/// Runs a command and compares everything that came of it.
macro_rules! shows {
    ($name:ident, $($arg:expr),+) => {
        #[test]
        fn $name() {
            let server = web();
            insta::assert_snapshot!(server.run(&[$($arg),+]).shown(&server));
        }
    };
}
pub(crate) use shows;

impl Server {
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_on(args, &Surroundings::default())
    }

    pub(crate) fn run_on(&self, args: &[&str], surroundings: &Surroundings) -> Ran {
        run(&self.socket, args, surroundings)
    }
}

/// What a command runs in.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub(crate) input: &'static str,
    pub(crate) in_terminal: bool,
    pub(crate) out_terminal: bool,
    pub(crate) out_width: Option<usize>,
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
        out_width: surroundings.out_width,
        err_terminal: surroundings.err_terminal,
        colour: surroundings.colour,
        clock_ms: &|| NOW_MS,
        serve: &|args| anyhow::bail!("{args:?}"),
        doctor: &|_| Vec::new(),
        restore: &|data, file| {
            anyhow::ensure!(file.ends_with("good.redb"), "{} is damaged", file.display());
            let replaced = Some(data.join("state.redb.replaced-7"));
            Ok(RestoredState { sets: vec!["web".to_owned(), "db".to_owned()], instances: 5, replaced })
        },
        engine: &|_| regatta_policy_tools::EngineOptions::default(),
    };
    let socket = socket.to_str().unwrap();
    let args = ["regatta"].into_iter().chain(args.iter().copied()).chain(["--socket", socket]);
    cli::run(args, &mut io)
}
