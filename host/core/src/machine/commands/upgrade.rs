//! What operators do to an upgrade.

use crate::event::EventKind;
use crate::state::SetState;
use crate::upgrade::{Upgrade, UpgradeStatus};

use super::super::{CommandError, SetMachine};
use super::{Change, Step};

/// What an operator wants of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeAction {
    /// Replace what is outdated, whatever `upgrade.mode` says.
    Start,
    /// Replace nothing until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Leave it as it is.
    Cancel,
    /// Go back to what instances were made of before.
    RollBack,
    /// It cannot go back: the daemon lacks what that needs.
    GiveUp {
        /// What.
        why: String,
    },
}

impl SetMachine {
    pub(super) fn upgrade(&self, action: &UpgradeAction) -> Result<Step, CommandError> {
        use UpgradeStatus::{Paused, RollbackDue, Rolling, RollingBack};
        let name = &self.state.set.name;
        if *action == UpgradeAction::Start {
            return self.start_upgrade();
        }
        let under_way = self.state.upgrade.clone().filter(|upgrade| !upgrade.status.has_ended());
        let Some(mut upgrade) = under_way else {
            return Err(CommandError::Conflict(format!("no upgrade of {name} is under way")));
        };
        let status = upgrade.status;
        let (kind, text) = match (action, status) {
            (UpgradeAction::Pause, Rolling) => {
                upgrade.stop(Paused, "by an operator");
                (EventKind::UpgradePaused, format!("upgrade to generation {} paused", upgrade.to))
            }
            (UpgradeAction::Resume, Paused) => {
                // Whoever resumes has looked at those that failed.
                (upgrade.status, upgrade.why) = (Rolling, None);
                upgrade.failed.clear();
                (EventKind::UpgradeResumed, format!("upgrade to generation {} resumed", upgrade.to))
            }
            (UpgradeAction::Cancel, Rolling | Paused | RollbackDue | RollingBack) => {
                upgrade.stop(UpgradeStatus::Canceled, "by an operator");
                let text =
                    "canceled: instances stay as they are, new ones are made from the manifest in force";
                (EventKind::UpgradeCanceled, format!("upgrade to generation {} {text}", upgrade.to))
            }
            (UpgradeAction::RollBack, Rolling | Paused) => {
                upgrade.stop(RollbackDue, "asked for by an operator");
                let text = format!("upgrade to generation {} is rolled back", upgrade.to);
                (EventKind::UpgradeRollback, text)
            }
            (UpgradeAction::GiveUp { why }, RollbackDue) => {
                let why = format!("cannot be rolled back: {why}");
                let text = format!("upgrade to generation {} {why}", upgrade.to);
                upgrade.stop(UpgradeStatus::Failed, why);
                (EventKind::UpgradeFailed, text)
            }
            _ => {
                let message = format!("the upgrade of {name} is {}", status.as_str());
                return Err(CommandError::Conflict(message));
            }
        };
        if upgrade.status.has_ended() {
            upgrade.ended_ms = Some(self.now.wall_ms);
        }
        let next = SetState { upgrade: Some(upgrade), ..self.state.clone() };
        Ok(Step::Store(Box::new(Change::new(next, kind, text))))
    }

    fn start_upgrade(&self) -> Result<Step, CommandError> {
        let name = &self.state.set.name;
        if let Some(upgrade) = self.state.upgrade.as_ref().filter(|it| !it.status.has_ended()) {
            let message = format!("an upgrade of {name} is under way already: {}", upgrade.status.as_str());
            return Err(CommandError::Conflict(message));
        }
        let outdated = u32::try_from(self.outdated().len()).unwrap_or(u32::MAX);
        if outdated == 0 {
            return Err(CommandError::Conflict(format!("no instance of {name} is outdated")));
        }
        let to = self.state.generation;
        let upgrade =
            Upgrade::new(self.present_model(), to, UpgradeStatus::Rolling, self.now.wall_ms, outdated);
        let next = SetState { upgrade: Some(upgrade), ..self.state.clone() };
        let text = format!("upgrade to generation {to} started, instances to replace: {outdated}");
        Ok(Step::Store(Box::new(Change::new(next, EventKind::UpgradeStarted, text))))
    }
}
