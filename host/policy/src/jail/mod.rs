//! What a child of this crate gives up for good before it reads a byte of a module: rights, network, files, and most of
//! the kernel's calls. Each wall stands alone: where the host cannot have one, the others do.

mod system_calls;

use std::fmt;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, UnshareFlags, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use crate::sys;
pub(crate) use system_calls::Threads;

/// One thing that a child cannot reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wall {
    /// A user id that nothing else has.
    OwnUser,
    /// No capability, and none to be had.
    NoPrivileges,
    /// A network namespace with nothing in it.
    OwnNetwork,
    /// No file, by Landlock.
    NoFiles,
    /// Only the calls that computing takes, by seccomp.
    FewSystemCalls,
}

impl Wall {
    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnUser => "own-user",
            Self::NoPrivileges => "no-privileges",
            Self::OwnNetwork => "own-network",
            Self::NoFiles => "no-files",
            Self::FewSystemCalls => "few-system-calls",
        }
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a wall stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WallState {
    /// Which.
    pub wall: Wall,
    /// Why it does not stand; nothing when it does.
    pub missing: Option<String>,
}

/// Gives up what a process can give up that has one thread: [`Wall::OwnUser`] to [`Wall::NoFiles`]. `user` is the id to
/// become, where this process may choose; `limits` are its resource limits.
///
/// # Errors
/// When a limit cannot be set. A wall that cannot be had is not an error.
pub(crate) fn confine(user: Option<u32>, limits: &[(Resource, u64)]) -> io::Result<Vec<WallState>> {
    for &(resource, limit) in limits {
        // A stricter limit that was there already stays.
        let bounded =
            |limit: u64| Some(getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit)));
        // The signal of the soft limit says which limit it was.
        let spare = u64::from(resource == Resource::Cpu);
        setrlimit(
            resource,
            Rlimit { current: bounded(limit), maximum: bounded(limit.saturating_add(spare)) },
        )?;
    }
    let own_network = own_network();
    let own_user = match user {
        Some(user) => become_user(user).map_err(|error| format!("cannot become user {user}: {error}")),
        None if rustix::process::geteuid().is_root() => Err("it runs as root".to_owned()),
        None => Err("only root can give it one".to_owned()),
    };
    let no_privileges = drop_privileges().map_err(|error| error.to_string());
    let walls = [
        (Wall::OwnUser, own_user),
        (Wall::NoPrivileges, no_privileges),
        (Wall::OwnNetwork, own_network),
        (Wall::NoFiles, no_files()),
    ];
    Ok(walls.map(|(wall, state)| WallState { wall, missing: state.err() }).to_vec())
}

/// Leaves the kernel's calls that computing takes, for all threads that there are and will be. The last step: what
/// comes after it can do no more than that.
pub(crate) fn restrict_system_calls(threads: Threads) -> WallState {
    let missing = system_calls::restrict(threads).err().map(|error| error.to_string());
    WallState { wall: Wall::FewSystemCalls, missing }
}

fn own_network() -> Result<(), String> {
    let wanted = UnshareFlags::NEWNET | UnshareFlags::NEWIPC;
    sys::unshare(wanted)
        // Who is not root may have namespaces in a user namespace of its own, where the host lets it.
        .or_else(|_| sys::unshare(wanted | UnshareFlags::NEWUSER))
        .map_err(|error| format!("no network namespace of its own: {error}"))
}

fn become_user(user: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // The kernel closes `/proc/self` of who changes its user; nobody else has this one.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

fn drop_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

fn no_files() -> Result<(), String> {
    let abi = ABI::V6;
    let handled = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.restrict_self());
    match handled {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            Err("the kernel has no Landlock".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("Landlock: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::{env, thread};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    const INSIDE: &str = "REGATTA_TEST_INSIDE_THE_JAIL";

    /// Runs in a process of its own: what is given up is given up for good.
    #[test]
    #[ignore = "only within the test below"]
    #[expect(clippy::disallowed_methods, reason = "attempts, which must fail")]
    fn attempts() {
        let threads = match env::var(INSIDE).as_deref() {
            Ok("more") => Threads::More,
            Ok("as-they-are") => Threads::AsTheyAre,
            _ => return,
        };
        let parent = rustix::process::getppid().expect("a parent");
        let user = rustix::process::geteuid().is_root().then_some(499_998);
        let program = env::current_exe().expect("this program");
        let open = File::open("/dev/null").expect("still open to all");
        confine(user, &[(Resource::Core, 0)]).expect("limits");
        assert_eq!(restrict_system_calls(threads).missing, None);
        let mut through = Vec::new();
        let mut attempt = |what: &str, happened: bool| {
            if happened {
                through.push(what.to_owned());
            }
        };
        attempt("read a file", File::open("/etc/passwd").is_ok());
        attempt("open itself", File::open(program).is_ok());
        attempt("make a file", File::create("/tmp/regatta-jail").is_ok());
        attempt("list a directory", std::fs::read_dir("/").is_ok());
        attempt("look at its parent", std::fs::read("/proc/self/environ").is_ok());
        attempt("start a program", Command::new("/bin/true").status().is_ok());
        attempt("open a socket", UdpSocket::bind("127.0.0.1:0").is_ok());
        attempt("connect to a port", TcpStream::connect("127.0.0.1:22").is_ok());
        attempt("make a socket pair", UnixStream::pair().is_ok());
        attempt("connect to a daemon", UnixStream::connect("/run/dbus/system_bus_socket").is_ok());
        attempt("signal its parent", kill_process(parent, Signal::CONT).is_ok());
        attempt("signal init", kill_process(Pid::INIT, Signal::CONT).is_ok());
        attempt("become root", set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok());
        attempt("leave its namespaces", sys::unshare(UnshareFlags::NEWUSER).is_ok());
        attempt("change the terminal", rustix::termios::tcgetattr(&open).is_ok());
        attempt(
            "lift its limits",
            setrlimit(Resource::Core, Rlimit { current: None, maximum: None }).is_ok(),
        );
        let started = thread::Builder::new().spawn(|| 7);
        assert_eq!(started.is_ok(), threads == Threads::More, "threads");
        if let Ok(thread) = started {
            // And what it has is no more.
            attempt("wait for a thread in vain", thread.join().ok() != Some(7));
        }
        println!("through: {through:?}");
        // Past the harness, which would like to do more than this.
        std::process::exit(i32::from(!through.is_empty()));
    }

    #[test]
    fn whoever_is_inside_gets_at_nothing_outside() {
        for threads in ["more", "as-they-are"] {
            let inside = Command::new(env::current_exe().expect("this program"))
                .args(["--exact", "jail::tests::attempts", "--ignored", "--nocapture", "--test-threads=1"])
                .env(INSIDE, threads)
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&inside.stdout);
            let words = String::from_utf8_lossy(&inside.stderr);
            assert!(said.contains("through: []"), "{threads}: {said}{words}");
            assert!(inside.status.success(), "{threads}: {}: {said}{words}", inside.status);
        }
    }
}
