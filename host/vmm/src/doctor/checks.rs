//! The checks.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use regatta_util::chain;
use regatta_util::program::installed;

use super::{Check, CheckStatus};
use crate::host::{BinaryRequest, VmmBinary};
use crate::process::procfs;
use crate::{Isolation, Measure, overlay, sys};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The load balancer takes two descriptors for each connection, and each VMM one for its pidfd and one for its socket.
const OPEN_FILES_WANTED: u64 = 65_536;
/// A VMM has some ten threads, and a thread takes an id.
const PIDS_WANTED: u64 = 65_536;
/// The kernel's default; guests with many memory slots need it.
const MAPS_WANTED: u64 = 65_530;
const DISK_WANTED_BYTES: u64 = 10 * GIB;
const MEMORY_WANTED_BYTES: u64 = GIB;

const AS_ROOT: &str = "run it (and regatta serve) as root, in a container with --privileged";

pub(super) fn kvm() -> Check {
    match open(Path::new("/dev/kvm")) {
        Ok(()) => Check::ok("kvm", "/dev/kvm can be used"),
        Err(error) => Check::bad(
            "kvm",
            CheckStatus::Fail,
            format!("/dev/kvm cannot be used ({error})"),
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => "run as root, or join the group of /dev/kvm",
                _ => {
                    "switch virtualization on in the firmware (or nested virtualization in the host), modprobe kvm_intel or kvm_amd"
                }
            },
        ),
    }
}

pub(super) fn vmm(path: Option<&Path>) -> Check {
    const NAME: &str = "cloud-hypervisor";
    let fix = "install Cloud Hypervisor 52 or later (one static binary from its release page), on PATH or with --vmm";
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => match installed(NAME) {
            Some(path) => path,
            None => return Check::bad(NAME, CheckStatus::Fail, "not on PATH", fix),
        },
    };
    match VmmBinary::resolve(&BinaryRequest::Path(path)) {
        Ok((binary, _)) => Check::ok(NAME, format!("{} at {}", binary.version(), binary.path().display())),
        Err(error) => Check::bad(NAME, CheckStatus::Fail, chain(&error), fix),
    }
}

/// Restoring a snapshot on demand needs it; without it the memory is copied at start.
pub(super) fn userfaultfd() -> Check {
    const NAME: &str = "userfaultfd";
    let sysctl = number("/proc/sys/vm/unprivileged_userfaultfd");
    let fix = "sysctl vm.unprivileged_userfaultfd=1; until then instances restore by copying their memory";
    match (sysctl, rustix::process::geteuid().is_root(), Path::new("/dev/userfaultfd").exists()) {
        (Some(1), _, _) => Check::ok(NAME, "for all users (vm.unprivileged_userfaultfd=1)"),
        (Some(_), true, _) => Check::bad(NAME, CheckStatus::Warn, "for root only, which VMMs are not", fix),
        (None, true, true) => Check::bad(NAME, CheckStatus::Warn, "for root only, which VMMs are not", fix),
        (Some(_), false, _) => Check::bad(NAME, CheckStatus::Warn, "for root only", fix),
        (None, _, _) => Check::bad(
            NAME,
            CheckStatus::Warn,
            "the kernel has none",
            "a kernel with CONFIG_USERFAULTFD; until then instances restore by copying their memory",
        ),
    }
}

pub(super) fn tun() -> Check {
    match open(Path::new("/dev/net/tun")) {
        Ok(()) => Check::ok("tun", "/dev/net/tun can be used"),
        Err(error) => {
            let seen = format!("/dev/net/tun cannot be used ({error})");
            Check::bad("tun", CheckStatus::Fail, seen, "modprobe tun; in a container pass the device in")
        }
    }
}

/// Tried in a thread of its own, with which the namespace vanishes.
pub(super) fn namespaces() -> Check {
    const NAME: &str = "network-namespaces";
    let tried = std::thread::spawn(sys::unshare_network).join();
    match tried {
        Ok(Ok(())) => Check::ok(NAME, "can be made"),
        Ok(Err(error)) => Check::bad(NAME, CheckStatus::Fail, format!("cannot be made ({error})"), AS_ROOT),
        Err(_) => Check::bad(NAME, CheckStatus::Fail, "cannot be tried: no more threads", AS_ROOT),
    }
}

/// What is seen, and what to do.
pub(super) const NO_NFT: (&str, &str) = ("there is no nft", "install nftables");

/// What isolated networks need.
pub(super) fn nftables() -> Check {
    const RULES: &str = "table inet regatta_doctor {
        chain nat { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }
    }";
    let fix = "run as root; modprobe nf_tables nft_nat nft_masq (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)";
    takes_rules("nftables", "NAT rules", RULES, fix)
}

/// What bridges need, so that their guests can speak for nobody but themselves.
pub(super) fn bridge_rules() -> Check {
    const RULES: &str = "table bridge regatta_doctor {
        set senders { type ifname . ether_addr . ipv4_addr; }
        chain from { type filter hook prerouting priority -300; iifname . ether saddr . ip saddr != @senders drop; }
    }";
    let fix = "run as root; a kernel with CONFIG_NF_TABLES_BRIDGE; until then network.mode: bridge launches nothing";
    takes_rules("bridge-rules", "rules for bridges", RULES, fix)
}

/// A dry run: the kernel is asked what it has, nothing is changed.
fn takes_rules(name: &'static str, kind: &str, rules: &str, fix: &str) -> Check {
    let Some(nft) = installed("nft") else {
        let (seen, fix) = NO_NFT;
        return Check::bad(name, CheckStatus::Fail, seen, fix);
    };
    let version = said(Command::new(&nft).arg("--version"), "").unwrap_or_default();
    let version = version.split_whitespace().nth(1).unwrap_or("nft").to_owned();
    match said(Command::new(&nft).args(["-c", "-f", "-"]), rules) {
        Ok(_) => Check::ok(name, format!("{version}, takes {kind}")),
        Err(why) => {
            Check::bad(name, CheckStatus::Fail, format!("{version} does not take {kind} ({why})"), fix)
        }
    }
}

pub(super) fn capabilities() -> Check {
    const NAME: &str = "capabilities";
    const WANTED: [(&str, u32); 4] =
        [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_SETUID", 7), ("CAP_CHOWN", 0)];
    let own = procfs::status(rustix::process::getpid()).map_or(0, |status| status.capabilities);
    let lacking: Vec<&str> =
        WANTED.iter().filter(|(_, bit)| own >> bit & 1 == 0).map(|(name, _)| *name).collect();
    if lacking.is_empty() {
        return Check::ok(NAME, WANTED.map(|(name, _)| name).join(" "));
    }
    Check::bad(NAME, CheckStatus::Fail, format!("without {}", lacking.join(" ")), AS_ROOT)
}

/// Only for information: what guests need to reach the outside is set when a network needs it.
pub(super) fn forwarding() -> Check {
    match number("/proc/sys/net/ipv4/ip_forward") {
        Some(1) => Check::ok("ip-forward", "on"),
        Some(_) => Check::ok("ip-forward", "off (only guests that reach outside the host need it)"),
        None => Check::ok("ip-forward", "not known"),
    }
}

/// What a VMM is contained by. Missing ones are recorded with each instance, and refused with `require_isolation`.
pub(super) fn containment(isolation: &Isolation) -> Vec<Check> {
    let host = isolation.host(true);
    let name = |measure| match measure {
        Measure::OwnUser => Some(("own-user", "a user for each VMM")),
        Measure::NoPrivileges => Some(("no-privileges", "VMMs without capabilities")),
        Measure::Seccomp => Some(("seccomp", "filters can be set")),
        Measure::Landlock => Some(("landlock", "")),
        Measure::Cgroup => Some(("cgroup", "v2, with limits on memory, CPU and processes")),
        Measure::ResourceLimits => Some(("resource-limits", "can be set")),
        // True wherever the daemon runs.
        Measure::NoInheritedDescriptors => None,
        // As `network-namespaces`.
        Measure::OwnNetwork | Measure::OwnProcesses => None,
    };
    let checks = host.measures.iter().filter_map(|state| {
        let (name, seen) = name(state.measure)?;
        Some(match (&state.missing, state.measure) {
            (None, Measure::Landlock) => landlock(),
            (None, _) => Check::ok(name, seen),
            (Some(why), _) => with_fix(Check::told(name, CheckStatus::Warn, why)),
        })
    });
    checks.collect()
}

fn with_fix(check: Check) -> Check {
    let fix = check.fix.unwrap_or_else(|| "set require_isolation: false to continue without".to_owned());
    Check { fix: Some(fix), ..check }
}

fn landlock() -> Check {
    match sys::landlock_abi() {
        Ok(abi @ 3..) => Check::ok(
            "landlock",
            format!("version {abi}, requested of each VMM; whether it complies cannot be seen"),
        ),
        Ok(abi) => Check::bad(
            "landlock",
            CheckStatus::Warn,
            format!("version {abi}: truncating files is not covered"),
            "Linux 6.2 or later has version 3",
        ),
        Err(error) => Check::bad("landlock", CheckStatus::Warn, error.to_string(), "Linux 6.2 or later"),
    }
}

pub(super) fn limits() -> [Check; 3] {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    [
        at_least(
            "open-files",
            files.or(Some(u64::MAX)),
            OPEN_FILES_WANTED,
            "LimitNOFILE=1048576 in the unit, or ulimit -Hn",
        ),
        at_least("pids", number("/proc/sys/kernel/pid_max"), PIDS_WANTED, "sysctl kernel.pid_max=4194304"),
        at_least(
            "memory-maps",
            number("/proc/sys/vm/max_map_count"),
            MAPS_WANTED,
            "sysctl vm.max_map_count=262144",
        ),
    ]
}

fn at_least(name: &'static str, found: Option<u64>, wanted: u64, fix: &str) -> Check {
    match found {
        Some(u64::MAX) => Check::ok(name, "no limit"),
        Some(found) if found >= wanted => Check::ok(name, format!("up to {found}")),
        Some(found) => {
            Check::bad(name, CheckStatus::Warn, format!("up to {found}, {wanted} are advised"), fix)
        }
        None => Check::ok(name, "not known"),
    }
}

/// Of the file system that holds the data directory, or will.
pub(super) fn data(dir: &Path) -> [Check; 2] {
    let Some(there) = dir.ancestors().find(|dir| dir.is_dir()) else {
        let seen = format!("{} is nowhere", dir.display());
        let check = |name| Check::bad(name, CheckStatus::Fail, seen.clone(), "name another with --data");
        return [check("reflink"), check("disk")];
    };
    let reflink = match overlay::reflink(there) {
        Ok(true) => {
            Check::ok("reflink", format!("{} shares blocks: raw overlays cost nothing", there.display()))
        }
        Ok(false) => {
            let seen =
                format!("{} does not share blocks: qcow2 overlays are the cheap ones", there.display());
            Check::ok("reflink", seen)
        }
        Err(error) => Check::bad(
            "reflink",
            CheckStatus::Warn,
            format!("cannot be tried in {} ({error})", there.display()),
            "run as the daemon's user, or name its data directory with --data",
        ),
    };
    [reflink, disk(there)]
}

fn disk(dir: &Path) -> Check {
    let fix = "free some, or put the data directory elsewhere (--data)";
    match rustix::fs::statvfs(dir) {
        Ok(facts) => {
            let free = facts.f_bavail.saturating_mul(facts.f_frsize);
            let seen = format!("{} free in {}", size(free), dir.display());
            if free >= DISK_WANTED_BYTES {
                Check::ok("disk", seen)
            } else {
                Check::bad("disk", CheckStatus::Warn, seen, fix)
            }
        }
        Err(error) => Check::bad("disk", CheckStatus::Warn, format!("not known ({error})"), fix),
    }
}

pub(super) fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match parse_available(&text) {
        Some(bytes) if bytes >= MEMORY_WANTED_BYTES => {
            Check::ok("memory", format!("{} available", size(bytes)))
        }
        Some(bytes) => Check::bad(
            "memory",
            CheckStatus::Warn,
            format!("{} available", size(bytes)),
            "free some: VMs get what they were promised as they touch it",
        ),
        None => Check::ok("memory", "not known"),
    }
}

fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn size(bytes: u64) -> String {
    match bytes {
        GIB.. => format!("{} GiB", bytes / GIB),
        _ => format!("{} MiB", bytes / MIB),
    }
}

fn open(device: &Path) -> std::io::Result<()> {
    File::options().read(true).write(true).open(device).map(drop)
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Runs a program with this input; what it printed, or the first line of why it failed.
fn said(command: &mut Command, input: &str) -> Result<String, String> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says itself why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let first = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(first(&output.stderr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_and_sizes_are_short() {
        assert_eq!(parse_available("MemTotal: 5 kB\nMemAvailable:    2048 kB\n"), Some(2 * MIB));
        assert_eq!(parse_available("MemTotal: 5 kB\n"), None);
        assert_eq!((size(3 * GIB + 5), size(700 * MIB)), ("3 GiB".to_owned(), "700 MiB".to_owned()));
    }

    #[test]
    fn limits_are_compared() {
        assert_eq!(at_least("x", Some(10), 10, "f").status, CheckStatus::Ok);
        let low = at_least("x", Some(9), 10, "more");
        assert_eq!((low.status, low.fix.as_deref()), (CheckStatus::Warn, Some("more")));
        assert_eq!(at_least("x", Some(u64::MAX), 10, "f").seen, "no limit");
    }

    #[test]
    fn a_program_that_fails_says_why() {
        assert_eq!(said(&mut Command::new("cat"), "hello"), Ok("hello".to_owned()));
        let why = said(Command::new("sh").args(["-c", "echo no >&2; echo more >&2; exit 1"]), "");
        assert_eq!(why, Err("no".to_owned()));
    }
}
