//! `regatta backup` and `regatta restore`.

use std::path::{self, Path, PathBuf};

use regatta_api::Client;
use regatta_api::paths;
use regatta_api::recovery_types::BackupRequest;
use serde::Serialize;

use super::Io;
use super::args::Output;
use super::exit::{Exit, Failure, Outcome, Stop, failed, invalid};
use super::render::{Columns, json, right, text};
use super::time::{age, size};

/// A state that took the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredState {
    /// Names of its sets.
    pub sets: Vec<String>,
    /// Instances of all sets.
    pub instances: usize,
    /// Where the file that was there before is kept.
    pub replaced: Option<PathBuf>,
}

pub(super) async fn backup(client: &Client, file: &Path, output: Output, io: &mut Io<'_>) -> Outcome {
    // The daemon knows nothing of our working directory.
    let absolute = path::absolute(file).map_err(|error| failed(file.display(), error))?;
    let path = absolute.into_os_string().into_string();
    let path = path.map_err(|path| invalid(format!("{} is not UTF-8", path.display())))?;
    let written = client.backup(&BackupRequest { path }).await?;
    if output == Output::Json {
        return json(&written, io);
    }
    writeln!(io.out, "{} written, {}", written.path, size(written.bytes))?;
    Ok(())
}

pub(super) async fn list(client: &Client, output: Output, io: &mut Io<'_>) -> Outcome {
    let copies = client.copies().await?;
    if output == Output::Json {
        return json(&copies, io);
    }
    if copies.is_empty() {
        writeln!(
            io.err,
            "no copies yet: the daemon makes one at its start and every hour while there are sets"
        )?;
        return Ok(());
    }
    let now_ms = (io.clock_ms)();
    let mut table = Columns::new(&["AGE", "SIZE", "FILE"], io).folding(&["FILE"]);
    for copy in &copies {
        table.row(vec![right(age(copy.at_ms, now_ms)), right(size(copy.bytes)), text(&copy.path)]);
    }
    table.print(0, io)
}

pub(super) fn restore(file: &Path, data: Option<PathBuf>, output: Output, io: &mut Io<'_>) -> Outcome {
    let data = data.map_or_else(paths::default_data_dir, Ok)?;
    // `{:#}` is the whole chain in one line.
    let restored = (io.restore)(&data, file).map_err(|error| {
        let message = format!("nothing was restored: {error:#}");
        Stop::Failure(Failure::new(Exit::Failed, "failed", message))
    })?;
    if output == Output::Json {
        return json(&restored, io);
    }
    let RestoredState { sets, instances, replaced } = restored;
    let sets = if sets.is_empty() { "no sets".to_owned() } else { sets.join(", ") };
    writeln!(io.out, "{} restored: {sets} ({instances} instances)", data.display())?;
    if let Some(replaced) = replaced {
        writeln!(io.out, "  the state before is kept as {}", replaced.display())?;
    }
    writeln!(
        io.out,
        "  next: start the daemon; VMs that this state does not know become orphans (`regatta orphans`)"
    )?;
    Ok(())
}
