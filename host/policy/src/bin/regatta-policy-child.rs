//! Compiles one module, or runs policies, within limits; see `regatta_policy_host::Place::Child`. The daemon has the same
//! as a hidden command: this program is for tests and for tools that do not re-execute themselves.

use std::process::ExitCode;

fn main() -> ExitCode {
    regatta_policy_host::policy_child(&std::env::args_os().next_back().unwrap_or_default())
}
