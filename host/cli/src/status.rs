//! `regatta status`.

use regatta_api::Client;

use super::Io;
use super::args::Output;
use super::exit::Outcome;
use super::render::{json, pair};
use super::time::{age, utc};

pub(super) async fn status(client: &Client, output: Output, io: &mut Io<'_>) -> Outcome {
    let status = client.status().await?;
    if output == Output::Json {
        return json(&status, io);
    }
    let now_ms = (io.clock_ms)();
    pair("Version", &status.version, io)?;
    pair("Process", &status.pid.to_string(), io)?;
    let started = format!("{} ({} ago)", utc(status.started_ms), age(status.started_ms, now_ms));
    pair("Started", &started, io)?;
    pair("Data", &status.data_dir, io)?;
    pair("Socket", &client.socket().display().to_string(), io)?;
    let vmm = &status.vmm;
    pair("VMM", &format!("{} {} ({})", vmm.path, vmm.version, vmm.chosen_because), io)?;
    pair("Sets", &status.sets.to_string(), io)?;
    if let Some(copy) = &status.newest_copy {
        pair("Newest copy", &format!("{} old, {}", age(copy.at_ms, now_ms), copy.path), io)?;
    }
    for condition in &status.conditions {
        pair("Problem", &condition.message, io)?;
    }
    Ok(())
}
