//! A state that cannot be read: what to do about it, and doing it.

use std::path::Path;

use anyhow::Context;
use regatta_store::{Restored, StoreError};

use crate::cli::backup::RestoredState;
use crate::cli::time::age;
use crate::clock;
use crate::copies::Copies;
use crate::paths::DataDirs;

/// Puts a backup or a copy in the place of the state. No daemon may run on the data directory.
///
/// # Errors
/// One runs, the file cannot be used, or the directory cannot be written. Nothing has changed then.
pub fn restore(data: &Path, file: &Path) -> anyhow::Result<RestoredState> {
    let data = std::path::absolute(data).with_context(|| format!("data directory {}", data.display()))?;
    let Restored { contents, replaced } = regatta_store::restore(&data, file, clock::now_ms())?;
    Ok(RestoredState { sets: contents.sets, instances: contents.instances, replaced })
}

/// The error of a daemon that cannot read its state, with advice that costs no VM.
pub(crate) fn advise(error: anyhow::Error, data: &Path) -> anyhow::Error {
    let Some(StoreError::Corrupt { path, what }) = error.downcast_ref() else { return error };
    let path = path.display();
    let from_copy = match Copies::new(&DataDirs::under(data).copies).newest_good() {
        Some((copy, contents)) => format!(
            "restore the newest good copy, {} old (sets: {}, instances: {}): `regatta restore {} --data {}`, then \
             start the daemon; or ",
            age(copy.name.at_ms, clock::now_ms()),
            contents.sets.len(),
            contents.instances,
            copy.path.display(),
            data.display()
        ),
        None => "there is no good copy; ".to_owned(),
    };
    anyhow::anyhow!(
        "{path} is damaged ({what}). VMs that run are not touched. What to do: {from_copy}start without it and adopt what \
         runs: `mv {path} {path}.damaged`, start the daemon, `regatta recover`"
    )
}
