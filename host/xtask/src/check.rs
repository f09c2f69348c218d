//! `test`: everything that must hold, stage by stage, with one summary at the end.
//!
//! Stages that do not need each other run even when an earlier one failed, so that one run
//! shows every problem; the exit code is not zero if any stage failed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use regatta_util::program::on_path;

use crate::ui::{self, Steps};
use crate::workspace::Workspace;
use crate::{bench, cargo, dependencies, guest_image, languages, policies, proc, setup};

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo nextest run`: filters, `-E`, `--no-capture`, …
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// The other binaries of this package are checked and tested as well.
const WITH_ALL: [&str; 2] = ["--features", "xtask/bench"];

/// How a stage ended.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Passed,
    Failed,
    /// A stage it needs failed.
    Skipped,
}

struct Stage {
    name: &'static str,
    verdict: Verdict,
    took: Duration,
}

struct Report {
    stages: Vec<Stage>,
    total: usize,
}

impl Report {
    /// Runs one stage and notes its verdict. A stage whose `needs` did not pass is skipped.
    fn stage(&mut self, name: &'static str, needs: &[Verdict], work: impl FnOnce() -> Result<()>) -> Verdict {
        let number = self.stages.len() + 1;
        let skip = needs.iter().any(|verdict| *verdict != Verdict::Passed);
        let start = Instant::now();
        let verdict = if skip {
            println!("== {number}/{} {name}: skipped, it needs a stage that failed", self.total);
            Verdict::Skipped
        } else {
            println!("== {number}/{} {name}", self.total);
            match work() {
                Ok(()) => Verdict::Passed,
                Err(error) => {
                    ui::error(&error);
                    Verdict::Failed
                }
            }
        };
        let took = start.elapsed();
        if !skip {
            println!("== {name}: {} in {}", verdict.word(), ui::seconds(took));
        }
        self.stages.push(Stage { name, verdict, took });
        verdict
    }

    fn passed(&self) -> bool {
        self.stages.iter().all(|stage| stage.verdict == Verdict::Passed)
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// The task.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let mut report = Report { stages: Vec::new(), total: 13 };
    let mut without = Vec::new();
    let cargo = |arguments: &[&str]| {
        let mut command = cargo::command();
        command.current_dir(&workspace.root).args(arguments);
        command
    };

    let ready = report.stage("set-up", &[], || {
        let mut steps = Steps::new(setup::STEPS);
        setup::guest_target(&mut steps)?;
        setup::tools(&mut steps)?;
        setup::programs(&mut steps)
    });
    report.stage("fmt", &[ready], || proc::run(&mut cargo(&["fmt", "--all", "--", "--check"])));
    report.stage("dependencies", &[], || dependencies::check(workspace));
    let guests = report.stage("guests for wasm32", &[ready], || {
        policies::build(workspace, &workspace.target.join("policies"), &mut Steps::new(1))
    });
    let all = languages::chosen(&[languages::Wanted::All]);
    std::thread::scope(|scope| {
        // Downloads wait for the network, clippy for the processor. What cannot be had is told by the stage that needs it.
        if ready == Verdict::Passed {
            scope.spawn(|| languages::ready(workspace, &all));
        }
        report.stage("clippy", &[ready], || {
            let mut command = cargo(&["clippy", "--workspace", "--all-targets"]);
            proc::run(command.args(WITH_ALL).args(["--", "-D", "warnings"]))
        });
    });
    report.stage("languages", &[ready], || {
        let out = workspace.target.join("policies/languages");
        without = languages::build(workspace, &all, &out, &mut Steps::new(languages::steps(&all)))?;
        Ok(())
    });
    // The very selection that the tests run with, their programs included: another one would choose
    // other features of shared crates and compile them twice.
    let binaries = report.stage("build", &[ready], || {
        let mut command = cargo(&["nextest", "run", "--workspace", "--no-run"]);
        proc::run(command.args(WITH_ALL))
    });
    // Tests that boot it skip themselves where it cannot be made; that it could not is a failure here.
    report.stage("guest image", &[ready], || {
        if on_path("apt-get").is_none() {
            println!("skipped: the guest's kernel is Debian's, and there is no apt-get on PATH");
            return Ok(());
        }
        let directory = guest_image::directory(workspace);
        guest_image::build(workspace, &directory, &mut Steps::new(guest_image::STEPS))
    });
    // By itself: the faults are compiled in behind a feature that nothing else may have.
    report.stage("seeded faults", &[ready], || {
        let arguments = ["test", "--package", "regatta-lab", "--features", "mutants", "--test", "mutants"];
        proc::run(cargo(&arguments).args(["--", "--nocapture"]))
    });
    report.stage("doc tests", &[ready], || {
        let mut command = cargo(&["test", "--doc", "--workspace"]);
        proc::run(command.args(WITH_ALL))
    });
    report.stage("doc", &[ready], || {
        let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
        proc::run(command.args(WITH_ALL).env("RUSTDOCFLAGS", "-D warnings"))
    });
    // The figures say nothing in this build; that a measurement breaks would be seen by nobody for weeks.
    report.stage("bench --quick", &[guests, binaries], || {
        // All targets, as the tests: programs alone would be built with other features of shared crates, and these once more.
        let mut build = cargo(&["build", "--workspace", "--all-targets"]);
        proc::run(build.args(WITH_ALL))?;
        bench::quick(workspace)
    });
    // Last, so that what the test runner says stands at the end.
    report.stage("tests", &[guests, binaries], || {
        let mut command = cargo(&["nextest", "run", "--workspace"]);
        // A language that was not skipped above must have been built.
        command.env("REGATTA_REQUIRE_LANGUAGES", "1");
        proc::run(command.args(WITH_ALL).args(&args.nextest))
    });

    println!("\nSummary ({} in all):", ui::seconds(start.elapsed()));
    for stage in &report.stages {
        println!("  {:<8} {:<20} {:>7}", stage.verdict.word(), stage.name, ui::seconds(stage.took));
    }
    for (language, reason) in &without {
        println!("  not built and not tested: the example in {language}: {reason}");
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
