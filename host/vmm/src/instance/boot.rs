//! From a VMM that answers to a booted VM.

use std::time::Duration;

use serde_json::Value;

use super::error::LaunchError;
use crate::api::config::lost_fields;
use crate::api::{ApiErrorKind, VmmClient};

/// Makes a VMM that was just started run the VM that `config` describes.
///
/// # Errors
/// A call failed (what was made is deleted again, as far as the VMM lets us), or the VMM did not keep what was sent.
pub(crate) async fn create_and_boot(
    client: &VmmClient,
    id: &str,
    config: &Value,
    boot_within: Duration,
) -> Result<(), LaunchError> {
    let failed = |source| LaunchError::Api { id: id.to_owned(), source };
    if let Err(error) = client.create(config).await {
        // A create that failed half-way keeps its configuration.
        clear(client).await;
        return Err(failed(error));
    }
    let kept = client.info().await.map_err(failed)?;
    let lost = lost_fields(config, &kept.config);
    if !lost.is_empty() {
        clear(client).await;
        return Err(LaunchError::NotKept { id: id.to_owned(), fields: lost });
    }
    if let Err(error) = client.boot(boot_within).await {
        // After a time-out the VMM is busy with this very boot: nothing can be cleared by asking.
        if error.kind != ApiErrorKind::Timeout {
            clear(client).await;
        }
        return Err(failed(error));
    }
    Ok(())
}

async fn clear(client: &VmmClient) {
    if let Err(error) = client.delete().await {
        tracing::debug!(socket = %client.socket().display(), %error, "half-made VM not deleted");
    }
}
