//! The binary; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    regatta_chsim::run(std::env::args_os())
}
