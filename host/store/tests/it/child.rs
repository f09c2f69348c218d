//! Tests that run part of themselves in a process of its own: this very binary,
//! asked for one ignored test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the directory that the child works in.
const DIRECTORY: &str = "REGATTA_STORE_TEST_DIRECTORY";

/// The arguments that make this binary run only `test`.
pub(crate) fn arguments(test: &str) -> [String; 4] {
    [test.to_owned(), "--exact".to_owned(), "--ignored".to_owned(), "--nocapture".to_owned()]
}

/// This binary, asked to run only `test`, in `directory`.
pub(crate) fn command(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments(test)).env(DIRECTORY, directory);
    command
}

/// `script`, run by a shell in which `"$@"` is what [`command`] would run.
pub(crate) fn shell(script: &str, test: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(binary()).args(arguments(test)).env(DIRECTORY, directory);
    command
}

/// The child's directory; none when someone runs the ignored test by hand.
pub(crate) fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os(DIRECTORY).map(PathBuf::from);
    if directory.is_none() {
        println!("skipped: this is one half of another test, which runs it");
    }
    directory
}

fn binary() -> PathBuf {
    std::env::current_exe().unwrap()
}
