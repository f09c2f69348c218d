#![no_main]

#[path = "../bodies.rs"]
mod bodies;

use regatta_policy_host::{Place, Program};

/// Makes this program the compiler that it starts: to be called first of all.
fn compile_in_children() {
    const COMMAND: &str = "compile-module";
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|command| command == COMMAND) {
        let code = regatta_policy_host::policy_child(&args.next().unwrap_or_default());
        std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
    }
    let child = Place::Child(Program { path: "/proc/self/exe".into(), args: vec![COMMAND.into()] });
    bodies::COMPILER.set(child).expect("no body has run yet");
}

libfuzzer_sys::fuzz_target!(init: compile_in_children(), |bytes: &[u8]| bodies::load(bytes));
