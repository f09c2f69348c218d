//! What the VMM needs of the machine it runs on.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{DiskConfig, ImageType, MacAddr, NetConfig, PayloadConfig, VmConfig, VsockConfig};

use super::VmError;
use super::tree::Kind;

type Result<T> = std::result::Result<T, VmError>;

/// Something done to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestCommand {
    Pause,
    Resume,
    PowerButton,
    Nmi,
    /// Ask the guest to let go of the device with this id.
    Eject(String),
    /// Ask the guest to give vCPUs back.
    RemoveVcpus,
    /// Ask the balloon to become this large, bytes.
    Balloon(u64),
}

/// What a guest keeps in its memory, whatever the configuration says by the time it is restored from a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuestState {
    /// The command line it was booted with, and so its name and address.
    pub(crate) cmdline: String,
    /// MAC addresses of its network devices, by id.
    #[serde(default)]
    pub(crate) macs: BTreeMap<String, MacAddr>,
}

/// Files, sockets, locks and the guest. All of one VM: [`Platform::release`] gives everything back at once.
pub(crate) trait Platform {
    /// The process id that `vmm.ping` tells.
    fn pid(&self) -> i64;

    /// Emits an event.
    fn event(&mut self, source: &str, event: &str, properties: &[(&str, &str)]);

    /// Opens the serial port and the consoles; writes the path of a new pseudo-terminal into the configuration.
    fn create_consoles(&mut self, config: &mut VmConfig) -> Result<()>;

    /// Checks that guest memory of this configuration could be mapped.
    fn map_memory(&mut self, config: &VmConfig) -> Result<()>;

    /// Whether a path exists.
    fn exists(&self, path: &Path) -> bool;

    /// Opens a disk image and says what it is.
    fn open_disk(&mut self, id: &str, disk: &DiskConfig) -> Result<ImageType>;

    /// Locks one disk that is open; the error starts at "Cannot lock images of all block devices".
    fn lock_disk(&mut self, id: &str) -> Result<()>;

    /// Changes the size of a raw disk, bytes.
    fn resize_disk(&mut self, id: &str, bytes: u64) -> Result<()>;

    /// Attaches a network device and says the MAC address of its host side.
    fn open_net(&mut self, id: &str, net: &NetConfig) -> Result<Option<MacAddr>>;

    /// Binds the host side of the vsock device.
    fn open_vsock(&mut self, id: &str, vsock: &VsockConfig) -> Result<()>;

    /// Reaches the process behind a vhost-user or vfio-user socket.
    fn connect_backend(&mut self, socket: &Path) -> io::Result<()>;

    /// Opens a file that stands behind a device or a boot.
    fn open_file(&mut self, path: &Path) -> io::Result<()>;

    /// Gives back what a device holds: its lock, its socket.
    fn close_device(&mut self, id: &str);

    /// Reads kernel or firmware.
    fn load_payload(&mut self, payload: &PayloadConfig) -> Result<()>;

    /// Lets the guest run; `devices` are the ids its drivers will find. `resumed` holds the state that a snapshot
    /// kept of it: then it is not booted, and stands still until it is resumed.
    fn start_guest(
        &mut self,
        config: &VmConfig,
        devices: Vec<String>,
        resumed: Option<&GuestState>,
    ) -> Result<()>;

    /// Does something to the guest; nothing when there is none.
    fn guest(&mut self, command: GuestCommand) -> Result<()>;

    /// Whether devices, processors and memory of a running guest can be changed.
    fn check_hot_plug(&self) -> Result<()> {
        Ok(())
    }

    /// What the guest's balloon has taken, bytes, if it can be asked; else its news say it.
    fn balloon_bytes(&self) -> Option<u64> {
        None
    }

    /// Ends the guest and gives back what its devices hold: files, sockets, locks.
    fn release(&mut self);

    /// Closes serial port and consoles.
    fn drop_consoles(&mut self);

    /// I/O so far.
    fn counters(&self) -> Tally;

    /// Writes a snapshot's three files into the directory behind the URL.
    fn write_snapshot(&mut self, url: &str, config: &VmConfig) -> Result<()>;

    /// Reads the configuration of a snapshot.
    fn read_snapshot_config(&mut self, url: &str) -> Result<VmConfig>;

    /// Reads what a snapshot kept of the guest; its memory only as it is used, if so asked.
    fn read_snapshot_state(&mut self, url: &str, on_demand: bool) -> Result<GuestState>;

    /// Whether the devices of `config`, all open by now, are those that the snapshot's guest has drivers for.
    fn check_snapshot_state(&mut self, url: &str, config: &VmConfig) -> Result<()>;

    /// Listens at a migration URL, takes one connection and reads one request. Blocks. `ready` and `started` events
    /// are the platform's to emit, at their moments.
    fn receive_migration(&mut self, url: &str) -> Result<()>;
}

/// Who counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tally {
    /// The whole VM is counted as one.
    Whole(Counters),
    /// Each device is, by its id.
    Each(BTreeMap<String, Counters>),
}

/// I/O of a device, or of the whole VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) read_bytes: u64,
    pub(crate) read_ops: u64,
    pub(crate) write_bytes: u64,
    pub(crate) write_ops: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_frames: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_frames: u64,
    /// Time that all operations took together; `None` when it is only modelled.
    pub(crate) read_time_ns: Option<u64>,
    pub(crate) write_time_ns: Option<u64>,
}

/// Counter name to value.
type ByName = BTreeMap<&'static str, u64>;

impl Tally {
    /// The answer of `vm.counters`. What is only known of the whole VM goes to the first disk and the first network
    /// device, and the others are idle.
    pub(super) fn by_device<'a>(
        &self,
        devices: impl Iterator<Item = (&'a str, Kind)>,
    ) -> BTreeMap<String, ByName> {
        let idle = Counters::default();
        let whole = match self {
            Self::Whole(counters) => counters,
            Self::Each(_) => &idle,
        };
        let (mut disk, mut net) = (Some(whole), Some(whole));
        let count = |(id, kind): (&'a str, Kind)| {
            let own = match self {
                Self::Each(each) => each.get(id),
                Self::Whole(_) => None,
            };
            let counters = match kind {
                Kind::Disk => own.or(disk.take()).unwrap_or(&idle).disk(),
                Kind::Net => own.or(net.take()).unwrap_or(&idle).net(),
                Kind::Other | Kind::Fixed(_) => return None,
            };
            Some((id.to_owned(), counters))
        };
        devices.filter_map(count).collect()
    }
}

impl Counters {
    fn disk(&self) -> ByName {
        // Before the first operation upstream shows the start values of its minimum, maximum and mean.
        let latency = |ops: u64, time_ns: Option<u64>, us: u64| match (ops, time_ns) {
            (0, _) => [u64::MAX, u64::MAX, u64::MAX / 10_000],
            (_, None) => [us, us * 4, us * 2],
            // Only the mean is known.
            (_, Some(time_ns)) => [u64::MAX, u64::MAX, time_ns / ops / 1000],
        };
        let [read_min, read_max, read_avg] = latency(self.read_ops, self.read_time_ns, 40);
        let [write_min, write_max, write_avg] = latency(self.write_ops, self.write_time_ns, 60);
        BTreeMap::from([
            ("read_bytes", self.read_bytes),
            ("read_ops", self.read_ops),
            ("read_latency_min", read_min),
            ("read_latency_max", read_max),
            ("read_latency_avg", read_avg),
            ("write_bytes", self.write_bytes),
            ("write_ops", self.write_ops),
            ("write_latency_min", write_min),
            ("write_latency_max", write_max),
            ("write_latency_avg", write_avg),
        ])
    }

    fn net(&self) -> ByName {
        BTreeMap::from([
            ("rx_bytes", self.rx_bytes),
            ("rx_frames", self.rx_frames),
            ("tx_bytes", self.tx_bytes),
            ("tx_frames", self.tx_frames),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_counted_have_their_own_counts() {
        let devices =
            || [("a", Kind::Disk), ("b", Kind::Disk), ("n", Kind::Net), ("__rng", Kind::Fixed("rng"))];
        let whole = Tally::Whole(Counters { read_bytes: 5, rx_bytes: 6, ..Counters::default() });
        let whole = whole.by_device(devices().into_iter());
        assert_eq!((whole["a"]["read_bytes"], whole["b"]["read_bytes"], whole["n"]["rx_bytes"]), (5, 0, 6));
        let b = Counters { read_ops: 2, read_time_ns: Some(9000), ..Counters::default() };
        let each = Tally::Each(BTreeMap::from([("b".to_owned(), b)])).by_device(devices().into_iter());
        assert_eq!((each["a"]["read_ops"], each["b"]["read_ops"]), (0, 2));
        assert_eq!((each["b"]["read_latency_avg"], each["b"]["read_latency_min"]), (4, u64::MAX));
        assert!(!each.contains_key("__rng"));
    }
}
