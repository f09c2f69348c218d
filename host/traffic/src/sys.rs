//! The one place of this crate with `unsafe`: descriptors that the service manager left open for us.

#![expect(
    unsafe_code,
    reason = "a descriptor is only a number until somebody owns it; that it is ours is argued below"
)]

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first descriptor that is handed over, by the protocol of `sd_listen_fds(3)`.
const FIRST: i32 = 3;
/// More are not taken.
const INHERITED_MAX: i32 = 4_096;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that `LISTEN_PID` and `LISTEN_FDS` say are this process's own; nothing when asked again. Children do not
/// inherit them.
pub(crate) fn inherited_fds() -> Vec<OwnedFd> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let ours = number("LISTEN_PID") == Some(std::process::id());
    if !ours || TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
    let open = (FIRST..FIRST + count.min(INHERITED_MAX)).filter(|fd| {
        // SAFETY: asks about a number, whatever it stands for.
        let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(*fd) };
        fcntl_setfd(fd, FdFlags::CLOEXEC).is_ok()
    });
    // SAFETY: whoever started this very process, by its id, says that these are open and for it alone to use; they are
    // taken once, before anything else could own them, and each is open.
    open.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}
