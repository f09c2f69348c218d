//! `regatta apply` and `regatta diff`.

use std::collections::BTreeMap;
use std::env;
use std::io::Read;
use std::path::{self, Path, PathBuf};

use regatta_api::types::{ApplyOutcome, ApplyRequest, ApplyResult, ErrorCode, FieldChange};
use regatta_api::{Client, ClientError};

use super::Io;
use super::args::{ApplyArgs, DiffArgs, Output};
use super::exit::{Exit, Failure, Outcome, Stop, failed, invalid, usage};
use super::policy::{read_at_most, warnings};
use super::render::{GREEN, RED, json, paint};
use super::{upgrade, wait};

/// Largest manifest.
const MANIFEST_LIMIT_BYTES: u64 = 1 << 20;

pub(super) async fn apply(client: &Client, args: &ApplyArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let mut requests = read_all(&args.files, io)?;
    requests.iter_mut().for_each(|request| request.force = args.force);
    let expected = check_all(client, &requests, output, io).await?;
    let mut outcomes = Vec::new();
    let mut ticks_before = Vec::new();
    for (request, expected) in requests.into_iter().zip(&expected) {
        let request = ApplyRequest { dry_run: false, ..request };
        let applied = async {
            // A set is where it should be only after a tick that saw the change.
            let tick = if args.wait.wait { last_tick(client, &expected.set).await? } else { None };
            Ok::<_, ClientError>((tick, client.apply(&request).await?))
        };
        match applied.await {
            Ok((tick, outcome)) => {
                if output == Output::Table {
                    print_applied(&outcome, io)?;
                }
                ticks_before.push(tick);
                outcomes.push(outcome);
            }
            Err(error) => {
                if output == Output::Json && !outcomes.is_empty() {
                    json(&outcomes, io)?;
                }
                return Err(error.into());
            }
        }
    }
    print_json(&outcomes, output, io)?;
    io.out.flush()?;
    if args.wait.wait {
        for (outcome, tick) in outcomes.iter().zip(ticks_before) {
            let tick = if outcome.result == ApplyResult::Unchanged { None } else { Some(tick.unwrap_or(0)) };
            let generation = Some(outcome.generation);
            let until = wait::Until { after_tick: tick, steady: true, generation, ..wait::Until::default() };
            wait::until_settled(client, &outcome.set, until, args.wait.timeout, io).await?;
        }
    }
    Ok(())
}

pub(super) async fn diff(client: &Client, args: &DiffArgs, output: Output, io: &mut Io<'_>) -> Outcome<Exit> {
    let requests = read_all(&args.files, io)?;
    let outcomes = check_all(client, &requests, output, io).await?;
    for outcome in &outcomes {
        if output == Output::Table {
            print_difference(outcome, io)?;
        }
    }
    print_json(&outcomes, output, io)?;
    let differs = outcomes.iter().any(|outcome| outcome.result != ApplyResult::Unchanged);
    Ok(if differs && args.exit_code { Exit::Differs } else { Exit::Ok })
}

/// One file's outcome as the API gave it, those of several as a list.
fn print_json(outcomes: &[ApplyOutcome], output: Output, io: &mut Io<'_>) -> Outcome {
    match (output, outcomes) {
        (Output::Table, _) => Ok(()),
        (Output::Json, [outcome]) => json(outcome, io),
        (Output::Json, outcomes) => json(outcomes, io),
    }
}

fn read_all(files: &[PathBuf], io: &mut Io<'_>) -> Outcome<Vec<ApplyRequest>> {
    if files.iter().filter(|file| is_stdin(file)).count() > 1 {
        return Err(usage("standard input can be read only once"));
    }
    files.iter().map(|file| read(file, io)).collect()
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

fn read(file: &Path, io: &mut Io<'_>) -> Outcome<ApplyRequest> {
    let (source, base_dir, bytes) = if is_stdin(file) {
        let mut bytes = Vec::new();
        let read = (&mut *io.input).take(MANIFEST_LIMIT_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| failed("cannot read standard input", error))?;
        if bytes.len() as u64 > MANIFEST_LIMIT_BYTES {
            return Err(invalid("the manifest on standard input is larger than 1 MiB"));
        }
        let here = env::current_dir().map_err(|error| failed("cannot find the working directory", error))?;
        ("<stdin>".to_owned(), here, bytes)
    } else {
        let bytes = read_at_most(file, MANIFEST_LIMIT_BYTES)?;
        let absolute = path::absolute(file).map_err(|error| failed(file.display(), error))?;
        let base_dir = absolute.parent().map(Path::to_path_buf).unwrap_or_default();
        (file.display().to_string(), base_dir, bytes)
    };
    let text =
        String::from_utf8(bytes).map_err(|error| invalid(format!("{source} is not UTF-8 text: {error}")))?;
    let base_dir = base_dir.into_os_string().into_string();
    let base_dir = base_dir.map_err(|dir| invalid(format!("{} is not UTF-8", dir.display())))?;
    Ok(ApplyRequest { source, base_dir, text, dry_run: true, force: false })
}

/// Asks what every file would do. When one of them has a problem, those of all are
/// printed and nothing is applied.
async fn check_all(
    client: &Client,
    requests: &[ApplyRequest],
    output: Output,
    io: &mut Io<'_>,
) -> Outcome<Vec<ApplyOutcome>> {
    let mut outcomes = Vec::new();
    let mut exit = None;
    for request in requests {
        let request = ApplyRequest { dry_run: true, ..request.clone() };
        match client.apply(&request).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(ClientError::Api(error)) => {
                if exit.is_some() && output == Output::Table {
                    writeln!(io.err)?;
                }
                let failure = Failure::from(error);
                failure.print(output, io)?;
                // The first failure that is not about the input tells more.
                if exit.is_none_or(|exit| exit == Exit::Invalid) {
                    exit = Some(failure.exit);
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(exit) = exit {
        return Err(Stop::Quiet(exit));
    }
    let mut sources: BTreeMap<&str, &str> = BTreeMap::new();
    for (request, outcome) in requests.iter().zip(&outcomes) {
        if let Some(other) = sources.insert(&outcome.set, &request.source) {
            let message = format!("{other} and {} both describe the set {}", request.source, outcome.set);
            return Err(invalid(message));
        }
    }
    Ok(outcomes)
}

/// The last tick of a set that may not exist yet.
async fn last_tick(client: &Client, set: &str) -> Result<Option<u64>, ClientError> {
    match client.set(set).await {
        Ok(detail) => Ok(Some(detail.summary.last_tick)),
        Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn print_applied(outcome: &ApplyOutcome, io: &mut Io<'_>) -> Outcome {
    let ApplyOutcome { set, generation, .. } = outcome;
    let what = match outcome.result {
        ApplyResult::Created => "created",
        ApplyResult::Updated => "updated",
        ApplyResult::Unchanged => "unchanged",
    };
    writeln!(io.out, "{set} {what} (generation {generation})")?;
    for change in &outcome.changes {
        let (before, after) = (or_none(change.before.as_ref()), or_none(change.after.as_ref()));
        writeln!(io.out, "  {}: {before} → {after}{}", change.path, reaches(change))?;
    }
    if let Some(upgrade) = &outcome.upgrade {
        upgrade::preview(upgrade, set, io)?;
    }
    warnings(&outcome.warnings, io)
}

fn print_difference(outcome: &ApplyOutcome, io: &mut Io<'_>) -> Outcome {
    let ApplyOutcome { set, generation, .. } = outcome;
    let what = match outcome.result {
        ApplyResult::Created => format!("{set} would be created"),
        ApplyResult::Updated => format!("{set} would be updated to generation {generation}"),
        ApplyResult::Unchanged => format!("{set} is as in the manifest"),
    };
    writeln!(io.out, "{what}")?;
    let colour = io.out_colour();
    for change in &outcome.changes {
        let FieldChange { path, before, after, .. } = change;
        if let Some(before) = before {
            writeln!(io.out, "{}", paint(colour, RED, &format!("- {path}: {before}")))?;
        }
        if let Some(after) = after {
            let line = format!("+ {path}: {after}{}", reaches(change));
            writeln!(io.out, "{}", paint(colour, GREEN, &line))?;
        }
    }
    if let Some(upgrade) = &outcome.upgrade {
        upgrade::preview(upgrade, set, io)?;
    }
    warnings(&outcome.warnings, io)
}

fn or_none(value: Option<&String>) -> &str {
    value.map_or("none", String::as_str)
}

/// Instances that run keep what they were made of.
fn reaches(change: &FieldChange) -> &'static str {
    if change.new_instances_only { " (new instances)" } else { "" }
}
