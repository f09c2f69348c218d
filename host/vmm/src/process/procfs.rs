//! What `/proc` says about a process: parsing is pure, reading is one small function each.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// The fields of `/proc/<pid>/stat` that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// One-letter state; `Z` and `X` mean that it is dead.
    pub(crate) state: char,
    /// Session id.
    pub(crate) session: i32,
    /// Start of the process in clock ticks after boot: with the pid, it names a process for as long as the host is up.
    pub(crate) start_time_ticks: u64,
}

impl Stat {
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Parses the one line of `/proc/<pid>/stat`. The command name may hold spaces and brackets, so the fields count from the last `)`.
pub(crate) fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        session: fields.get(3)?.parse().ok()?,
        start_time_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Reads and parses `/proc/<pid>/stat`; `None` when there is no such process.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    let bytes = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse_stat(&String::from_utf8_lossy(&bytes))
}

/// Splits `/proc/<pid>/cmdline` into arguments.
pub(crate) fn parse_cmdline(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|arg| OsStr::from_bytes(arg).to_owned()).collect()
}

/// Reads the command line of a process; empty when it is gone or a zombie.
pub(crate) fn cmdline(pid: Pid) -> Vec<OsString> {
    std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
        .map(|bytes| parse_cmdline(&bytes))
        .unwrap_or_default()
}

/// The path given by option `name`, written `--name path`, `--name path=path` or `--name=…`; further `,key=value` parts are left off.
pub(crate) fn path_option(args: &[OsString], name: &str) -> Option<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let arg = arg.as_bytes();
        let value = match arg.strip_prefix(name.as_bytes()) {
            Some([]) => args.next()?.as_bytes(),
            Some([b'=', rest @ ..]) => rest,
            _ => continue,
        };
        let value = value.strip_prefix(b"path=").unwrap_or(value);
        let value = value.split(|byte| *byte == b',').next().unwrap_or(value);
        return Some(PathBuf::from(OsStr::from_bytes(value)));
    }
    None
}

/// The processes that the first thread of `pid` started and that were not waited for; none when the kernel does not tell.
pub(crate) fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// Resident set size out of `/proc/<pid>/statm`, in bytes; `None` when the process is gone.
pub(crate) fn rss_bytes(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_nonzero())).ok()?;
    parse_statm_rss(&text, rustix::param::page_size() as u64)
}

fn parse_statm_rss(text: &str, page_bytes: u64) -> Option<u64> {
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(page_bytes)
}

/// What `/proc/<pid>/status` says about a process's rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Real, effective, saved and file-system user id.
    pub(crate) uids: [u32; 4],
    /// Every capability that it has or hands on.
    pub(crate) capabilities: u64,
    pub(crate) no_new_privs: bool,
    /// Whether a seccomp filter judges its system calls.
    pub(crate) seccomp_filter: bool,
}

/// Parses `/proc/<pid>/status`; `None` when a field is missing.
pub(crate) fn parse_status(text: &str) -> Option<Status> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mut uids = field("Uid")?.split_ascii_whitespace().map(str::parse);
    let mut uid = || uids.next()?.ok();
    let capabilities = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    Some(Status {
        uids: [uid()?, uid()?, uid()?, uid()?],
        capabilities: ["CapInh", "CapPrm", "CapEff", "CapAmb"]
            .into_iter()
            .try_fold(0, |all, name| Some(all | capabilities(name)?))?,
        no_new_privs: field("NoNewPrivs")? == "1",
        seccomp_filter: field("Seccomp")? == "2",
    })
}

/// The network namespace of a process or of `thread-self`, as its inode; `None` when it cannot be seen.
pub(crate) fn namespace(of: &str, kind: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{of}/ns/{kind}")).ok().map(|facts| facts.ino())
}

/// The process id that a process has among those of its own namespace; `None` when it is gone.
pub(crate) fn inner_pid(pid: i32) -> Option<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().last()?.parse().ok()
}

/// The rights of a process; `None` when it is gone.
pub(crate) fn status(pid: Pid) -> Option<Status> {
    parse_status(&std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?)
}

/// The ids of all users that any process has.
pub(crate) fn users() -> HashSet<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return HashSet::new() };
    let pids =
        processes.flatten().filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter_map(status).flat_map(|status| status.uids).collect()
}

/// The rights of each thread of a process; empty when it is gone.
pub(crate) fn threads(pid: Pid) -> Vec<Status> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| parse_status(&std::fs::read_to_string(task.path().join("status")).ok()?))
        .collect()
}

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    /// The file that a path leads to; none when there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = rustix::fs::stat(path).ok()?;
        Some(Self { device: found.st_dev, inode: found.st_ino })
    }
}

/// The program that a process runs, also when its file was replaced since; none when the kernel does not tell.
pub(crate) fn program(pid: Pid) -> Option<FileId> {
    FileId::of(Path::new(&format!("/proc/{}/exe", pid.as_raw_nonzero())))
}

/// Names this boot of the host.
pub(crate) fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().to_owned()
    })
}

/// Every process id in `/proc`.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn all_pids() -> std::io::Result<Vec<Pid>> {
    Ok(std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::io::Read;

    use super::*;

    #[test]
    fn stat_survives_brackets_and_spaces_in_the_command_name() {
        let line = "4242 (a b) (c) S 1 4242 4242 0 -1 4194304 1 2 3 4 55 66 0 0 20 0 3 0 987654 1 2 3\n";
        let stat = parse_stat(line).expect("parsed");
        assert_eq!(stat, Stat { state: 'S', session: 4242, start_time_ticks: 987_654 });
        assert!(!stat.is_dead());
        assert_eq!(parse_stat("4242 (short) Z 1"), None);
    }

    #[test]
    fn own_process_reads_back() {
        let me = rustix::process::getpid();
        assert!(stat(me).expect("own stat").start_time_ticks > 0);
        assert!(rss_bytes(me).expect("own rss") > 100_000);
        assert!(!cmdline(me).is_empty());
        assert!(all_pids().expect("pids").contains(&me));
        assert_eq!(parse_statm_rss("10 3 1 1 0 1 0", 4096), Some(12_288));
    }

    #[test]
    fn rights_are_read_from_a_status() {
        let text = "Name:\tvmm\nUid:\t500001\t500001\t500001\t500001\nGid:\t1\t1\t1\t1\nCapInh:\t0\nCapPrm:\t0\n\
                    CapEff:\t00000000000000c0\nCapBnd:\tff\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let expected =
            Status { uids: [500_001; 4], capabilities: 0xc0, no_new_privs: true, seccomp_filter: true };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status(&text.replace("CapAmb", "CapXyz")), None);
        let me = rustix::process::getpid();
        assert!(threads(me).contains(&status(me).expect("own status")));
    }

    #[test]
    fn helpers_are_found() {
        let me = rustix::thread::gettid().as_raw_nonzero();
        if !std::path::Path::new(&format!("/proc/self/task/{me}/children")).exists() {
            println!("skipped: this kernel does not tell who is whose child (CONFIG_PROC_CHILDREN)");
            return;
        }
        let mut shell = std::process::Command::new("sh");
        let script = "sleep 1000 & echo; read _; kill $!";
        shell.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().expect("sh");
        let mut line = [0];
        shell.stdout.as_mut().expect("piped").read_exact(&mut line).expect("it has started its child");
        let helpers = children(Pid::from_child(&shell));
        drop(shell.stdin.take());
        shell.wait().expect("sh ends");
        assert_eq!(helpers.len(), 1);
    }

    #[test]
    fn path_option_reads_every_spelling() {
        let args = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        for spelling in [
            &["ch", "--api-socket", "path=/a/b"][..],
            &["ch", "--api-socket", "/a/b"],
            &["ch", "-v", "--api-socket=/a/b"],
            &["ch", "--api-socket=path=/a/b,fd=3"],
            // What the command line is for a moment, before the wrappers have become the VMM.
            &["prlimit", "--core=0:0", "setpriv", "--reuid=5", "--", "ch", "--api-socket", "path=/a/b"],
        ] {
            assert_eq!(path_option(&args(spelling), "--api-socket"), Some("/a/b".into()), "{spelling:?}");
        }
        assert_eq!(path_option(&args(&["ch", "--api-socket-x", "/a"]), "--api-socket"), None);
        assert_eq!(path_option(&args(&["ch", "--api-socket"]), "--api-socket"), None);
    }

    proptest! {
        #[test]
        fn cmdline_round_trips(args in proptest::collection::vec("[^\0]{1,12}", 1..6)) {
            let joined: Vec<u8> = args.iter().flat_map(|arg| arg.bytes().chain([0])).collect();
            prop_assert_eq!(parse_cmdline(&joined), args.iter().map(OsString::from).collect::<Vec<_>>());
        }

        #[test]
        fn stat_parser_never_panics(line in "\\PC*") {
            let _ = parse_stat(&line);
        }
    }
}
