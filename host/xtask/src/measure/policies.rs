//! What policies cost in the sandbox, beside native code, a plugin and a webhook: measured by `xtask-policies`, which is its
//! own plugin and webhook.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::effort::Effort;
use crate::rig::Place;

/// How long it may take: all languages, four minutes at most for the comparison.
const LIMIT: Duration = Duration::from_secs(1_200);

/// The report, with its figures.
pub(crate) async fn measure(place: &Place, languages: &Path) -> Result<Value> {
    let mut command = Command::new(place.bin.join("xtask-policies"));
    command.arg("measure").arg("--policies").arg(&place.policies).arg("--languages").arg(languages);
    if place.effort == Effort::Quick {
        command.arg("--quick");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().context("cannot start xtask-policies")?;
    let output =
        timeout(LIMIT, child.wait_with_output()).await.context("xtask-policies takes too long")??;
    ensure!(output.status.success(), "xtask-policies failed: {}", output.status);
    serde_json::from_slice(&output.stdout).context("xtask-policies printed no JSON")
}
