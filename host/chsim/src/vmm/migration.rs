//! Snapshot and restore, and what can be said of migration: its answers and events, not the moving of memory.

use crate::config::MemoryRestoreMode;

use super::machine::{Machine, State};
use super::{Platform, ReceiveMigrationData, Reply, RestoreConfig, Result, SendMigrationData, VmError, Vmm};

impl<P: Platform> Vmm<P> {
    pub(super) fn snapshot(&mut self, url: &str) -> Result<Reply> {
        let vm = self.vm.as_mut().ok_or(VmError::NotRunning)?;
        let config = self.config.as_ref().ok_or(VmError::NotCreated)?;
        self.consoles = false;
        self.platform.event("vm", "snapshotting", &[]);
        if vm.state != State::Paused {
            return Err(VmError::chain([
                "Cannot snapshot VM",
                "Failed to snapshot migratable component",
                "Trying to snapshot while VM is running",
            ]));
        }
        self.platform.event("vm", "snapshotted", &[]);
        self.platform.write_snapshot(url, config)?;
        Ok(Reply::Nothing)
    }

    pub(super) fn restore(&mut self, request: RestoreConfig) -> Result<Reply> {
        if self.vm.is_some() || self.config.is_some() {
            return Err(VmError::AlreadyCreated);
        }
        let Some(url) = request.source_url.to_str() else {
            return Err(VmError::chain(["Invalid restore source URL"]));
        };
        let config = self.platform.read_snapshot_config(url)?;
        request.validate(&config).map_err(VmError::Validation)?;
        self.config = Some(config);
        let on_demand = request.memory_restore_mode == MemoryRestoreMode::OnDemand;
        let restored = self.restore_from(url, on_demand);
        let done = restored.and_then(|()| if request.resume { self.resume() } else { Ok(()) });
        if let Err(error) = done {
            self.platform.release();
            self.delete()?;
            return Err(error);
        }
        Ok(Reply::Nothing)
    }

    fn restore_from(&mut self, url: &str, on_demand: bool) -> Result<()> {
        let config = self.config.as_mut().ok_or(VmError::NotCreated)?;
        let state = self.platform.read_snapshot_state(url, on_demand)?;
        self.platform.create_consoles(config)?;
        self.consoles = true;
        let mut vm = Machine::new(config, &mut self.platform)?;
        self.platform.check_snapshot_state(url, config)?;
        self.platform.event("vm", "restoring", &[]);
        vm.lock_disks(config, &mut self.platform)?;
        self.platform.start_guest(config, Vec::new(), Some(&state))?;
        vm.state = State::Paused;
        self.vm = Some(vm);
        self.platform.event("vm", "restored", &[]);
        Ok(())
    }

    /// The sending side: nothing is ever sent, so that a migration fails the way it does when nobody listens.
    pub(super) fn send_migration(&mut self, request: &SendMigrationData) -> Result<Reply> {
        let failed = |text: &str| VmError::chain(["Failed to send migratable component snapshot", text]);
        if self.vm.is_none() {
            return Err(failed("VM is not running"));
        }
        let url = &request.destination_url;
        if !url.starts_with("tcp:") && !url.starts_with("unix:") {
            return Err(VmError::chain([
                "Failed to send migratable component snapshot",
                "Invalid send migration configuration",
                "Error validating send migration parameters: destination_url must use tcp:<host>:<port> or unix:<path>.",
            ]));
        }
        // Upstream answers at once; the outcome is only ever an event.
        self.platform.event("vm", "migration-started", &[]);
        self.platform.event("vm", "migration-failed", &[]);
        Ok(Reply::Nothing)
    }

    pub(super) fn receive_migration(&mut self, request: &ReceiveMigrationData) -> Result<Reply> {
        let failed = |text: String| {
            VmError::chain(["Failed to receive migratable component snapshot".to_owned(), text])
        };
        if self.vm.is_some() {
            return Err(failed("Can't receive a migration when a VM is already created".to_owned()));
        }
        let invalid = |text: &str| {
            VmError::chain([
                "Failed to receive migratable component snapshot",
                "Invalid receive migration configuration",
                text,
            ])
        };
        let url = &request.receiver_url;
        if url.strip_prefix("unix:").is_some_and(|path| !path.is_empty()) {
            if request.tls_dir.is_some() {
                return Err(invalid(
                    "Error validating receive migration parameters: UNIX sockets and TLS encryption cannot be used at the same time.",
                ));
            }
        } else if !url.starts_with("tcp:") {
            return Err(invalid(
                "Error validating receive migration parameters: receiver_url must use tcp:<host>:<port> or unix:<path>.",
            ));
        }
        if url.strip_prefix("tcp:").is_some_and(|address| !address.contains(':')) {
            return Err(invalid(
                "Error validating receive migration parameters: receiver_url must use tcp:<host>:<port> or unix:<path>: Missing TCP port.",
            ));
        }
        self.platform.receive_migration(url)?;
        Ok(Reply::Nothing)
    }
}
