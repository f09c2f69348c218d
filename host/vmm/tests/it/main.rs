//! `regatta-vmm` on real processes: the stand-in VMM, or a real one when `CLOUD_HYPERVISOR` names it.
#![allow(clippy::disallowed_methods, reason = "tests play the part of a VMM, and of earlier versions")]

mod adopt;
mod contain;
mod launch;
mod net;
mod reflink;
mod scarce;
mod stop;
mod support;
mod warm;
