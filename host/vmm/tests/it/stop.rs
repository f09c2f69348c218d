//! Stopping, from polite to by force.

use std::time::Duration;

use regatta_vmm::{StopHow, VmmExit};
use rustix::process::Signal;

use crate::support::{Data, PATIENCE, signal};

#[tokio::test]
async fn a_guest_that_reacts_to_its_power_button_ends_the_process() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let stopped = vmm.stop(PATIENCE).await.expect("stopped");
    assert_eq!((stopped.how, stopped.exit), (StopHow::PowerButton, VmmExit::Code(0)));
    assert!(!vmm.dir().path().exists());
    let again = vmm.stop(PATIENCE).await.expect("stopping twice is not an error");
    assert_eq!(again.how, StopHow::AlreadyGone);
}

#[tokio::test]
async fn a_paused_guest_is_resumed_so_that_it_can_shut_down() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    vmm.pause().await.expect("paused");
    assert_eq!(vmm.stop(PATIENCE).await.expect("stopped").how, StopHow::PowerButton);
}

#[tokio::test]
async fn without_grace_the_vmm_ends_at_once() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    let stopped = vmm.stop(Duration::ZERO).await.expect("stopped");
    assert_eq!((stopped.how, stopped.exit), (StopHow::Terminated, VmmExit::Code(0)));
    assert_eq!(data.running(), Vec::<i32>::new());
}

#[tokio::test]
async fn a_vmm_that_hangs_is_killed() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    signal(vmm.identity().pid, Signal::STOP);
    let stopped = vmm.stop(Duration::from_millis(100)).await.expect("stopped");
    assert_eq!((stopped.how, stopped.exit), (StopHow::Killed, VmmExit::Signal(9)));
    assert!(!vmm.dir().path().exists());
}

#[tokio::test]
async fn a_dropped_stop_can_be_repeated() {
    let data = Data::new();
    let vmm = data.host.launch(&data.spec("a")).await.expect("launched");
    for cut in 0..5 {
        let _ = tokio::time::timeout(Duration::from_millis(cut), vmm.stop(PATIENCE)).await;
    }
    vmm.stop(PATIENCE).await.expect("stopped");
    assert!(!vmm.dir().path().exists());
    assert!(vmm.exit_status().is_some());
}
