//! What this host can do to contain VMMs, found out once, and what follows from it for one launch.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use regatta_util::program::installed;

use super::access::{self, Door, Use};
use super::uids::{Lease, Uids};
use super::{Containment, Measure, hand_over, make_logs};
use crate::instance::{BootSource, DirError, InstanceDir, LaunchSpec, NetworkSpec, root_size_bytes};
use crate::process::{CgroupRoot, open_files, procfs};
use crate::sys;

/// No account of a distribution and no systemd user is in this range.
const UIDS: RangeInclusive<u32> = 500_000..=565_535;
/// Both of util-linux: what they do cannot be done between fork and exec without code of our own running there.
const SETPRIV: &str = "setpriv";
const PRLIMIT: &str = "prlimit";

/// What may be chosen about containment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationOptions {
    /// User (and group) ids for VMMs. They need no entry in `/etc/passwd`, and nobody else may use them.
    pub uids: RangeInclusive<u32>,
    /// A daemon that is root may run VMMs as root, too, where they cannot have users of their own.
    pub allow_root: bool,
    /// The device that VMMs run their guests with, if it is there.
    pub kvm: PathBuf,
    /// The device that VMMs open their taps with.
    pub tun: PathBuf,
}

impl Default for IsolationOptions {
    fn default() -> Self {
        Self { uids: UIDS, allow_root: true, kvm: "/dev/kvm".into(), tun: "/dev/net/tun".into() }
    }
}

/// Processes and threads of a VMM with a user of its own: one per virtual CPU and queue, and a few more.
const PROCESSES: u32 = 4_096;

/// What this host can do to contain VMMs. Clones share the user ids that are handed out.
#[derive(Clone, Debug)]
pub struct Isolation {
    facts: Arc<Facts>,
}

#[derive(Debug)]
struct Facts {
    options: IsolationOptions,
    uids: Uids,
    /// Program and options that limit resources, if there is one, and drop privileges.
    wrapper: Vec<OsString>,
    own_user: Result<(), String>,
    no_privileges: Result<(), String>,
    seccomp: Result<(), String>,
    landlock: Result<(), String>,
    cgroup: Result<(), String>,
    resource_limits: Result<(), String>,
    descriptors: Result<(), String>,
    own_network: Result<(), String>,
    own_processes: Result<(), String>,
}

impl Isolation {
    /// Finds out what this host can do. Runs `setpriv` to see whether it works here. Blocking.
    #[must_use]
    pub fn detect(options: IsolationOptions, cgroups: &Result<CgroupRoot, String>) -> Self {
        let root = rustix::process::geteuid().is_root();
        let setpriv = installed(SETPRIV).ok_or_else(|| format!("there is no {SETPRIV}: install util-linux"));
        let prlimit = installed(PRLIMIT);
        let mut wrapper: Vec<OsString> = Vec::new();
        if let Some(prlimit) = &prlimit {
            let files = open_files();
            wrapper.extend([prlimit.into(), "--core=0:0".into(), format!("--nofile={files}:{files}").into()]);
        }
        wrapper.extend(setpriv.iter().map(OsString::from));
        let works = |options: Vec<OsString>| setpriv.clone().and_then(|_| probe(&wrapper, &options));
        let uid = *options.uids.start();
        let own_user = match root {
            true if options.uids.is_empty() || uid == 0 => {
                Err("no user ids are set aside for VMMs".to_owned())
            }
            true => works(setpriv_options(root, Some((uid, &[])))),
            false => Err("the daemon is not root, so VMMs run as its own user: run it as root".to_owned()),
        };
        let resource_limits = match prlimit {
            Some(_) => Ok(()),
            None if !root => Ok(()),
            None => Err(format!("there is no {PRLIMIT}: install util-linux")),
        };
        let no_privileges = works(setpriv_options(root, None));
        let cgroup = match cgroups {
            Ok(root) => root.limits().map_err(str::to_owned),
            Err(why) => Err(why.clone()),
        };
        let facts = Facts {
            uids: Uids::new(options.uids.clone()),
            wrapper,
            own_user,
            no_privileges,
            seccomp: seccomp(),
            landlock: landlock(),
            cgroup,
            resource_limits,
            descriptors: Ok(()),
            own_network: own_namespace("network", sys::unshare_network),
            own_processes: own_namespace("PID", sys::unshare_processes),
            options,
        };
        Self { facts: Arc::new(facts) }
    }

    /// Contains nothing, and records that for the given reason.
    #[must_use]
    pub fn off(why: &str) -> Self {
        let missing = || Err(why.to_owned());
        let facts = Facts {
            options: IsolationOptions::default(),
            uids: Uids::new(UIDS),
            wrapper: Vec::new(),
            own_user: missing(),
            no_privileges: missing(),
            seccomp: missing(),
            landlock: missing(),
            cgroup: missing(),
            resource_limits: missing(),
            descriptors: missing(),
            own_network: missing(),
            own_processes: missing(),
        };
        Self { facts: Arc::new(facts) }
    }

    /// Why a VMM that is contained in this way must not run; none if it may.
    pub(crate) fn refusal(&self, containment: &Containment) -> Option<String> {
        let root = rustix::process::geteuid().is_root() && !self.facts.options.allow_root;
        containment
            .missing()
            .find(|(measure, _)| root && *measure == Measure::OwnUser)
            .map(|(_, why)| why.to_owned())
    }

    /// User ids that VMMs may have.
    pub(crate) fn uids(&self) -> RangeInclusive<u32> {
        self.facts.options.uids.clone()
    }

    /// What the host can do for VMMs, those with a network device or those without, before anything is known of a particular one.
    #[must_use]
    pub fn host(&self, network: bool) -> Containment {
        let mut containment = self.common();
        if let Err(why) = self.devices(network) {
            containment.withdraw(Measure::OwnUser, why);
        }
        containment
    }

    fn common(&self) -> Containment {
        let facts = &self.facts;
        let mut containment = Containment::none("");
        for (measure, state) in [
            (Measure::OwnUser, &facts.own_user),
            (Measure::NoPrivileges, &facts.no_privileges),
            (Measure::Seccomp, &facts.seccomp),
            (Measure::Landlock, &facts.landlock),
            (Measure::Cgroup, &facts.cgroup),
            (Measure::ResourceLimits, &facts.resource_limits),
            (Measure::NoInheritedDescriptors, &facts.descriptors),
            (Measure::OwnNetwork, &facts.own_network),
            (Measure::OwnProcesses, &facts.own_processes),
        ] {
            containment.set(measure, state.clone());
        }
        containment
    }

    /// How to contain one VMM. Reserves its user id. Blocking.
    pub(crate) fn plan(&self, needs: &Needs) -> Plan {
        let mut containment = self.common();
        let mut groups = Vec::new();
        let mut lease = None;
        if containment.has(Measure::OwnUser) {
            match self.user(needs) {
                Ok((reserved, joined)) => {
                    containment.uid = Some(reserved.uid);
                    lease = Some(reserved);
                    groups = joined;
                }
                Err(why) => containment.withdraw(Measure::OwnUser, why),
            }
        }
        if needs.host_network {
            let why = "its guest answers on the host's loopback: use another network.mode";
            containment.withdraw(Measure::OwnNetwork, why.to_owned());
            containment.withdraw(Measure::OwnProcesses, why.to_owned());
        }
        let wrapper = containment.has(Measure::NoPrivileges).then(|| {
            let user = containment.uid.map(|uid| (uid, groups.as_slice()));
            let mut wrapper = self.facts.wrapper.clone();
            if self.facts.resource_limits.is_ok() && wrapper.len() > 1 {
                // After the program's name.
                let limit = needs.largest_file_bytes;
                wrapper.insert(1, format!("--fsize={limit}:{limit}").into());
                if user.is_some() {
                    // It counts what the user has, and this one has one VMM only.
                    wrapper.insert(1, format!("--nproc={PROCESSES}:{PROCESSES}").into());
                }
            }
            wrapper.extend(setpriv_options(rustix::process::geteuid().is_root(), user));
            wrapper
        });
        if wrapper.is_none() {
            (containment.uid, lease) = (None, None);
            containment.withdraw(Measure::OwnUser, "it cannot be had without no-privileges".to_owned());
        }
        Plan { containment, wrapper, _lease: lease }
    }

    /// The user for a VMM, and the groups that it must be in to use its devices.
    fn user(&self, needs: &Needs) -> Result<(Lease, Vec<u32>), String> {
        let groups = self.devices(needs.tap)?;
        let lease = self.facts.uids.lease(&needs.dir)?;
        for (path, wanted) in &needs.files {
            access::check(path, lease.uid, *wanted)?;
        }
        Ok((lease, groups))
    }

    fn devices(&self, tap: bool) -> Result<Vec<u32>, String> {
        let options = &self.facts.options;
        let mut groups = Vec::new();
        let (kvm, tun) = (options.kvm.display(), options.tun.display());
        // What distributions do: a group for the one; everyone for the other, where the owner of the tap decides.
        let for_kvm =
            format!("groupadd --system kvm; chgrp kvm {kvm}; chmod 660 {kvm} (a udev rule makes it last)");
        let for_tun = format!("chmod 666 {tun} (as udev does; taps have owners)");
        let (mut problems, mut fixes) = (Vec::new(), Vec::new());
        for (path, wanted, fix) in [(&options.kvm, true, for_kvm), (&options.tun, tap, for_tun)] {
            match access::device(path) {
                _ if !wanted => {}
                Ok(Door::Group(gid)) if !groups.contains(&gid) => groups.push(gid),
                Ok(_) => {}
                Err(why) => {
                    problems.push(why);
                    fixes.push(fix);
                }
            }
        }
        if !problems.is_empty() {
            return Err(format!("{}: {}", problems.join(", "), fixes.join("; ")));
        }
        Ok(groups)
    }
}

/// What a VMM must be able to use, taken out of a specification.
#[derive(Debug)]
pub(crate) struct Needs {
    dir: InstanceDir,
    files: Vec<(PathBuf, Use)>,
    tap: bool,
    host_network: bool,
    /// No file of a VMM is larger: its disks, its memory in a snapshot, logs until they are cut.
    largest_file_bytes: u64,
}

/// Room for a VMM's other files, and for what a qcow2 file holds beside its guest's data.
const FILE_SLACK_BYTES: u64 = 256 << 20;

impl Needs {
    pub(crate) fn of(spec: &LaunchSpec, vmm: &Path) -> Self {
        let read = |path: &Path| (path.to_path_buf(), Use::Read);
        let mut files = vec![(vmm.to_path_buf(), Use::Run)];
        files.extend(
            spec.dir.path().ancestors().nth(2).map(|instances| (instances.to_path_buf(), Use::Enter)),
        );
        match &spec.boot {
            BootSource::Kernel { kernel, initramfs, .. } => {
                files.push(read(kernel));
                files.extend(initramfs.as_deref().map(read));
            }
            BootSource::Firmware { firmware } => files.push(read(firmware)),
        }
        files.extend(spec.root.as_ref().map(|root| read(root.image.path())));
        files.extend(spec.shared_disks.iter().map(|disk| read(&disk.path)));
        let disks = spec.data_disks.iter().map(|disk| disk.size_bytes).chain(root_size_bytes(spec));
        let largest = disks.fold(spec.memory_bytes, u64::max);
        Self {
            dir: spec.dir.clone(),
            files,
            tap: matches!(spec.network, NetworkSpec::Isolated(_) | NetworkSpec::Bridged(_)),
            host_network: spec.network == NetworkSpec::Host,
            largest_file_bytes: largest.saturating_add(largest / 64).saturating_add(FILE_SLACK_BYTES),
        }
    }
}

/// How one VMM is contained.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) containment: Containment,
    /// The programs that run the VMM, with their options.
    wrapper: Option<Vec<OsString>>,
    _lease: Option<Lease>,
}

impl Plan {
    /// The command that runs `program` contained.
    pub(crate) fn command(&self, program: &Path, args: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
        let mut words = self.wrapper.iter().flatten().cloned();
        match words.next() {
            None => (program.to_path_buf(), args),
            Some(first) => {
                let mut all: Vec<OsString> = words.collect();
                all.extend(["--".into(), program.into()]);
                all.extend(args);
                (first.into(), all)
            }
        }
    }

    /// Gives the VMM what it needs in its directory, and writes down how it is contained. Blocking.
    ///
    /// # Errors
    /// The file system refused.
    pub(crate) fn apply(&self, dir: &InstanceDir) -> Result<(), DirError> {
        self.containment.save(dir)?;
        let hand_over = || {
            make_logs(dir)?;
            self.containment.uid.map_or(Ok(()), |gid| hand_over(dir, gid))
        };
        hand_over().map_err(|source| DirError::Io {
            what: "hand over",
            path: dir.path().to_path_buf(),
            source,
        })
    }
}

fn setpriv_options(root: bool, user: Option<(u32, &[u32])>) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    if let Some((uid, groups)) = user {
        options.push(format!("--reuid={uid}").into());
        options.push(format!("--regid={uid}").into());
        if groups.is_empty() {
            options.push("--clear-groups".into());
        } else {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            options.push(format!("--groups={}", groups.join(",")).into());
        }
    }
    if root {
        options.push("--bounding-set=-all".into());
    }
    options.extend(["--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs"].map(OsString::from));
    options
}

/// Whether the wrapper works with these options: a user namespace, a container or an old version may be in the way.
fn probe(wrapper: &[OsString], options: &[OsString]) -> Result<(), String> {
    let Some((program, fixed)) = wrapper.split_first() else {
        return Err("there is nothing to run".to_owned());
    };
    let output = Command::new(program)
        .args(fixed)
        .args(options)
        .args(["--", "/bin/sh", "-c", ":"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not run: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{SETPRIV} does not work here: {}", said.lines().next().unwrap_or("no reason given")))
}

/// Tried in a thread of its own, with which the namespace vanishes.
fn own_namespace(kind: &str, unshare: fn() -> std::io::Result<()>) -> Result<(), String> {
    let fix = "run the daemon as root, in a container with --privileged";
    match std::thread::spawn(unshare).join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("no {kind} namespace can be made ({error}): {fix}")),
        Err(_) => Err(format!("no {kind} namespace can be tried: {fix}")),
    }
}

fn seccomp() -> Result<(), String> {
    match procfs::status(rustix::process::getpid()) {
        Some(_) => Ok(()),
        None => Err("the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)".to_owned()),
    }
}

fn landlock() -> Result<(), String> {
    match sys::landlock_abi() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!(
            "the kernel has no Landlock ({error}): Linux 5.13 or later, 6.2 for all of it, with landlock in its lsm= list"
        )),
    }
}

#[cfg(test)]
#[path = "isolation_tests.rs"]
mod tests;
