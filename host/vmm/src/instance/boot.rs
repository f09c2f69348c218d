//! From a VMM that answers to a booted VM, whatever state the VMM is in at first.

use std::time::Duration;

use serde_json::Value;

use super::error::LaunchError;
use crate::api::config::lost_fields;
use crate::api::response::{VmInfo, VmState};
use crate::api::{ApiErrorKind, VmmClient};

/// What the VMM needs next on the way to the wanted VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Describe the VM.
    Create,
    /// Clear what is there: half-made, or described otherwise than wanted.
    Delete,
    /// Boot what was described.
    Boot,
    /// Nothing: it runs (or was paused by someone).
    Done,
}

/// Decides from what `vm.info` shows (`None`: no VM was described). Pure.
fn next_step(info: Option<&VmInfo>, wanted: &Value) -> Step {
    let Some(info) = info else {
        return Step::Create;
    };
    let same = lost_fields(wanted, &info.config).is_empty();
    match info.vm_state() {
        VmState::NotCreated => Step::Create,
        VmState::HalfMade | VmState::Unknown => Step::Delete,
        VmState::Created if same => Step::Boot,
        VmState::Created => Step::Delete,
        // Whatever it runs, a running guest is never restarted behind its back.
        VmState::Running | VmState::Paused => Step::Done,
    }
}

/// At most this many rounds of delete, create and boot before giving up.
const ROUNDS: u32 = 3;

/// Makes the VMM run the VM that `config` describes. Safe to repeat after any interruption; `fresh` says that the VMM was just
/// started and cannot have a VM yet.
///
/// # Errors
/// A call failed for good (what was made is deleted again, as far as the VMM lets us), or the VMM did not keep what was sent.
pub(crate) async fn ensure_booted(
    client: &VmmClient,
    id: &str,
    config: &Value,
    fresh: bool,
    boot_within: Duration,
) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::Api { id: id.to_owned(), source };
    let mut known_empty = fresh;
    let mut last = None;
    for _ in 0..ROUNDS {
        if !std::mem::take(&mut known_empty) {
            let info = client.info_if_created().await.map_err(failed)?;
            match next_step(info.as_ref(), config) {
                Step::Done => return Ok(()),
                Step::Delete => client.delete().await.map_err(failed)?,
                Step::Create => {}
                Step::Boot => match client.boot(boot_within).await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        give_up_or_retry(client, id, error).await?;
                    }
                },
            }
        }
        // A create that failed half-way keeps its configuration; the next round finds and clears it.
        match client.create(config).await {
            Err(error) if error.kind == ApiErrorKind::AlreadyCreated => {
                last = Some(failed(error));
                continue;
            }
            Err(error) => {
                clear(client).await;
                return Err(failed(error));
            }
            Ok(()) => {}
        }
        let kept = client.info().await.map_err(failed)?;
        let lost = lost_fields(config, &kept.config);
        if !lost.is_empty() {
            clear(client).await;
            return Err(LaunchError::NotKept { id: id.to_owned(), fields: lost });
        }
        match client.boot(boot_within).await {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(give_up_or_retry(client, id, error).await?),
        }
    }
    Err(last.unwrap_or_else(|| LaunchError::NotKept { id: id.to_owned(), fields: vec!["state".to_owned()] }))
}

/// After a failed boot: "already created" is cleared and tried again, anything else is cleared and final.
async fn give_up_or_retry(
    client: &VmmClient,
    id: &str,
    error: crate::ApiError,
) -> Result<LaunchError, LaunchError> {
    let retry = error.kind == ApiErrorKind::AlreadyCreated;
    // After a time-out the VMM is busy with this very boot: nothing can be cleared by asking.
    if error.kind != ApiErrorKind::Timeout {
        clear(client).await;
    }
    let error = LaunchError::Api { id: id.to_owned(), source: error };
    if retry { Ok(error) } else { Err(error) }
}

async fn clear(client: &VmmClient) {
    if let Err(error) = client.delete().await {
        tracing::debug!(socket = %client.socket().display(), %error, "half-made VM not deleted");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_state_has_its_step() {
        let wanted = json!({"cpus": {"boot_vcpus": 1}});
        let step = |state: &str, vcpus: u32, tree: bool| {
            let mut info = json!({"config": {"cpus": {"boot_vcpus": vcpus, "nested": true}}, "state": state});
            if tree {
                info["device_tree"] = json!({});
            }
            next_step(Some(&serde_json::from_value(info).expect("info")), &wanted)
        };
        assert_eq!(next_step(None, &wanted), Step::Create);
        assert_eq!(step("Created", 1, false), Step::Boot);
        assert_eq!(step("Created", 2, false), Step::Delete);
        assert_eq!(step("Created", 1, true), Step::Delete);
        assert_eq!(step("Running", 1, true), Step::Done);
        assert_eq!(step("Paused", 1, true), Step::Done);
        assert_eq!(step("Running", 2, true), Step::Done);
        assert_eq!(step("Dreaming", 1, true), Step::Delete);
    }
}
