//! What can go wrong before a policy runs.

use std::fmt;
use std::path::PathBuf;

use regatta_core::decision::{FailureKind, PolicyFailure};
use thiserror::Error;

use crate::compile::CompileLimit;
use crate::text::capped;

const LISTED: usize = 10;
const LISTED_BYTES: usize = 200;

/// A cause that a library gave as it pleased.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The engine cannot be started.
#[derive(Debug, Error)]
pub enum EngineError {
    /// wasmtime refuses this machine.
    #[error("cannot start the WebAssembly engine")]
    Wasmtime(#[source] Cause),
    /// The thread that keeps deadlines cannot be started.
    #[error("cannot start the thread that keeps deadlines")]
    Thread(#[source] std::io::Error),
    /// Policies run in a process of their own, and there is none.
    #[error("cannot start the policy worker {}", .program.display())]
    Worker {
        /// Its program.
        program: PathBuf,
        /// Why it cannot.
        source: std::io::Error,
    },
}

impl EngineError {
    pub(crate) fn wasmtime(error: wasmtime::Error) -> Self {
        Self::Wasmtime(error.into())
    }
}

/// A module that cannot become a policy.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Larger than any policy should be.
    #[error("the module has {size} bytes, more than the {limit} that are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Not WebAssembly, or broken.
    #[error("not a valid WebAssembly module or component")]
    Malformed(#[source] Cause),
    /// Written against another version of the contract.
    #[error("the module speaks version {found} of the policy contract; this host speaks {supported}")]
    ContractVersion {
        /// What its custom section `regatta-contract` says.
        found: String,
        /// What this host speaks.
        supported: &'static str,
    },
    /// It wants from outside what no policy gets.
    #[error(
        "the module imports what a policy may not have: {}; a policy may import regatta:policy/observe and \
         regatta:policy/log, a core module with the JSON exports the functions of `regatta`, and any of them WASI \
         (preview 1 in a core module; cli, clocks, filesystem, io, random and sockets of 0.2 in a component), \
         which is virtual",
        list(.imports)
    )]
    Imports {
        /// Each import outside the contract, as `module name` or `interface function`.
        imports: Vec<String>,
    },
    /// It lacks what every policy has.
    #[error("the module does not export what a policy must: {} (see docs/policy-contract.md)", list(.missing))]
    Exports {
        /// Each missing export.
        missing: Vec<String>,
    },
    /// A core module that knocks at none of the doors.
    #[error(
        "the module is a core module that has neither a component-type section nor exports of the contract \
         (`regatta:policy/scaling@0.1.x#decide` and the others, or `regatta_decide` and the others for JSON); build \
         it with the SDK or wit-bindgen, or export them (see docs/policy-contract.md)"
    )]
    NoComponentType,
    /// A core module that does not fit what it says of itself.
    #[error("cannot turn the core module into a component")]
    Componentize(#[source] Cause),
    /// Cranelift refuses it.
    #[error("cannot compile the module")]
    Compile(#[source] Cause),
    /// It takes more to compile than any policy should.
    #[error(
        "the module cannot be compiled: {0}; make it smaller: optimise it for size, leave out what it does not use, \
         split its largest functions"
    )]
    Limit(#[from] CompileLimit),
    /// The compiler is a process of its own, and cannot be run. That is the host's fault, not the module's.
    #[error("cannot run the compiler {}", .program.display())]
    Compiler {
        /// Its program.
        program: PathBuf,
        /// Why it cannot.
        source: std::io::Error,
    },
    /// The process that runs policies cannot take it. That is the host's fault, not the module's.
    #[error("cannot get the module ready in the policy worker {}", .program.display())]
    Worker {
        /// Its program.
        program: PathBuf,
        /// Why it cannot.
        source: std::io::Error,
    },
    /// An import or export has another type than the contract's.
    #[error("the module does not fit the policy contract {contract}")]
    Contract {
        /// The version that this host speaks.
        contract: &'static str,
        /// What does not fit.
        source: Cause,
    },
    /// `describe` gave no answer.
    #[error("the policy cannot describe itself: {0}")]
    Describe(FailedCall),
    /// `describe` answered nonsense.
    #[error("the policy describes itself wrongly: {}", list(.0))]
    BadManifest(Vec<String>),
}

/// Parameters that a policy does not accept.
#[derive(Debug, Error)]
pub enum ParamsError {
    /// It says what is wrong with them.
    #[error("{}", problems(.0))]
    Problems(Vec<ParamsProblem>),
    /// `validate` gave no answer.
    #[error("the policy cannot check its parameters: {0}")]
    Failed(FailedCall),
}

/// One problem of parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamsProblem {
    /// JSON pointer into the parameters; empty for all of them.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl LoadError {
    /// Whether the same module may load at another time: the host is at fault, or too busy.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Compiler { .. } | Self::Worker { .. } => true,
            Self::Limit(limit) => !matches!(limit, CompileLimit::Count { .. } | CompileLimit::Code { .. }),
            Self::Compile(_) => true,
            Self::Describe(call) => {
                matches!(call.failure.kind, FailureKind::Host | FailureKind::Deadline)
            }
            _ => false,
        }
    }
}

impl fmt::Display for ParamsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// A policy that is not fit to take over.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// It refuses its parameters.
    #[error("the policy does not accept its parameters")]
    Params(#[from] ParamsError),
    /// It failed on recorded history.
    #[error(
        "the policy failed on the recorded tick {tick}: {}: {}{}",
        .failure.kind.as_str(), .failure.message, below(.log)
    )]
    DryRun {
        /// Number of that tick.
        tick: u64,
        /// How it failed.
        failure: PolicyFailure,
        /// The end of what it logged, for people.
        log: Vec<String>,
    },
    /// It had an answer to no recorded tick.
    #[error(
        "the policy returned no decision for any of the {ticks} recorded ticks, the last time because: {}{}",
        .failure.message, below(.log)
    )]
    Undecided {
        /// Recorded ticks that it was given.
        ticks: usize,
        /// What it said the last time.
        failure: PolicyFailure,
        /// The end of what it logged then, for people.
        log: Vec<String>,
    },
}

/// A call that gave no answer, with what it logged: languages say in their log what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {}{}", .failure.kind.as_str(), .failure.message, below(.log))]
pub struct FailedCall {
    /// How it failed.
    pub failure: PolicyFailure,
    /// The end of what it logged, for people.
    pub log: Vec<String>,
}

impl From<PolicyFailure> for FailedCall {
    fn from(failure: PolicyFailure) -> Self {
        Self { failure, log: Vec::new() }
    }
}

/// Lines of a log, each on a line of its own.
fn below(log: &[String]) -> String {
    log.iter().map(|line| format!("\n  {line}")).collect()
}

/// The first of `items`, as far as a person reads: a module may name a million things of 100,000 bytes each.
fn list(items: &[String]) -> String {
    let shown = items.iter().take(LISTED).map(|item| capped(item.clone(), LISTED_BYTES));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if items.len() > LISTED {
        text.push_str(&format!(" and {} more", items.len() - LISTED));
    }
    text
}

fn problems(problems: &[ParamsProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A state that is not handed on to another version of a policy.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The policy exports no migration.
    #[error("the policy has no migration")]
    NoMigration,
    /// The policy says why it cannot read that state.
    #[error("the policy cannot take over the state: {0}")]
    Refused(String),
    /// `migrate` gave no answer.
    #[error("the policy's migration failed: {0}")]
    Failed(FailedCall),
}
