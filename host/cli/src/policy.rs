//! `regatta policy …`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regatta_api::types::{
    ApiError, CanaryRequest, ErrorCode, PlacedOutcome, PolicyEntry, PolicyInfo, PolicyRole, PromoteRequest,
    RollbackQuery, SwapOutcome, SwapRequest,
};
use regatta_api::{Client, ClientError};
use regatta_core::digest::Digest;
use serde_json::Value;

use super::args::{Candidate, NewPolicyArgs, Output, PolicyCommand};
use super::exit::{Outcome, Stop, failed, invalid};
use super::render::{Columns, YELLOW, json, or_dash, plain, plain_line, right, text};
use super::time::{age, span, utc};
use super::wait::Line;
use super::{Io, policy_compare, records};

/// Largest module: as base64 in JSON it fits into the API's largest body.
const MODULE_LIMIT_BYTES: u64 = 32 << 20;

/// Largest file of parameters.
const PARAMS_LIMIT_BYTES: u64 = 1 << 20;

/// `regatta policy …`, as far as it asks the daemon.
pub(super) async fn run(client: &Client, command: PolicyCommand, output: Output, io: &mut Io<'_>) -> Outcome {
    match command {
        PolicyCommand::Swap(args) => {
            let request = request(&args)?;
            let outcome = preparing(client.swap_policy(&args.set, &request), &request, io).await?;
            print(&args.set, &outcome, output, io)
        }
        PolicyCommand::Rollback { set, policy: slot, to } => {
            print(&set, &client.rollback_policy(&set, &RollbackQuery { slot, to }).await?, output, io)
        }
        PolicyCommand::Promote { set, candidate } => {
            let number = match candidate {
                Some(candidate) => Some(number_of(client, &set, candidate).await?),
                None => None,
            };
            let outcome = client.promote_policy(&set, &PromoteRequest { number }).await?;
            print(&set, &outcome, output, io)
        }
        PolicyCommand::Shadow(args) => {
            let request = request(&args)?;
            let placed = preparing(client.shadow_policy(&args.set, &request), &request, io).await?;
            let becomes = format!("is judged as shadow #{}", placed.policy.activation);
            print_placed(&args.set, &placed, &becomes, output, io)
        }
        PolicyCommand::Canary { policy: args, within } => {
            let policy = request(&args)?;
            let request = CanaryRequest { policy: policy.clone(), within };
            let placed = preparing(client.canary_policy(&args.set, &request), &policy, io).await?;
            let number = placed.policy.activation;
            let becomes = format!("is canary #{number}, within {within} of the active policy");
            print_placed(&args.set, &placed, &becomes, output, io)
        }
        PolicyCommand::Drop { set, candidate } => {
            let number = number_of(client, &set, candidate).await?;
            let placed = client.drop_policy(&set, number).await?;
            if output == Output::Json {
                return json(&placed, io);
            }
            writeln!(io.out, "{set}: #{number} {} is dropped", named(&placed.policy))?;
            Ok(())
        }
        PolicyCommand::Compare(args) => policy_compare::compare(client, args, output, io).await,
        PolicyCommand::History(args) => history(client, &args.set, output, io).await,
        PolicyCommand::List(args) => list(client, &args.set, output, io).await,
        PolicyCommand::Vectors(args) => records::vectors(client, &args, io).await,
        // Handled before a client is needed.
        PolicyCommand::Tool(_) => Ok(()),
    }
}

/// The number of a shadow or canary; a name must be that of one only.
async fn number_of(client: &Client, set: &str, candidate: Candidate) -> Outcome<u64> {
    let name = match candidate {
        Candidate::Number(number) => return Ok(number),
        Candidate::Name(name) => name,
    };
    let entries = client.policies(set).await?.policies;
    let candidates = entries.iter().filter(|it| matches!(it.role, PolicyRole::Shadow | PolicyRole::Canary));
    let (named, others): (Vec<_>, Vec<_>) = candidates.partition(|it| it.policy.name == name);
    let list = |entries: &[&PolicyEntry]| {
        let told = entries.iter().map(|it| format!("#{} {}", it.policy.activation, it.policy.name));
        told.collect::<Vec<_>>().join(", ")
    };
    let refused = |code, message| Stop::Failure(ApiError { code, message, problems: Vec::new() }.into());
    match named.as_slice() {
        [one] => Ok(one.policy.activation),
        [] if others.is_empty() => {
            Err(refused(ErrorCode::NotFound, format!("set {set} has no shadow and no canary")))
        }
        [] => {
            let message =
                format!("set {set} has no shadow or canary named {name}; it has: {}", list(&others));
            Err(refused(ErrorCode::NotFound, message))
        }
        several => {
            let several = list(several);
            let message =
                format!("set {set} has several shadows and canaries named {name}: choose one of {several}");
            Err(refused(ErrorCode::Conflict, message))
        }
    }
}

fn request(args: &NewPolicyArgs) -> Outcome<SwapRequest> {
    Ok(SwapRequest {
        source: args.module.to_string_lossy().into_owned(),
        module: read_module(&args.module)?,
        params: args.params.as_deref().map(read_params).transpose()?,
        slot: args.policy.clone(),
        force: args.force,
    })
}

/// Says what takes its time.
async fn preparing<T>(
    call: impl Future<Output = Result<T, ClientError>>,
    request: &SwapRequest,
    io: &mut Io<'_>,
) -> Outcome<T> {
    let mut line = Line::default();
    if io.err_terminal {
        line.show(&format!("compiling and trying {} …", request.source), io)?;
    }
    let outcome = call.await;
    line.clear(io)?;
    Ok(outcome?)
}

fn print(set: &str, outcome: &SwapOutcome, output: Output, io: &mut Io<'_>) -> Outcome {
    if output == Output::Json {
        return json(outcome, io);
    }
    writeln!(
        io.out,
        "{set}: {} → {} after tick {}",
        named(&outcome.from),
        named(&outcome.to),
        outcome.after_tick
    )?;
    let rehearsed = rehearsed(outcome.rehearsed_ticks, outcome.decided_ticks);
    writeln!(io.out, "  {rehearsed}; state: {}", plain_line(&outcome.state))?;
    writeln!(io.out, "  prepared in {}, loop held for {} µs", span(outcome.prepare_ms), outcome.switch_us)?;
    warnings(&outcome.warnings, io)
}

fn print_placed(
    set: &str,
    placed: &PlacedOutcome,
    becomes: &str,
    output: Output,
    io: &mut Io<'_>,
) -> Outcome {
    if output == Output::Json {
        return json(placed, io);
    }
    writeln!(io.out, "{set}: {} {becomes}, after tick {}", named(&placed.policy), placed.after_tick)?;
    let rehearsed = rehearsed(placed.rehearsed_ticks, placed.decided_ticks);
    writeln!(io.out, "  {rehearsed}; state: {}", plain_line(&placed.state))?;
    writeln!(io.out, "  prepared in {}", span(placed.prepare_ms))?;
    warnings(&placed.warnings, io)
}

fn rehearsed(ticks: u32, decided: u32) -> String {
    match (ticks, decided) {
        (0, _) => "not rehearsed: no recorded ticks".to_owned(),
        (ticks, decided) => {
            format!("rehearsed on recorded ticks: returned a decision for {decided} of {ticks}")
        }
    }
}

/// On standard error: what is done is done, but an operator should look.
pub(super) fn warnings(warnings: &[String], io: &mut Io<'_>) -> Outcome {
    let label = io.paint_err(YELLOW, "warning:");
    for warning in warnings {
        writeln!(io.err, "{label} {}", plain(warning))?;
    }
    Ok(())
}

/// A policy in few words.
pub(super) fn named(policy: &PolicyInfo) -> String {
    let text = format!("{} {} ({})", policy.name, policy.version, policy.digest.short());
    plain_line(&text).into_owned()
}

/// A file's content as base64; none for a name that the daemon looks up. Only the
/// spelling decides, so that a stray file cannot change what a command means.
fn read_module(module: &OsStr) -> Outcome<Option<String>> {
    let path = Path::new(module);
    let is_file =
        module.as_encoded_bytes().contains(&b'/') || path.extension().is_some_and(|end| end == "wasm");
    if !is_file {
        return Ok(None);
    }
    let bytes = read_at_most(path, MODULE_LIMIT_BYTES)?;
    Ok(Some(STANDARD.encode(bytes)))
}

/// Parameters from the command line, or from a file with `@`.
pub(super) fn read_params(text: &str) -> Outcome<Value> {
    let (what, text) = match text.strip_prefix('@') {
        Some(path) => {
            let bytes = read_at_most(Path::new(path), PARAMS_LIMIT_BYTES)?;
            let text = String::from_utf8(bytes)
                .map_err(|error| failed(format_args!("cannot read {path}"), error))?;
            (path, text)
        }
        None => ("--params", text.to_owned()),
    };
    serde_json::from_str(&text).map_err(|error| invalid(format!("{what} is not JSON: {error}")))
}

/// A whole file that is not larger than `limit_bytes`.
pub(super) fn read_at_most(path: &Path, limit_bytes: u64) -> Outcome<Vec<u8>> {
    let cannot = |error| failed(format_args!("cannot read {}", path.display()), error);
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(invalid(format!("{} is larger than {}", path.display(), super::time::size(limit_bytes))));
    }
    Ok(bytes)
}

async fn list(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let policies = client.policies(set).await?;
    if output == Output::Json {
        return json(&policies, io);
    }
    let now_ms = (io.clock_ms)();
    let mut headings = vec!["#", "ROLE", "SLOT", "NAME", "VERSION", "DIGEST", "FOR", "SOURCE", "PARAMETERS"];
    let fails = policies.policies.iter().any(|entry| entry.failure.is_some());
    headings.extend(fails.then_some("FAILURE"));
    let long = ["FAILURE", "PARAMETERS", "SOURCE", "DIGEST", "VERSION"];
    let mut table = Columns::new(&headings, io).folding(&long);
    for PolicyEntry { role, policy, within, failure } in &policies.policies {
        let role = match (role, within) {
            (PolicyRole::Active, _) => "active".to_owned(),
            (PolicyRole::Previous, _) => "previous".to_owned(),
            (PolicyRole::Canary, within) => format!("canary ±{}", within.unwrap_or_default()),
            (PolicyRole::Shadow, _) => "shadow".to_owned(),
        };
        let mut row = vec![
            right(policy.activation),
            text(role),
            text(&policy.slot),
            text(&policy.name),
            text(&policy.version),
            text(policy.digest.short()),
            text(age(policy.since_ms, now_ms)),
            text(&policy.source),
            text(&policy.params),
        ];
        row.extend(fails.then(|| text(or_dash(failure.as_ref()))));
        table.row(row);
    }
    table.print(0, io)?;
    if policies.policies.iter().filter(|entry| entry.role == PolicyRole::Active).count() > 1 {
        writeln!(io.out, "\nThey decide together: {}", policies.combine)?;
    }
    for note in &policies.notes {
        writeln!(io.out, "\n{}", plain_line(note))?;
    }
    if !policies.available.is_empty() {
        writeln!(io.out)?;
        let mut table = Columns::new(&["AVAILABLE", "VERSION", "DIGEST", "PATH"], io).folding(&["PATH"]);
        for module in &policies.available {
            let path = match &module.problem {
                Some(problem) => format!("{} (cannot be used: {problem})", module.path),
                None => module.path.clone(),
            };
            table.row(vec![
                text(&module.name),
                text(or_dash(module.version.as_ref())),
                text(or_dash(module.digest.as_ref().map(Digest::short))),
                text(path),
            ]);
        }
        table.print(0, io)?;
    }
    Ok(())
}

async fn history(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let history = client.policy_history(set).await?;
    if output == Output::Json {
        return json(&history, io);
    }
    if history.is_empty() {
        writeln!(io.err, "nothing was done with the policies of {set} yet")?;
        return Ok(());
    }
    let headings = ["#", "WHEN", "WHO", "WHAT", "SLOT", "DIGEST", "PARAMETERS", "OUTCOME"];
    let mut table = Columns::new(&headings, io).folding(&["OUTCOME", "PARAMETERS", "DIGEST", "WHO"]);
    for entry in &history {
        table.row(vec![
            right(or_dash(entry.activation)),
            text(utc(entry.at_ms)),
            text(&entry.actor),
            text(entry.kind.strip_prefix("policy-").unwrap_or(&entry.kind)),
            text(or_dash(entry.slot.as_ref())),
            text(or_dash(entry.digest.as_ref().map(Digest::short))),
            text(or_dash(entry.params.as_ref())),
            text(&entry.outcome),
        ]);
    }
    table.print(0, io)
}
