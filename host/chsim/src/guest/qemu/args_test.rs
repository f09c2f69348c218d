//! Command lines for configurations.

use serde_json::{Value, json};

use super::args::*;
use crate::config::{ImageType, VmConfig};
use crate::host::Layer;

fn config(json: Value) -> VmConfig {
    serde_json::from_value(json).unwrap()
}

fn plan(config: &VmConfig) -> Plan<'_> {
    Plan {
        config,
        accelerator: Accelerator::Tcg,
        qmp: 3,
        serial: Some(4),
        console: None,
        backing: Vec::new(),
        taps: Vec::new(),
        firmware_is_elf: false,
        vsock: false,
    }
}

/// Whether the option is given with this value.
fn has(arguments: &[String], option: &str, value: &str) -> bool {
    arguments.windows(2).any(|pair| pair[0] == option && pair[1] == value)
}

/// The JSON values of an option.
fn values(arguments: &[String], option: &str) -> Vec<Value> {
    let of = arguments.windows(2).filter(|pair| pair[0] == option);
    of.filter_map(|pair| serde_json::from_str(&pair[1]).ok()).collect()
}

#[test]
fn kernel_memory_processors_and_ports() {
    let config = config(json!({
        "cpus": {"boot_vcpus": 2, "max_vcpus": 4},
        "memory": {"size": 134_217_728},
        "payload": {"kernel": "/k,1", "initramfs": "/i", "cmdline": "console=ttyS0 a=\"b c\""},
    }));
    let arguments = arguments(&plan(&config));
    for (option, value) in [
        ("-smp", "cpus=2"),
        ("-m", "size=134217728B"),
        ("-kernel", "/k,1"),
        ("-initrd", "/i"),
        ("-append", "console=ttyS0 a=\"b c\""),
        ("-accel", "tcg,thread=multi,tb-size=32"),
        ("-chardev", "socket,id=serial,fd=4"),
        ("-serial", "chardev:serial"),
        ("-mon", "chardev=qmp,mode=control"),
    ] {
        assert!(has(&arguments, option, value), "{option} {value}: {arguments:?}");
    }
    assert!(!arguments.iter().any(|argument| argument == "-bios" || argument == "-smbios"));
    let drivers: Vec<Value> =
        values(&arguments, "-device").iter().map(|device| device["driver"].clone()).collect();
    assert_eq!(drivers, ["virtio-rng-pci"]);
}

#[test]
fn a_chain_of_files_is_spelled_out_and_never_locked() {
    let config = config(json!({"disks": [
        {"id": "_disk0", "path": "/o,x.qcow2", "image_type": "Qcow2", "backing_files": true, "serial": "s1"},
        {"id": "seed", "path": "/seed.img", "image_type": "Raw", "readonly": true},
    ]}));
    let base = [
        Layer { path: "/mid".into(), format: ImageType::Qcow2 },
        Layer { path: "/base".into(), format: ImageType::Raw },
    ];
    let arguments = arguments(&Plan { backing: vec![&base, &[]], ..plan(&config) });
    let nodes = values(&arguments, "-blockdev");
    let top = &nodes[0];
    assert_eq!((&top["driver"], &top["node-name"]), (&json!("qcow2"), &json!("disk0")));
    assert_eq!(top["file"]["filename"], "/o,x.qcow2");
    assert_eq!(top["backing"]["backing"]["driver"], "raw");
    for layer in [top, &top["backing"], &top["backing"]["backing"], &nodes[1]] {
        assert_eq!(layer["file"]["locking"], "off", "{layer}");
    }
    assert_eq!((&top["read-only"], &top["backing"]["read-only"]), (&json!(false), &json!(true)));
    assert_eq!((&nodes[1]["driver"], &nodes[1]["read-only"]), (&json!("raw"), &json!(true)));
    let made = values(&arguments, "-device");
    assert_eq!((&made[0]["serial"], &made[0]["bootindex"]), (&json!("s1"), &json!(1)));
    assert_eq!(devices(&config)[..2], [("_disk0".into(), "disk0".into()), ("seed".into(), "disk1".into())]);
}

#[test]
fn network_balloon_panic_device_and_identity() {
    let config = config(json!({
        "net": [{"id": "net0", "tap": "t", "mac": "52:54:00:00:00:02", "mtu": 1400, "offload_tso": false}],
        "balloon": {"size": 0, "deflate_on_oom": true},
        "pvpanic": true,
        "platform": {"system_serial_number": "ds=nocloud;i=a,b;h=c",
                     "system_uuid": "c0ffee00-0000-4000-8000-000000000001", "oem_strings": ["x,y"]},
    }));
    let arguments = arguments(&Plan { taps: vec![vec![7, 8]], ..plan(&config) });
    assert!(has(&arguments, "-netdev", "tap,id=tap-net0,fds=7:8,vhost=off"), "{arguments:?}");
    assert!(has(&arguments, "-smbios", "type=1,serial=ds=nocloud;i=a,,b;h=c"), "{arguments:?}");
    assert!(has(&arguments, "-smbios", "type=11,value=x,,y"), "{arguments:?}");
    assert!(has(&arguments, "-uuid", "c0ffee00-0000-4000-8000-000000000001"), "{arguments:?}");
    let devices = values(&arguments, "-device");
    let of = |driver: &str| devices.iter().find(|device| device["driver"] == driver).unwrap();
    assert_eq!(of("virtio-net-pci")["mac"], "52:54:00:00:00:02");
    assert_eq!(of("virtio-net-pci")["host_mtu"], 1400);
    assert_eq!(of("virtio-net-pci")["host_tso4"], false);
    assert_eq!(of("virtio-balloon-pci")["deflate-on-oom"], true);
    assert!(of("pvpanic-pci").get("disable-legacy").is_none(), "it is not a virtio device");
}

#[test]
fn firmware_is_a_rom_or_a_program_and_topologies_count() {
    let config = config(json!({
        "cpus": {"boot_vcpus": 4, "max_vcpus": 4,
                 "topology": {"threads_per_core": 2, "cores_per_die": 1, "dies_per_package": 1, "packages": 2}},
        "payload": {"firmware": "/fw"},
    }));
    let rom = arguments(&plan(&config));
    assert!(has(&rom, "-bios", "/fw"));
    assert!(has(&rom, "-smp", "cpus=4,sockets=2,dies=1,cores=1,threads=2"), "{rom:?}");
    assert!(has(&arguments(&Plan { firmware_is_elf: true, ..plan(&config) }), "-kernel", "/fw"));
    let kvm = arguments(&Plan { accelerator: Accelerator::Kvm, ..plan(&config) });
    assert!(has(&kvm, "-cpu", "host") && has(&kvm, "-accel", "kvm"));
    assert!(Accelerator::parse("hvf").is_err());
}

#[test]
fn what_it_has_not_is_named() {
    assert_eq!(unsupported(&VmConfig::default()), None);
    let fs = config(json!({"fs": [{"tag": "t", "socket": "/s"}]}));
    assert_eq!(unsupported(&fs), Some("virtio-fs devices"));
}
