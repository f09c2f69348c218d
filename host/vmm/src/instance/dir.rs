//! One instance's directory: `<instances>/<set>/<id>/`.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::removal::remove_tree;
use crate::api::{Listener, listener};
use crate::guarded::{Access, GuardedDir, read_tail};

/// What is kept of an instance that failed.
pub(crate) const LOGS: [&str; 3] = [VMM_LOG, SERIAL_LOG, "events.json"];
/// What the VMM prints.
pub const VMM_LOG: &str = "vmm.log";
/// What the guest prints on its console.
pub const SERIAL_LOG: &str = "serial.log";

/// The longest path that a unix socket address can hold (`sun_path` less its final NUL).
const SOCKET_PATH_LIMIT_BYTES: usize = 107;

/// An instance's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// A name that is not a single, plain directory name.
    #[error(
        "\"{name}\" cannot be the name of a {what}: letters, digits, '.', '_' and '-' only, not starting with '.', at most 64"
    )]
    Name {
        /// `set` or `instance`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The path of the API socket would be too long for the kernel.
    #[error(
        "the socket path {} has {len} bytes, {limit} are possible; use a data directory with a path shorter by at least {} (--data)",
        socket.display(), len - limit
    )]
    PathTooLong {
        /// The path.
        socket: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The kernel's limit.
        limit: usize,
    },
    /// A VMM listens on the socket in this directory.
    #[error("{} is in use by a running VMM", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The directory of one instance. Only a name: nothing exists on disk until a launch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstanceDir {
    path: PathBuf,
    set: String,
    id: String,
}

impl InstanceDir {
    /// The directory of instance `id` of set `set` below `instances`.
    ///
    /// # Errors
    /// A name that could lead elsewhere, or a path that is too long for a unix socket.
    pub fn new(instances: &Path, set: &str, id: &str) -> Result<Self, DirError> {
        check_name("set", set)?;
        check_name("instance", id)?;
        let path = std::path::absolute(instances)
            .map_err(|source| DirError::Io { what: "resolve", path: instances.to_path_buf(), source })?
            .join(set)
            .join(id);
        let dir = Self { path, set: set.to_owned(), id: id.to_owned() };
        let socket = dir.api_socket();
        let len = socket.as_os_str().as_bytes().len();
        if len > SOCKET_PATH_LIMIT_BYTES {
            return Err(DirError::PathTooLong { socket, len, limit: SOCKET_PATH_LIMIT_BYTES });
        }
        Ok(dir)
    }

    /// The directory that holds this API socket, if it is one of ours below `instances`.
    pub(crate) fn of_socket(instances: &Path, socket: &Path) -> Option<Self> {
        let instances = std::path::absolute(instances).ok()?;
        let mut parts = socket.strip_prefix(&instances).ok()?.iter();
        let (set, id, file) = (parts.next()?, parts.next()?, parts.next()?);
        if file != "api.sock" || parts.next().is_some() {
            return None;
        }
        Self::new(&instances, set.to_str()?, id.to_str()?).ok()
    }

    /// Name of the set.
    #[must_use]
    pub fn set(&self) -> &str {
        &self.set
    }

    /// Name of the instance.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The VMM's API socket.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.path.join("api.sock")
    }

    /// What the VMM process prints.
    #[must_use]
    pub fn vmm_log(&self) -> PathBuf {
        self.path.join(VMM_LOG)
    }

    /// What the guest prints on its serial console.
    #[must_use]
    pub fn serial_log(&self) -> PathBuf {
        self.path.join(SERIAL_LOG)
    }

    /// What the VMM reports by itself (see [`crate::EventTail`]).
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.path.join("events.json")
    }

    /// The instance's own disk with device id `id`.
    #[must_use]
    pub fn data_disk(&self, id: &str) -> PathBuf {
        self.path.join(format!("data-{id}.raw"))
    }

    /// The disk that cloud-init reads.
    #[must_use]
    pub fn seed(&self) -> PathBuf {
        self.path.join("seed.img")
    }

    /// Where the VMM of a template writes its snapshot.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path.join("snapshot")
    }

    /// What a VMM restores its VM from; gone once it has.
    pub(crate) fn restore(&self) -> PathBuf {
        self.path.join("restore")
    }

    /// The snapshot's disk, under the overlay of an instance that was restored from it.
    pub(crate) fn base(&self, format: crate::image::ImageFormat) -> PathBuf {
        self.path.join(format!("base.{format}"))
    }

    /// A name for things outside the directory, unique on the host for this data directory.
    pub(crate) fn flat_name(&self) -> String {
        // Neither part can hold a '+', so two pairs never share a name.
        format!("{}+{}", self.set, self.id)
    }

    /// Makes the directory, empty, readable only by us. Leftovers of a dead VMM are removed.
    pub(crate) fn prepare(&self) -> Result<(), DirError> {
        let error = |what, source| DirError::Io { what, path: self.path.clone(), source };
        match self.make() {
            Err(found) if found.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(|source| error("make directory", source)),
        }
        self.remove()?;
        self.make().map_err(|source| error("make directory", source))
    }

    /// The last `limit_bytes` of a log, by its name.
    ///
    /// # Errors
    /// It is not there, is no plain file, or cannot be read.
    pub fn log_tail(&self, log: &str, limit_bytes: u64) -> io::Result<Vec<u8>> {
        read_tail(self.open_log(log, Access::Read)?, limit_bytes)
    }

    /// What its largest log takes of the disk, bytes; 0 without any. Nothing is opened. How long a log is says little: it may have holes,
    /// and grow in them.
    #[must_use]
    pub fn largest_log_disk_bytes(&self) -> u64 {
        let taken = |log| self.path.join(log).symlink_metadata().map_or(0, |found| found.blocks() * 512);
        LOGS.into_iter().map(taken).max().unwrap_or(0)
    }

    /// Opens one of the logs. They are ours, but not what else its VMM may have made of these names.
    pub(crate) fn open_log(&self, name: &str, access: Access) -> io::Result<File> {
        GuardedDir::open(&self.path)?.file(name, access)
    }

    fn make(&self) -> io::Result<()> {
        // A VMM with a user of its own must get through, but nobody need see what is there.
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o711);
        let mut tries = 0;
        loop {
            if let Some(parent) = self.path.parent() {
                builder.create(parent)?;
            }
            match fs::DirBuilder::new().mode(0o700).create(&self.path) {
                // The set's directory went with its last instance just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
                other => return other.and_then(|()| self.make_ctl()),
            }
        }
    }

    /// Removes the directory and all in it, and the set's directory with its last instance. Nothing happens when it is gone. Blocking.
    ///
    /// # Errors
    /// A VMM listens on the socket in it, or the file system refused.
    pub fn remove(&self) -> Result<(), DirError> {
        self.check_unused()?;
        self.remove_dead()
    }

    /// Fails if a VMM listens in the directory.
    pub(crate) fn check_unused(&self) -> Result<(), DirError> {
        let socket = self.api_socket();
        match listener(&socket).map_err(|source| DirError::Io { what: "look at", path: socket, source })? {
            Listener::Nobody => Ok(()),
            Listener::Process(_) | Listener::Busy => Err(DirError::InUse { path: self.path.clone() }),
        }
    }

    /// Like [`InstanceDir::remove`], for a directory whose VMM is known to be dead or dying.
    pub(crate) fn remove_dead(&self) -> Result<(), DirError> {
        let removed = remove_tree(&self.path);
        removed.map_err(|source| DirError::Io { what: "remove", path: self.path.clone(), source })?;
        if let Some(set) = self.path.parent() {
            // Only works when it is empty, which is all that is wanted.
            let _ = fs::remove_dir(set);
        }
        Ok(())
    }

    /// Frees the disk space of all but the last `keep_bytes` of each log: a guest can print without end, and the VMM never rotates. The
    /// freed part reads as zeros; writers and readers go on undisturbed. Call it now and then.
    ///
    /// # Errors
    /// A log is there but cannot be changed, or the file system cannot free parts of files.
    pub fn limit_logs(&self, keep_bytes: u64) -> Result<(), DirError> {
        use rustix::fs::FallocateFlags;
        for log in LOGS {
            let error = |source| DirError::Io { what: "shorten", path: self.path.join(log), source };
            let file = match self.open_log(log, Access::Write) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(error)?,
            };
            let surplus = file.metadata().map_err(error)?.len().saturating_sub(keep_bytes);
            if surplus > 0 {
                rustix::fs::fallocate(
                    &file,
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    0,
                    surplus,
                )
                .map_err(|errno| error(errno.into()))?;
            }
        }
        Ok(())
    }

    /// The directories of all instances below `instances`, with a VMM or without. Other things there are left out.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn list(instances: &Path) -> Result<Vec<Self>, DirError> {
        let read = |path: &Path| match fs::read_dir(path) {
            Ok(entries) => Ok(entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>()),
            // Gone since its name was read, or never there, or a file.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(Vec::new())
            }
            Err(source) => Err(DirError::Io { what: "read", path: path.to_path_buf(), source }),
        };
        let mut found = Vec::new();
        for set in read(instances)? {
            for id in read(&instances.join(&set))? {
                if let (Some(set), Some(id)) = (set.to_str(), id.to_str())
                    && let Ok(dir) = Self::new(instances, set, id)
                    && dir.path.is_dir()
                {
                    found.push(dir);
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), DirError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(DirError::Name { what, name: name.chars().take(100).collect() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "ä", ".hidden", &"x".repeat(65)] {
            assert!(
                matches!(InstanceDir::new(Path::new("/d"), "set", name), Err(DirError::Name { .. })),
                "{name}"
            );
            assert!(
                matches!(InstanceDir::new(Path::new("/d"), name, "id"), Err(DirError::Name { .. })),
                "{name}"
            );
        }
        let dir = InstanceDir::new(Path::new("/d"), "web", "web-0001.a").expect("plain names");
        assert_eq!(dir.api_socket(), Path::new("/d/web/web-0001.a/api.sock"));
        assert_eq!(InstanceDir::of_socket(Path::new("/d"), &dir.api_socket()), Some(dir));
        assert_eq!(InstanceDir::of_socket(Path::new("/d"), Path::new("/d/web/other.sock")), None);
        assert_eq!(InstanceDir::of_socket(Path::new("/e"), Path::new("/d/web/i/api.sock")), None);
    }

    #[test]
    fn a_path_too_long_for_a_socket_says_by_how_much() {
        let fits = format!("/{}", "d".repeat(SOCKET_PATH_LIMIT_BYTES - "//s/i/api.sock".len()));
        InstanceDir::new(Path::new(&fits), "s", "i").expect("107 bytes fit");
        let error = InstanceDir::new(Path::new(&format!("{fits}dd")), "s", "i").expect_err("109 bytes");
        let text = error.to_string();
        assert!(text.contains("109 bytes") && text.contains("at least 2"), "{text}");
    }

    #[test]
    fn long_logs_give_their_space_back_and_keep_their_end() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("fresh");
        let mut text = vec![b'x'; 1 << 20];
        text.extend(b"the end");
        fs::write(dir.serial_log(), &text).expect("write");
        dir.limit_logs(4096).expect("shortened");
        let metadata = fs::metadata(dir.serial_log()).expect("stat");
        assert_eq!(metadata.len(), text.len() as u64);
        assert!(metadata.blocks() * 512 <= 16 * 1024, "{} blocks", metadata.blocks());
        assert!(fs::read(dir.serial_log()).expect("read").ends_with(b"xxthe end"));
    }

    #[test]
    fn prepare_clears_leftovers_but_never_a_live_vmm() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("fresh");
        fs::write(dir.vmm_log(), "old").expect("write");
        dir.prepare().expect("leftovers go");
        assert!(!dir.vmm_log().exists());

        let listener = std::os::unix::net::UnixListener::bind(dir.api_socket()).expect("bind");
        assert!(matches!(dir.prepare(), Err(DirError::InUse { .. })));
        assert!(dir.api_socket().exists());
        drop(listener);
        dir.prepare().expect("a stale socket is a leftover");
        fs::write(data.path().join("file"), "").expect("write");
        assert_eq!(InstanceDir::list(data.path()).expect("listed"), std::slice::from_ref(&dir));
        dir.remove().expect("remove");
        dir.remove().expect("remove again");
        assert!(!dir.path().exists());
        assert!(!data.path().join("s").exists(), "the set's directory goes with its last instance");
        assert_eq!(InstanceDir::list(data.path()).expect("listed"), []);
        assert_eq!(InstanceDir::list(&data.path().join("none")).expect("listed"), []);
    }
}
