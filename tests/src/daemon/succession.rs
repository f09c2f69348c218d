//! One daemon after another.

use std::process::ExitStatus;

use super::Daemon;

impl Daemon {
    /// As [`Daemon::launch`], with more arguments.
    ///
    /// # Panics
    /// When it does not start.
    pub fn launch_with(&mut self, arguments: &[&str]) {
        let vmm = self.vmm.clone();
        self.vmm.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.launch();
        self.vmm = vmm;
    }

    /// Waits until the daemon has ended by itself.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn ends_by_itself(&mut self) {
        let ended = self.child.take().expect("a running daemon").wait().expect("wait");
        assert!(ended.success(), "the daemon ended with {ended}; its log:\n{}", self.log());
    }

    /// Starts another daemon that takes over from this one.
    ///
    /// # Panics
    /// When it does not, or the one before does not end well.
    pub fn hot_restart(&mut self) {
        let mut before = self.child.take().expect("a running daemon");
        self.vmm.push("--hot-restart".to_owned());
        self.spawn();
        self.vmm.pop();
        let ended = before.wait().expect("wait");
        assert!(ended.success(), "the daemon before ended with {ended}; its log:\n{}", self.log());
        self.wait_until_it_answers();
    }

    /// Starts a daemon with more arguments beside the one that runs, if one does, and waits until it has ended by itself.
    ///
    /// # Panics
    /// When its program cannot be run.
    pub fn start_another_in_vain(&mut self, arguments: &[&str]) -> ExitStatus {
        let runs = self.child.take();
        let vmm = self.vmm.clone();
        self.vmm.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self.spawn();
        let ended = self.child.take().expect("a daemon").wait().expect("wait");
        (self.child, self.vmm) = (runs, vmm);
        ended
    }
}
