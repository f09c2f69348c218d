//! Cloud Hypervisor client, VMM processes, golden images and overlays.
