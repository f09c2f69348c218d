//! End to end: the real daemon, real VMM processes (the stand-in), real HTTP.

mod architecture;
mod asked;
mod bad_input;
mod chaos;
mod completion;
mod crash;
mod disk;
mod follow;
mod guest_events;
mod host_full;
mod hostile;
mod hostile_client;
mod hostile_guest;
mod hostile_user;
mod hostile_vmm;
mod images;
mod live_policies;
#[path = "../../../host/policy/tests/it/modules.rs"]
mod modules;
mod neighbours;
mod networks;
mod parsers;
mod policies;
mod policy_tools;
mod readme;
mod real_guests;
mod recover;
mod replay;
mod scaling;
mod slow;
mod time;
mod traffic;
mod upgrade;
mod warm;
