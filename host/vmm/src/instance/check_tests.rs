use std::path::Path;
use std::time::Duration;

use super::*;
use crate::image::ImageFormat;
use crate::instance::{BootSource, DataDisk, InstanceDir, NetworkSpec, Seed, SharedDisk, StartFrom};
use regatta_util::chain;

fn spec() -> LaunchSpec {
    LaunchSpec {
        identity: None,
        id: "web-1".to_owned(),
        dir: InstanceDir::new(Path::new("/data"), "web", "1").expect("dir"),
        start: StartFrom::Boot,
        vcpus: 1,
        memory_bytes: 128 << 20,
        boot: BootSource::Kernel { kernel: "/k".into(), initramfs: None, cmdline: String::new() },
        root: None,
        data_disks: vec![DataDisk { id: "db".to_owned(), size_bytes: 1 << 30 }],
        shared_disks: vec![SharedDisk {
            id: "ref".to_owned(),
            path: "/ref".into(),
            format: ImageFormat::Qcow2,
        }],
        seed: Some(Seed { meta_data: String::new(), user_data: String::new(), network_config: None }),
        smbios: Some(Smbios {
            serial: "ds=nocloud".to_owned(),
            uuid: "c0ffee00-0000-4000-8000-000000000001".to_owned(),
        }),
        network: NetworkSpec::None,
        require_isolation: false,
        boot_timeout: Duration::from_secs(1),
        keep_failed_logs: false,
    }
}

fn network() -> HostNetwork {
    HostNetwork::new(Path::new("/data"))
}

fn why_refused(change: impl FnOnce(&mut LaunchSpec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    chain(&check(&network(), &spec).expect_err("refused"))
}

#[test]
fn disks_come_in_their_order_and_the_guest_can_tell_them_apart() {
    check(&network(), &spec()).expect("a good specification");
    let body = body(&network(), &spec(), None, false).expect("body");
    let disks: Vec<_> = body["disks"].as_array().expect("disks").iter().collect();
    let ids: Vec<_> = disks.iter().map(|disk| disk["id"].as_str().expect("id")).collect();
    assert_eq!(ids, ["db", "ref", "seed"]);
    assert_eq!(disks[0]["path"], "/data/web/1/data-db.raw");
    assert_eq!((&disks[0]["serial"], &disks[0]["readonly"]), (&"db".into(), &false.into()));
    assert_eq!((&disks[1]["image_type"], &disks[1]["readonly"]), (&"Qcow2".into(), &true.into()));
    assert_eq!((&disks[2]["image_type"], &disks[2]["readonly"]), (&"Raw".into(), &true.into()));
    assert_eq!(body["platform"]["system_serial_number"], "ds=nocloud");
    assert_eq!(body["pvpanic"], true);
}

fn disk(id: &str, size_bytes: u64) -> DataDisk {
    DataDisk { id: id.to_owned(), size_bytes }
}

#[test]
fn what_makes_no_vm_is_refused_before_anything_is_made() {
    type Case = (fn(&mut LaunchSpec), &'static str);
    let cases: [Case; 10] = [
        (|spec| spec.data_disks.push(disk("ref", 512)), "the same id"),
        (|spec| spec.data_disks.push(disk("seed", 512)), "reserved"),
        (|spec| spec.data_disks.push(disk("a/../../b", 512)), "other characters"),
        (|spec| spec.data_disks.push(disk(&"a".repeat(21), 512)), "20 bytes"),
        (|spec| spec.data_disks.push(disk("a", 1000)), "multiple of 512"),
        (|spec| spec.data_disks.push(disk("a", 0)), "zero"),
        (|spec| spec.smbios.as_mut().expect("given").uuid.push('0'), "UUID"),
        (|spec| spec.smbios.as_mut().expect("given").serial.push('\n'), "serial number"),
        (|spec| spec.seed.as_mut().expect("given").user_data = "x".repeat(600 << 10), "614400 bytes"),
        (
            |spec| {
                let cmdline = "x".repeat(50 << 10);
                spec.boot = BootSource::Kernel { kernel: "/k".into(), initramfs: None, cmdline };
            },
            "more than 50 KiB",
        ),
    ];
    for (change, expected) in cases {
        let why = why_refused(change);
        assert!(why.contains(expected), "{why:?} does not say {expected:?}");
    }
}
