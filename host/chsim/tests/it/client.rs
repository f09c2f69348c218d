//! The stand-in through somebody else's eyes: the crate `cloud-hypervisor-client`, generated from upstream's OpenAPI.

use cloud_hypervisor_client::apis::DefaultApi;
use cloud_hypervisor_client::models;
use cloud_hypervisor_client::socket_based_api_client;

use crate::support::{Launch, directory, kernel};

#[test]
fn an_independent_client_drives_a_vm_through_its_life() {
    let dir = directory();
    let vmm = Launch::stand_in().env("REGATTA_CHSIM_CLOCK", "explicit").start(dir.path(), "a");
    let disk = dir.path().join("disk.raw");
    std::fs::write(&disk, [0; 65_536]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = socket_based_api_client(&vmm.socket);
        let ping = client.vmm_ping_get().await.unwrap();
        assert_eq!((ping.version.as_str(), ping.pid), ("53.0.0", Some(i64::from(vmm.pid()))));

        let payload = models::PayloadConfig {
            kernel: Some(kernel(dir.path()).display().to_string()),
            ..Default::default()
        };
        let config = models::VmConfig {
            payload,
            disks: Some(vec![models::DiskConfig {
                path: Some(disk.display().to_string()),
                ..Default::default()
            }]),
            ..Default::default()
        };
        client.create_vm(config).await.unwrap();
        client.boot_vm().await.unwrap();
        let info = client.vm_info_get().await.unwrap();
        assert_eq!(info.state, models::VmState::Running);
        assert_eq!(info.memory_actual_size, Some(512 << 20));
        // Upstream's OpenAPI says i64 where its counters start at the largest u64: its own client cannot read them.
        client.vm_counters_get().await.unwrap_err();

        client.pause_vm().await.unwrap();
        assert_eq!(client.vm_info_get().await.unwrap().state, models::VmState::Paused);
        client.resume_vm().await.unwrap();
        client.power_button_vm().await.unwrap();
        client.shutdown_vm().await.unwrap();
        client.delete_vm().await.unwrap();
        client.vm_info_get().await.unwrap_err();
        client.shutdown_vmm().await.unwrap();
    });
}
