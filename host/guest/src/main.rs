//! `regatta-guest`: what runs inside the VMs of the tests and of `cargo xtask demo --guest qemu`.
//!
//! One static program, twice: as `/init` of the initramfs it mounts, loads modules, learns who it is and sets the
//! network up ([`init`]); then it replaces itself with the copy that lies on the root disk, which serves HTTP
//! ([`service`]). That the second one comes from the golden disk is the proof that the disk is used.
//!
//! It is process 1 all the time: when it ends, the kernel panics.

mod cmdline;
mod dmi;
mod identity;
mod init;
mod label;
mod net;
mod power;
mod seed;
mod service;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    let application = std::env::args().nth(1).is_some_and(|argument| argument == init::APPLICATION);
    let outcome = if application {
        service::run()
    } else if std::process::id() == 1 {
        init::run()
    } else {
        eprintln!("regatta-guest is the init of a VM; it does nothing elsewhere");
        return ExitCode::FAILURE;
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("regatta-guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
