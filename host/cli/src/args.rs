//! The command line as clap reads it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use regatta_api::types::WhyLast;

use super::complete::sets;
use super::image_args::ImageCommand;
use super::instance_args::InstanceCommand;
use super::logs::LogsArgs;
use super::orphan_args::OrphansCommand;
use super::plan::PlanArgs;
use super::policy_tools::args::PolicyToolCommand;
use super::process_args::ProcessCommand;
use super::record_args::{RecordCommand, ReplayArgs};
use super::serve_args::ServeArgs;
use super::size_args::{FreezeArgs, HoldArgs, LimitsArgs, ScaleArgs};
use super::upgrade::UpgradeCommand;

const EXIT_CODES: &str = "\
Exit codes:
  0  ok
  1  failed
  2  wrong usage
  3  the input has problems (manifest, policy, parameters); nothing was done
  4  not found
  5  the daemon cannot be reached
  6  not possible in the present state
  7  timed out waiting
  8  differences found (diff --exit-code)

Examples:
  regatta serve &
  regatta apply -f set.yaml --wait
  regatta get
  regatta why web --last scale-out";

/// VM scale sets on your own machines, sized by your code.
#[derive(Debug, Parser)]
#[command(name = "regatta", version, propagate_version = true, after_long_help = EXIT_CODES)]
pub struct Cli {
    /// What every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Socket of the daemon [default: api.sock in the data directory]
    #[arg(long, global = true, env = "REGATTA_SOCKET", hide_env_values = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Data directory of the daemon [default: /var/lib/regatta for root, else regatta in the XDG state
    /// directory]
    #[arg(long, global = true, env = "REGATTA_DATA", hide_env_values = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Output format: human-readable tables, or the API's JSON
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// Human-readable.
    #[default]
    Table,
    /// As the API gives it; errors too, on standard error.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    #[command(after_long_help = "\
Examples:
  regatta serve
  regatta serve --data /srv/regatta --vmm cloud-hypervisor=/usr/local/bin/cloud-hypervisor")]
    Serve(ServeArgs),
    /// Create or change scale sets from manifests
    ///
    /// All files are checked first; if one of them has a problem, every problem is printed and nothing is
    /// applied.
    #[command(after_long_help = "\
Examples:
  regatta apply -f set.yaml --wait
  regatta apply -f web.yaml -f workers.yaml
  generate | regatta apply -f -")]
    Apply(ApplyArgs),
    /// Show what an apply would change
    #[command(after_long_help = "\
Example:
  regatta diff -f set.yaml --exit-code || echo 'not as in the manifest'")]
    Diff(DiffArgs),
    /// List the scale sets, or one
    Get {
        /// Only this set; with -o json everything about it
        #[arg(value_parser = set_name, add = sets())]
        set: Option<String>,
    },
    /// Show everything about a scale set
    Describe(SetArg),
    /// List the instances of a scale set
    Instances(SetArg),
    /// Show logs of an instance, also of one that is gone
    ///
    /// Instances that failed or were replaced leave their logs: of each set the last 20, of each log the last MiB.
    #[command(after_long_help = "\
Examples:
  regatta logs web
  regatta logs web 3
  regatta logs web web-3 --log vmm")]
    Logs(LogsArgs),
    /// Set the capacity now; the policy continues from it
    #[command(after_long_help = "\
Example:
  regatta scale web 5 --wait")]
    Scale(ScaleArgs),
    /// Hold the size: policies are asked and change nothing
    ///
    /// What they want is still recorded, so `regatta why` shows it. The set's min and max still bind, and broken instances
    /// are still replaced. A second hold replaces the first.
    #[command(after_long_help = "\
Examples:
  regatta hold web --for 1h --reason 'load test'
  regatta hold web --capacity 8")]
    Hold(HoldArgs),
    /// End a hold: policies decide the size again
    Resume(SetArg),
    /// Show the limits, or override min and max for a while
    ///
    /// An override counts instead of the manifest's limits (and survives an apply) until its time is over or it is cleared;
    /// another one replaces it. Without options, shows the limits in force and where they come from.
    #[command(after_long_help = "\
Examples:
  regatta limits web
  regatta limits web --min 10 --for 4h --reason 'sale'
  regatta limits web --clear")]
    Limits(LimitsArgs),
    /// Freeze a set: remove nothing that serves
    ///
    /// No scale-in, no repair, no roll-out. Failed instances are still cleaned up and replaced, and the set may scale out.
    #[command(after_long_help = "\
Examples:
  regatta freeze web --for 1h --reason 'incident'
  regatta freeze web --end")]
    Freeze(FreezeArgs),
    /// Delete a scale set and all its instances
    Delete(DeleteArgs),
    /// Protect an instance from scale-in, or from all actions
    ///
    /// `--from all` also keeps the set from repairing, draining and upgrading it. Neither level keeps an operator from
    /// removing it.
    #[command(after_long_help = "\
Examples:
  regatta protect web 3
  regatta protect web web-3 --from all")]
    Protect {
        /// The set
        #[arg(value_parser = set_name, add = sets())]
        set: String,
        /// Instance number or name
        #[arg(value_name = "ID")]
        instance: String,
        /// What it is protected from
        #[arg(long, value_name = "WHAT", default_value = "scale-in")]
        from: ProtectFrom,
    },
    /// Remove the protection of an instance
    #[command(after_long_help = "\
Example:
  regatta unprotect web 3")]
    Unprotect {
        /// The set
        #[arg(value_parser = set_name, add = sets())]
        set: String,
        /// Instance number or name
        #[arg(value_name = "ID")]
        instance: String,
    },
    /// Upgrade the instances of a scale set to the manifest in force
    ///
    /// `upgrade.mode` of the manifest says whether an apply does so by itself.
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  regatta upgrade status web
  regatta upgrade start web
  regatta upgrade rollback web"
    )]
    Upgrade(UpgradeCommand),
    /// Replace, restart or delete one instance
    #[command(subcommand)]
    Instance(InstanceCommand),
    /// Suspend and resume what a set does by itself
    #[command(subcommand)]
    Process(ProcessCommand),
    /// Swap, roll back or list policies; write, build and check your own
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Import, list and remove golden images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Explain a tick: what was observed, wanted, granted and planned
    #[command(after_long_help = "\
Examples:
  regatta why web
  regatta why web --last scale-out
  regatta why web --tick 421 -o json")]
    Why(WhyArgs),
    /// Print tick records, one JSON object per line
    #[command(after_long_help = "\
Example:
  regatta records web --last 100 | jq '.guards.granted'")]
    Records(RecordsArgs),
    /// Play a scenario: what a set would do, without a daemon
    ///
    /// A scenario is a text of steps (apply a manifest, let an instance fail, let time pass …); the output is the same text with what
    /// came of each step. The set is decided about by the daemon's own code; nodes, guests and the store are models.
    #[command(after_long_help = "\
Examples:
  regatta plan --steps
  regatta plan --scenario rolling-upgrade.txt
  regatta plan --scenario rolling-upgrade.txt --check")]
    Plan(PlanArgs),
    /// Re-run recorded ticks and compare
    ///
    /// Runs the policies of each recorded tick again, on the recorded observation, and concludes again. Says "all identical",
    /// or shows the first difference and fails (8). A recording (a file of `record export`) needs no daemon.
    #[command(after_long_help = "\
Examples:
  regatta replay web --since 1h
  regatta replay incident.rec")]
    Replay(ReplayArgs),
    /// Export and import recorded ticks
    #[command(subcommand)]
    Record(RecordCommand),
    /// Print events
    #[command(after_long_help = "\
Examples:
  regatta events
  regatta events web --follow")]
    Events(EventsArgs),
    /// Write a backup of the daemon's state, or list its automatic copies
    ///
    /// Needs no pause: the backup is one consistent state. It holds everything but golden images, snapshots and the disks
    /// of instances. The daemon also copies its state by itself, without records: at its start and every hour.
    #[command(after_long_help = "\
Examples:
  regatta backup /srv/backups/regatta-$(date +%F).redb
  regatta backup --list")]
    Backup {
        /// File to write, on the daemon's host; must not exist
        #[arg(value_name = "FILE", required_unless_present = "list", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// List the copies that the daemon has made by itself
        #[arg(long, conflicts_with = "file")]
        list: bool,
    },
    /// Replace the state of a stopped daemon with a backup or copy
    ///
    /// The file is checked first, and the state that it replaces is kept beside it. Refused while a daemon runs on the data
    /// directory. VMs keep running; those that the restored state does not know become orphans.
    #[command(after_long_help = "\
Example:
  regatta restore /srv/backups/regatta-2026-11-23.redb")]
    Restore {
        /// The backup or copy
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Recover sets that the store has lost
    ///
    /// Adopts orphans back from what each instance's own directory says. Each set gets its newest manifest and the
    /// capacity that it finds; its VMs keep running and serve again.
    #[command(after_long_help = "\
Examples:
  regatta recover --dry-run
  regatta recover
  regatta recover web db")]
    Recover {
        /// The sets [default: all that have orphans]
        #[arg(value_name = "SET", value_parser = set_name, add = sets())]
        sets: Vec<String>,
        /// Only show what would be recovered
        #[arg(long)]
        dry_run: bool,
    },
    /// List VMs that no stored set knows, or remove them
    ///
    /// After the state was lost or replaced, VMs that it does not know are kept as orphans. `regatta recover` adopts
    /// them back; only `orphans delete` stops them.
    #[command(after_long_help = "\
Examples:
  regatta orphans
  regatta orphans delete web/3 web/4
  regatta orphans delete web --yes")]
    Orphans {
        /// What to do with them.
        #[command(subcommand)]
        command: Option<OrphansCommand>,
    },
    /// Show daemon version, VMM and sets
    Status,
    /// Check whether this host can run real VMs
    ///
    /// Lists what is missing, with install instructions. Needs no daemon and changes nothing. Run it as the user that runs
    /// the daemon. Exits with 1 when something is missing that real VMs with isolated networks need.
    #[command(after_long_help = "\
Examples:
  regatta doctor
  regatta doctor -o json | jq '.checks[] | select(.status != \"ok\")'")]
    Doctor(DoctorArgs),
    /// Print a completion script
    #[command(after_long_help = "\
Examples:
  bash: regatta completions bash > ~/.local/share/bash-completion/completions/regatta
  zsh:  regatta completions zsh > \"${fpath[1]}/_regatta\"
  fish: regatta completions fish > ~/.config/fish/completions/regatta.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What to check.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The Cloud Hypervisor program [default: cloud-hypervisor on PATH]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub vmm: Option<PathBuf>,
    /// Show only walls against hostile guests and users: ok (in force), warn (weakened), fail (missing)
    #[arg(long)]
    pub security: bool,
}

/// One set.
#[derive(Debug, Args)]
pub struct SetArg {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
}

/// Whether to wait, and how long.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Wait for completion and show progress
    #[arg(long)]
    pub wait: bool,
    /// Wait at most this long, for example 90s or 10m
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = regatta_util::units::parse_duration)]
    pub timeout: Duration,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Manifest (repeatable); - reads standard input
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1.., value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Take policies that fail their rehearsal on recorded ticks, or name metrics that the set does not have
    #[arg(long)]
    pub force: bool,
    /// Whether to wait until all instances are in service.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Manifest (repeatable); - reads standard input
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1.., value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Exit with 8 when there are differences
    #[arg(long)]
    pub exit_code: bool,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Skip confirmation; required when stdin is not a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Whether to wait until it is gone.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Replace the active policy, between two ticks
    ///
    /// The new policy is compiled, checked and rehearsed on recorded ticks first; the old one stays ready for a
    /// rollback.
    #[command(after_long_help = "\
Examples:
  regatta policy swap web step
  regatta policy swap web ./my-policy.wasm --params '{\"target\": 0.6}'
  regatta policy swap web step --params @params.json
  regatta policy swap web step@4f1d20c9")]
    Swap(NewPolicyArgs),
    /// Roll back to the previous policy
    Rollback {
        /// The set
        #[arg(value_parser = set_name, add = sets())]
        set: String,
        /// Slot of the policy [default: the only one]
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// Go back to this activation, as `regatta policy history` shows it [default: the previous one]
        #[arg(long, value_name = "N", value_parser = activation_number)]
        to: Option<u64>,
    },
    /// Run another policy as a shadow: judged at each tick, never applied
    ///
    /// It sees the fleet as it is, and runs after the tick has acted. `regatta policy compare` shows how it performs;
    /// `promote` activates it, `drop` removes it.
    Shadow(NewPolicyArgs),
    /// Run another policy as a canary, within bounds of the active one
    ///
    /// On its first failure it is removed, and the active policy decides that same tick.
    #[command(after_long_help = "\
Example:
  regatta policy canary web ./my-policy.wasm --within 2")]
    Canary {
        /// The policy.
        #[command(flatten)]
        policy: NewPolicyArgs,
        /// How many instances it may differ from the active policy, either way
        #[arg(long, value_name = "N")]
        within: u32,
    },
    /// Make a shadow or canary the active policy
    Promote {
        /// The set
        #[arg(value_parser = set_name, add = sets())]
        set: String,
        /// Number or name, as shown by `regatta policy list` [default: the only one]
        #[arg(value_name = "NUMBER|NAME", value_parser = candidate)]
        candidate: Option<Candidate>,
    },
    /// Remove a shadow or canary
    Drop {
        /// The set
        #[arg(value_parser = set_name, add = sets())]
        set: String,
        /// Number or name, as shown by `regatta policy list`
        #[arg(value_name = "NUMBER|NAME", value_parser = candidate)]
        candidate: Candidate,
    },
    /// Compare shadows with the active policy
    ///
    /// Over recorded ticks: how often both agree, how far they differ, what each would cost, and how much of the
    /// observed load each would leave unserved. Load is expressed in instance equivalents, metric / target; by
    /// default these are the parameters of the active policy.
    Compare(CompareArgs),
    /// Show who changed the policies of a set, when, and the result
    History(SetArg),
    /// List the policies of a set, and available modules
    List(SetArg),
    /// Print a decision vector of a recorded tick, for `policy check --vectors`
    ///
    /// What the policy saw, its state and parameters, and what it decided: the new version must decide the same.
    #[command(after_long_help = "\
Example:
  regatta policy vectors web --tick 4711 > vectors.json")]
    Vectors(VectorsArgs),
    /// What an author needs; none of it asks the daemon.
    #[command(flatten)]
    Tool(PolicyToolCommand),
}

/// A policy for a set.
#[derive(Debug, Args)]
pub struct NewPolicyArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// A module: a file (with a / or ending in .wasm), a name that the daemon knows, or one with the first digits
    /// of its digest
    #[arg(value_name = "FILE|NAME|NAME@DIGEST", value_hint = ValueHint::FilePath)]
    pub module: OsString,
    /// New parameters as JSON, or @FILE to read them [default: the current ones]
    #[arg(long, value_name = "JSON|@FILE")]
    pub params: Option<String>,
    /// Slot of the policy [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
    /// Take it even when it fails in the rehearsal on recorded ticks, returns no decision for any of them, or names
    /// metrics that the set does not have
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `policy vectors`.
#[derive(Debug, Args)]
pub struct VectorsArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// The tick [default: the last one]
    #[arg(long, value_name = "N")]
    pub tick: Option<u64>,
    /// Slot of the policy [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub policy: Option<String>,
}

/// Arguments of `policy compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Compare over the newest N ticks
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub ticks: u32,
    /// Metric that measures the load [default: the policy's parameter `metric`]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Load that one instance serves [default: the policy's parameter `target`]
    #[arg(long, value_name = "VALUE")]
    pub target: Option<f64>,
}

/// A shadow or a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Candidate {
    /// `7` or `#7`.
    Number(u64),
    /// What the policy calls itself.
    Name(String),
}

#[expect(clippy::unnecessary_wraps, reason = "what clap wants of a parser")]
fn candidate(text: &str) -> Result<Candidate, std::convert::Infallible> {
    Ok(activation_number(text).map_or_else(|_| Candidate::Name(text.to_owned()), Candidate::Number))
}

fn activation_number(text: &str) -> Result<u64, std::num::ParseIntError> {
    text.strip_prefix('#').unwrap_or(text).parse()
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Set or imported recording
    #[arg(value_name = "SET|RECORDING", value_parser = set_name, add = sets())]
    pub set: String,
    /// This tick [default: the last one]
    #[arg(long, value_name = "N", conflicts_with = "last")]
    pub tick: Option<u64>,
    /// The last tick that did this
    #[arg(long, value_name = "WHAT")]
    pub last: Option<Last>,
}

/// Which kind of tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Last {
    /// Scaled out
    ScaleOut,
    /// Scaled in
    ScaleIn,
    /// Changed the capacity, either way
    Change,
}

impl From<Last> for WhyLast {
    fn from(last: Last) -> Self {
        match last {
            Last::ScaleOut => Self::ScaleOut,
            Last::ScaleIn => Self::ScaleIn,
            Last::Change => Self::Change,
        }
    }
}

/// Arguments of `records`.
#[derive(Debug, Args)]
pub struct RecordsArgs {
    /// Set or imported recording
    #[arg(value_name = "SET|RECORDING", value_parser = set_name, add = sets())]
    pub set: String,
    /// Show only ticks after this one
    #[arg(long, value_name = "TICK", default_value_t = 0, conflicts_with = "last")]
    pub after: u64,
    /// Show only the last N ticks
    #[arg(long, value_name = "N")]
    pub last: Option<u64>,
    /// Show at most N records [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only events of this set
    #[arg(value_parser = set_name, add = sets())]
    pub set: Option<String>,
    /// Keep printing new events as they arrive
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this long ago or less, for example 2h
    #[arg(long, value_name = "DURATION", value_parser = regatta_util::units::parse_duration)]
    pub since: Option<Duration>,
    /// Only events of this long ago or more, for example 1h
    #[arg(long, value_name = "DURATION", value_parser = regatta_util::units::parse_duration, conflicts_with = "follow")]
    pub before: Option<Duration>,
    /// Show at most the newest N of them [default: 100; with --since all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// A set's name, as manifests may give it; anything else can only be a slip.
pub(super) fn set_name(text: &str) -> Result<String, String> {
    if can_be_name(text) {
        Ok(text.to_owned())
    } else {
        Err("a set's name is of lower-case letters, digits and -, starts with a letter and has at most 32 bytes"
            .to_owned())
    }
}

/// Whether a text is of the characters and the length of a name.
pub(super) fn can_be_name(text: &str) -> bool {
    let starts_well = text.starts_with(|first: char| first.is_ascii_lowercase());
    let only = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    starts_well && text.len() <= 32 && text.chars().all(only)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn set_names_are_those_of_manifests() {
        assert!(set_name("web-2").is_ok());
        for wrong in ["", "2web", "-web", "Web", "a/b", "..", "web_1", &"a".repeat(33)] {
            assert!(set_name(wrong).is_err(), "{wrong}");
        }
    }
}

/// What `regatta protect` protects from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ProtectFrom {
    /// The set does not remove it because there are more than wanted
    ScaleIn,
    /// The set does not remove, drain, repair or upgrade it
    All,
}
