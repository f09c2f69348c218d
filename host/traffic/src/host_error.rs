//! Errors that say something about this host and nothing about a guest.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// What the host lacked when it was to connect to a guest; none when the guest is what failed.
pub(crate) fn of_host<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<io::Error>() {
            Some(found) if is_of_host(found) => return Some(found),
            _ => next = error.source(),
        }
    }
    None
}

/// Out of descriptors, memory, buffers or ports, or not permitted by the host's own firewall.
pub(crate) fn is_of_host(error: &io::Error) -> bool {
    let lacking = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::PERM,
        Errno::ACCESS,
    ];
    error.raw_os_error().is_some_and(|code| lacking.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_client::GuestError;

    #[test]
    fn the_guests_own_failures_are_not_the_hosts() {
        let connect = |errno: Errno| GuestError::Connect {
            addr: ([127, 0, 0, 1], 80).into(),
            source: io::Error::from_raw_os_error(errno.raw_os_error()),
        };
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
            assert!(of_host(&connect(errno)).is_some(), "{errno:?}");
        }
        for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::CONNRESET, Errno::TIMEDOUT] {
            assert!(of_host(&connect(errno)).is_none(), "{errno:?}");
        }
    }
}
