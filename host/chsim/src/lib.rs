//! A stand-in cloud-hypervisor binary: same command line, same API, no KVM.
