//! `regatta-vmm` on real processes: the stand-in VMM, or a real one when `CLOUD_HYPERVISOR` names it.

mod adopt;
mod contain;
mod launch;
mod net;
mod reflink;
mod scarce;
mod stop;
mod support;
mod warm;
