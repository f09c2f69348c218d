//! `regatta logs`.

use clap::{Args, ValueEnum};
use regatta_api::Client;
use regatta_api::log_types::{LOG_BYTES_MAX, LogKind, LogQuery};

use super::Io;
use super::args::{Output, set_name};
use super::complete::sets;
use super::exit::Outcome;
use super::render::{Columns, json, plain, right, text};
use super::sets::instance_number;
use super::time::utc;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Instance number or name [default: list the instances whose logs are kept]
    #[arg(value_name = "ID")]
    pub instance: Option<String>,
    /// Which log
    #[arg(long, value_name = "LOG", default_value = "console", requires = "instance")]
    pub log: Log,
    /// Show at most the last N bytes
    #[arg(long, value_name = "N", default_value_t = LOG_BYTES_MAX, requires = "instance", value_parser = clap::value_parser!(u64).range(1..=LOG_BYTES_MAX))]
    pub bytes: u64,
}

/// A log of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// Serial console of the guest
    Console,
    /// Output of the VMM
    Vmm,
}

impl From<Log> for LogKind {
    fn from(log: Log) -> Self {
        match log {
            Log::Console => Self::Console,
            Log::Vmm => Self::Vmm,
        }
    }
}

pub(super) async fn logs(client: &Client, args: &LogsArgs, output: Output, io: &mut Io<'_>) -> Outcome {
    let Some(instance) = &args.instance else { return list(client, &args.set, output, io).await };
    let id = instance_number(&args.set, instance)?;
    let query = LogQuery { log: args.log.into(), bytes: Some(args.bytes) };
    let log = client.instance_log(&args.set, id, &query).await?;
    if output == Output::Json {
        return json(&log, io);
    }
    if let Some(why) = &log.kept_because {
        writeln!(io.err, "{}-{id} is gone; its log was kept because: {}", args.set, plain(why))?;
    }
    write!(io.out, "{}", plain(&log.text))?;
    Ok(())
}

async fn list(client: &Client, set: &str, output: Output, io: &mut Io<'_>) -> Outcome {
    let kept = client.kept_logs(set).await?;
    if output == Output::Json {
        return json(&kept, io);
    }
    if kept.is_empty() {
        writeln!(io.err, "no logs of {set} are kept: none of its instances failed or was replaced")?;
        return Ok(());
    }
    let mut table = Columns::new(&["ID", "KEPT AT", "REASON"], io).folding(&["REASON"]);
    for log in &kept {
        table.row(vec![right(log.id), text(utc(log.at_ms)), text(&log.reason)]);
    }
    table.print(0, io)
}
