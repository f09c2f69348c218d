//! The state machine against a tiny model of it: three states and one table, over a platform that is all memory.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::{DiskConfig, ImageType, MacAddr, NetConfig, PayloadConfig, VsockConfig};

/// A platform that does nothing, and fails where it is told to.
#[derive(Debug, Default)]
struct Fake {
    kernel_missing: bool,
    disk_missing: bool,
    events: Vec<String>,
    guest_runs: bool,
    locked: usize,
    snapshot: Option<VmConfig>,
}

type Done<T> = std::result::Result<T, VmError>;

impl Platform for Fake {
    fn pid(&self) -> i64 {
        1
    }
    fn event(&mut self, source: &str, event: &str, _: &[(&str, &str)]) {
        self.events.push(format!("{source}/{event}"));
    }
    fn create_consoles(&mut self, _: &mut VmConfig) -> Done<()> {
        Ok(())
    }
    fn map_memory(&mut self, _: &VmConfig) -> Done<()> {
        Ok(())
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn open_disk(&mut self, _: &str, disk: &DiskConfig) -> Done<ImageType> {
        if self.disk_missing { Err(VmError::device(["Cannot open disk path"])) } else { Ok(disk.image_type) }
    }
    fn lock_disk(&mut self, _: &str) -> Done<()> {
        self.locked += 1;
        Ok(())
    }
    fn resize_disk(&mut self, _: &str, _: u64) -> Done<()> {
        Ok(())
    }
    fn open_net(&mut self, _: &str, _: &NetConfig) -> Done<Option<MacAddr>> {
        Ok(None)
    }
    fn open_vsock(&mut self, _: &str, _: &VsockConfig) -> Done<()> {
        Ok(())
    }
    fn connect_backend(&mut self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn open_file(&mut self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn close_device(&mut self, _: &str) {
        self.locked = self.locked.saturating_sub(1);
    }
    fn load_payload(&mut self, _: &PayloadConfig) -> Done<()> {
        if self.kernel_missing { Err(VmError::chain(["Cannot open kernel file"])) } else { Ok(()) }
    }
    fn start_guest(&mut self, _: &VmConfig, _: Vec<String>, _: Option<&GuestState>) -> Done<()> {
        self.guest_runs = true;
        Ok(())
    }
    fn guest(&mut self, _: GuestCommand) -> Done<()> {
        Ok(())
    }
    fn release(&mut self) {
        self.guest_runs = false;
        self.locked = 0;
    }
    fn drop_consoles(&mut self) {}
    fn counters(&self) -> Tally {
        Tally::Whole(Counters::default())
    }
    fn write_snapshot(&mut self, _: &str, config: &VmConfig) -> Done<()> {
        self.snapshot = Some(config.clone());
        Ok(())
    }
    fn read_snapshot_config(&mut self, _: &str) -> Done<VmConfig> {
        self.snapshot.clone().ok_or_else(|| VmError::chain(["Cannot restore VM"]))
    }
    fn read_snapshot_state(&mut self, _: &str, _: bool) -> Done<GuestState> {
        Ok(GuestState::default())
    }
    fn check_snapshot_state(&mut self, _: &str, _: &VmConfig) -> Done<()> {
        Ok(())
    }
    fn receive_migration(&mut self, _: &str) -> Done<()> {
        Err(VmError::chain(["Socket error"]))
    }
}

/// The model: what a client has to remember to predict every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Nothing,
    Configured,
    /// A boot failed late.
    HalfMade,
    Running,
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Boot,
    BootWithoutKernel,
    BootWithoutDisk,
    Delete,
    Shutdown,
    Pause,
    Resume,
    Reboot,
    PowerButton,
    Counters,
    Snapshot,
    Restore,
    GuestPowersOff,
    GuestResets,
}

const STEPS: [Step; 15] = [
    Step::Create,
    Step::Boot,
    Step::BootWithoutKernel,
    Step::BootWithoutDisk,
    Step::Delete,
    Step::Shutdown,
    Step::Pause,
    Step::Resume,
    Step::Reboot,
    Step::PowerButton,
    Step::Counters,
    Step::Snapshot,
    Step::Restore,
    Step::GuestPowersOff,
    Step::GuestResets,
];

/// The status that a call answers, and the state it leaves.
fn predict(model: Model, step: Step, snapshot: bool) -> (u16, Model) {
    use Model::{Configured, HalfMade, Nothing, Paused, Running};
    let owned = matches!(model, HalfMade | Running | Paused);
    match step {
        Step::Create if model == Nothing => (204, Configured),
        Step::Create => (500, model),
        Step::Boot | Step::BootWithoutKernel | Step::BootWithoutDisk if model == Nothing => (404, model),
        Step::Boot if model == Configured => (204, Running),
        Step::BootWithoutKernel if model == Configured => (500, HalfMade),
        Step::BootWithoutDisk if model == Configured => (500, Configured),
        Step::Boot | Step::BootWithoutKernel | Step::BootWithoutDisk => (500, model),
        Step::Delete => (204, Nothing),
        Step::Shutdown if owned => (204, Configured),
        Step::Shutdown => (500, model),
        Step::Pause if matches!(model, Running | HalfMade) => (204, Paused),
        Step::Resume if matches!(model, Paused | HalfMade) => (204, Running),
        Step::Pause | Step::Resume => (500, model),
        Step::Reboot if owned => (204, Running),
        Step::Reboot => (404, model),
        Step::PowerButton if owned => (204, model),
        Step::Counters if owned => (200, model),
        Step::PowerButton | Step::Counters => (500, model),
        Step::Snapshot if model == Paused => (204, model),
        Step::Snapshot => (500, model),
        Step::Restore if model == Nothing && snapshot => (204, Paused),
        Step::Restore => (500, model),
        // News of a guest only ever come while there is one.
        Step::GuestPowersOff if matches!(model, Running) => (204, Configured),
        Step::GuestResets if matches!(model, Running) => (204, Running),
        Step::GuestPowersOff | Step::GuestResets => (0, model),
    }
}

fn perform(vmm: &mut Vmm<Fake>, step: Step) -> u16 {
    let config = || {
        let json = r#"{"payload":{"kernel":"/k"},"disks":[{"path":"/d","image_type":"Raw"}],"console":{"mode":"Off"}}"#;
        Box::new(serde_json::from_str(json).unwrap())
    };
    vmm.platform.kernel_missing = step == Step::BootWithoutKernel;
    vmm.platform.disk_missing = step == Step::BootWithoutDisk;
    let action = match step {
        Step::Create => Action::Create(config()),
        Step::Boot | Step::BootWithoutKernel | Step::BootWithoutDisk => Action::Boot,
        Step::Delete => Action::Delete,
        Step::Shutdown => Action::Shutdown,
        Step::Pause => Action::Pause,
        Step::Resume => Action::Resume,
        Step::Reboot => Action::Reboot,
        Step::PowerButton => Action::PowerButton,
        Step::Counters => Action::Counters,
        Step::Snapshot => Action::Snapshot(SnapshotConfig { destination_url: "file:///s".into() }),
        Step::Restore => Action::Restore(serde_json::from_str(r#"{"source_url":"file:///s"}"#).unwrap()),
        Step::GuestPowersOff | Step::GuestResets => {
            let event = if step == Step::GuestResets { GuestEvent::Reset } else { GuestEvent::PowerOff };
            return match vmm.guest_event(&event) {
                Ok(Flow::Continue) => 204,
                _ => 0,
            };
        }
    };
    match vmm.handle(action) {
        Ok(Reply::Nothing) => 204,
        Ok(_) => 200,
        Err(error) => vmm.status(&error),
    }
}

fn state(vmm: &Vmm<Fake>) -> Model {
    match (&vmm.config, &vmm.vm) {
        (None, None) => Model::Nothing,
        (Some(_), None) => Model::Configured,
        (_, Some(vm)) => match vm.state {
            State::Created => Model::HalfMade,
            State::Running => Model::Running,
            State::Paused => Model::Paused,
        },
    }
}

proptest! {
    #[test]
    fn any_sequence_of_calls_goes_as_the_model_says(picks in proptest::collection::vec(0..STEPS.len(), 1..60)) {
        let mut vmm = Vmm::new(Fake::default(), Profile::V53, true);
        let mut model = Model::Nothing;
        // Whether the configuration, and that of the snapshot, still has its disk: a boot that cannot open one loses it.
        let (mut disk, mut snapshot) = (false, None);
        for pick in picks {
            let step = match STEPS[pick] {
                Step::BootWithoutDisk if !disk => Step::Boot,
                step => step,
            };
            let (status, next) = predict(model, step, snapshot.is_some());
            if status == 0 {
                continue;
            }
            prop_assert_eq!(perform(&mut vmm, step), status, "{:?} in {:?}", step, model);
            match step {
                Step::Create if status == 204 => disk = true,
                Step::BootWithoutDisk if model == Model::Configured => disk = false,
                Step::Snapshot if status == 204 => snapshot = Some(disk),
                Step::Restore if status == 204 => disk = snapshot == Some(true),
                _ => {}
            }
            prop_assert_eq!(state(&vmm), next, "{:?} in {:?}", step, model);
            // Nothing may be held for a VM that is not there.
            if matches!(next, Model::Nothing | Model::Configured) {
                prop_assert!(!vmm.platform.guest_runs && vmm.platform.locked == 0, "{:?} in {:?}", step, model);
            }
            // vm.info answers 404 exactly when there is no configuration.
            prop_assert_eq!(vmm.handle(Action::Info).is_err(), next == Model::Nothing);
            model = next;
        }
        vmm.vmm_shutdown().unwrap();
        prop_assert_eq!(vmm.platform.events.last().map(String::as_str), Some("vmm/shutdown"));
    }
}

#[test]
fn a_disk_that_cannot_be_opened_is_gone_from_the_configuration() {
    let mut vmm = Vmm::new(Fake::default(), Profile::V53, true);
    perform(&mut vmm, Step::Create);
    perform(&mut vmm, Step::BootWithoutDisk);
    // Upstream's: the next boot succeeds, without the disk.
    assert_eq!(vmm.config.as_ref().and_then(|config| config.disks.as_ref()), None);
    assert_eq!(perform(&mut vmm, Step::Boot), 204);
}

#[test]
fn events_announce_before_they_check() {
    let mut vmm = Vmm::new(Fake::default(), Profile::V53, true);
    perform(&mut vmm, Step::Reboot);
    perform(&mut vmm, Step::Create);
    perform(&mut vmm, Step::Boot);
    perform(&mut vmm, Step::Pause);
    perform(&mut vmm, Step::Pause);
    perform(&mut vmm, Step::Delete);
    assert_eq!(
        vmm.platform.events,
        [
            "vm/rebooting",
            "vm/booting",
            "vm/booted",
            "vm/pausing",
            "vm/paused",
            "vm/pausing",
            "vm/shutdown",
            "vm/deleted"
        ]
    );
}

#[test]
fn taking_vcpus_away_twice_is_too_many_requests_until_the_guest_let_go() {
    let mut vmm = Vmm::new(Fake::default(), Profile::V53, true);
    let config =
        r#"{"cpus":{"boot_vcpus":4,"max_vcpus":4},"payload":{"kernel":"/k"},"console":{"mode":"Off"}}"#;
    vmm.handle(Action::Create(Box::new(serde_json::from_str(config).unwrap()))).unwrap();
    vmm.handle(Action::Boot).unwrap();
    let resize = |vmm: &mut Vmm<Fake>, vcpus| {
        let request = ResizeData { desired_vcpus: Some(vcpus), ..ResizeData::default() };
        vmm.handle(Action::Resize(request)).map_err(|error| vmm.status(&error))
    };
    assert_eq!(resize(&mut vmm, 3), Ok(Reply::Nothing));
    assert_eq!(resize(&mut vmm, 2), Err(429));
    vmm.guest_event(&GuestEvent::VcpusRemoved).unwrap();
    assert_eq!(resize(&mut vmm, 2), Ok(Reply::Nothing));
    assert_eq!(resize(&mut vmm, 9), Err(429), "leaving comes before the maximum");
}
