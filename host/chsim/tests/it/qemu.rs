//! The guest engine `qemu`, with real guests: a Linux kernel out of the guest image, behind a real tap.

use std::io::{Cursor, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Value, json};

use crate::support::{Launch, Vmm, directory, eventually, kernel, within};

/// A guest boots in three to six seconds where it has a core of its own.
const BOOT: Duration = Duration::from_secs(100);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 2);
const MAC: &str = "52:54:00:c0:ff:02";
/// What a translated processor need not spend its time on.
const CMDLINE: &str =
    "console=ttyS0 quiet panic=0 cryptomgr.notests no_timer_check tsc=reliable random.trust_cpu=on";

/// Where `cargo xtask guest-image` puts its files; `None`, said once, when this machine cannot run them.
fn image() -> Option<PathBuf> {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        println!("skipped: there is no qemu-system-x86_64 on PATH");
        return None;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_regatta-chsim"));
    let image = program.ancestors().nth(2)?.join("guest-image");
    if !image.join("stamp").is_file() {
        println!("skipped: there is no guest image in {}: run cargo xtask guest-image", image.display());
        return None;
    }
    Some(image)
}

/// Moves this thread, and what it starts, to a network namespace of its own.
#[expect(unsafe_code, reason = "the call may unshare file tables, which this one does not")]
fn own_network() -> bool {
    // SAFETY: a network namespace has nothing to do with descriptors.
    match unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        Ok(()) => true,
        Err(error) => {
            println!("skipped: no network namespace can be made here: {error}");
            false
        }
    }
}

fn launch() -> Launch {
    Launch::stand_in().env("REGATTA_CHSIM_GUEST", "qemu").arg("-v")
}

/// A cloud-init seed, as the daemon makes it.
fn seed(path: &Path) {
    let network = format!(
        "version: 2\nethernets:\n  nic0:\n    match: {{macaddress: \"{MAC}\"}}\n    addresses: [{GUEST}/24]\n    gateway4: {HOST}\n"
    );
    let mut image = Cursor::new(vec![0; 1 << 20]);
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"CIDATA     ");
    fatfs::format_volume(&mut image, options).unwrap();
    {
        let disk = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
        for (name, text) in [
            ("meta-data", "instance-id: web-7-a1\nlocal-hostname: web-7\n"),
            ("user-data", "hello from the seed\nsecond line\n"),
            ("network-config", network.as_str()),
        ] {
            let mut file = disk.root_dir().create_file(name).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }
    std::fs::write(path, image.into_inner()).unwrap();
}

/// A qcow2 overlay of the golden disk.
fn overlay(path: &Path, base: &Path) {
    let bytes = std::fs::metadata(base).unwrap().len();
    let mut image = crate::support::qcow2(Some(base.to_str().unwrap()));
    image[24..32].copy_from_slice(&bytes.to_be_bytes());
    std::fs::write(path, image).unwrap();
}

/// A VM with root disk, seed and tap in this directory.
fn machine(image: &Path, directory: &Path) -> Value {
    let file = |name: &str| directory.join(name);
    overlay(&file("root.qcow2"), &image.join("disk.raw"));
    seed(&file("seed.img"));
    json!({
        "cpus": {"boot_vcpus": 1, "max_vcpus": 1},
        "memory": {"size": 128 << 20},
        "payload": {"kernel": image.join("vmlinuz"), "initramfs": image.join("initramfs.cpio"), "cmdline": CMDLINE},
        "disks": [
            {"id": "root", "path": file("root.qcow2"), "image_type": "Qcow2", "backing_files": true},
            {"id": "seed", "path": file("seed.img"), "image_type": "Raw", "readonly": true},
        ],
        "net": [{"id": "net0", "tap": "tap0", "mac": MAC, "ip": HOST, "mask": "255.255.255.0"}],
        "balloon": {"size": 0},
        "pvpanic": true,
        "platform": {"system_serial_number": "ds=nocloud;i=not-this,one;h=nor-this"},
        "serial": {"mode": "File", "file": file("serial.log")},
        "console": {"mode": "Off"},
    })
}

/// One request to the guest; `Err` says why there is no answer.
fn get(path: &str, patience: Duration) -> Result<String, String> {
    let fail = |error: std::io::Error| error.to_string();
    let address = SocketAddrV4::new(GUEST, 8080).into();
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(fail)?;
    stream.set_read_timeout(Some(patience)).map_err(fail)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n").map_err(fail)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(fail)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("half an answer: {answer:?}"))?;
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(head.to_owned()) }
}

const SOON: Duration = Duration::from_secs(2);

/// Waits until the guest answers, and asks who it is.
fn identity(vmm: &Vmm, directory: &Path) -> Value {
    let text = within(BOOT, "the guest answers", || {
        get("/identity", SOON).map_err(|error| {
            let serial = std::fs::read(directory.join("serial.log")).unwrap_or_default();
            format!("{error}; state {}; serial:\n{}", vmm.state(), String::from_utf8_lossy(&serial))
        })
    });
    serde_json::from_str(&text).unwrap()
}

fn wait_for_event(vmm: &Vmm, name: &str) {
    within(BOOT, name, || {
        let events: Vec<String> = vmm.events().into_iter().map(|(name, _)| name).collect();
        if events.iter().any(|event| event == name) { Ok(()) } else { Err(format!("{events:?}")) }
    });
}

fn children(pid: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_real_guest_lives_its_life() {
    let Some(image) = image().filter(|_| own_network()) else { return };
    let dir = directory();
    let mut vmm = launch().start(dir.path(), "a");
    vmm.boot(&machine(&image, dir.path()));
    assert_eq!(vmm.state(), "Running");

    // It is the golden disk's application, and it knows itself from the seed, which counts more than the SMBIOS.
    let who = identity(&vmm, dir.path());
    let build = std::fs::read(image.join("disk.raw")).unwrap();
    let build_id = who["build_id"].as_str().unwrap();
    assert!(build_id.len() == 12 && build.windows(12).any(|window| window == build_id.as_bytes()), "{who}");
    assert_eq!((&who["hostname"], &who["instance_id"]), (&json!("web-7"), &json!("web-7-a1")));
    assert_eq!((&who["address"], &who["boot_count"]), (&json!(GUEST.to_string()), &json!(1)));
    assert_eq!(who["user_data"], "hello from the seed");
    assert_eq!(get("/user-data", SOON).unwrap(), "hello from the seed\nsecond line\n");
    assert!(get("/", SOON).unwrap().starts_with("web-7 "));
    get("/burn?ms=100", BOOT).unwrap();
    assert!(get("/metrics", BOOT).unwrap().contains("\nguest_boot_count 1\n"));

    // Drivers were seen to come up, and traffic is counted per device.
    for id in ["root", "seed", "net0", "__rng", "__balloon"] {
        within(BOOT, id, || {
            let events = vmm.events();
            let active = |(name, properties): &(String, Value)| {
                name == "virtio-device/activated" && properties["id"] == *id
            };
            if events.iter().any(active) { Ok(()) } else { Err(format!("{events:?}")) }
        });
    }
    let counters: Value = serde_json::from_str(&vmm.ok("GET", "vm.counters", None).body).unwrap();
    let counted = |device: &str, name: &str| counters[device][name].as_u64().unwrap();
    assert!(counted("root", "read_bytes") > 1 << 20, "the program was read: {counters}");
    assert!(counted("root", "write_bytes") > 0 && counted("seed", "write_bytes") == 0, "{counters}");
    assert!(counted("net0", "rx_frames") > 0 && counted("net0", "tx_bytes") > 0, "{counters}");

    // A balloon takes memory from it and gives it back.
    let actual = || {
        let info: Value = serde_json::from_str(&vmm.ok("GET", "vm.info", None).body).unwrap();
        info["memory_actual_size"].as_u64().unwrap()
    };
    assert_eq!(actual(), 128 << 20);
    vmm.ok("PUT", "vm.resize", Some(&json!({"desired_balloon": 16 << 20})));
    within(BOOT, "the balloon", || if actual() == 112 << 20 { Ok(()) } else { Err(actual().to_string()) });

    // Paused it neither answers nor forgets.
    vmm.ok("PUT", "vm.pause", None);
    assert_eq!(vmm.state(), "Paused");
    assert!(get("/healthz", Duration::from_millis(300)).is_err());
    vmm.ok("PUT", "vm.resume", None);
    within(BOOT, "it goes on", || get("/healthz", SOON));

    // What the engine cannot do is refused, and changes nothing.
    for (call, body) in [
        ("vm.add-disk", json!({"path": dir.path().join("seed.img"), "readonly": true})),
        ("vm.resize", json!({"desired_ram": 256 << 20})),
        ("vm.remove-device", json!({"id": "seed"})),
    ] {
        let refused = vmm.call("PUT", call, Some(&body));
        assert_eq!(refused.status, 500, "{call}");
        assert!(refused.body.contains("not supported by the guest engine `qemu`"), "{call}: {refused:?}");
    }

    // The guest resets itself: the same process starts it again, from the disk that it wrote.
    let _ = get("/reboot", SOON);
    wait_for_event(&vmm, "vm/rebooted");
    assert_eq!(identity(&vmm, dir.path())["boot_count"], 2);

    // The kernel panics; the VMM goes on, as upstream's does.
    let _ = get("/panic", SOON);
    wait_for_event(&vmm, "guest/panic");
    assert_eq!(vmm.state(), "Running");
    vmm.ok("PUT", "vm.reboot", None);
    assert_eq!(identity(&vmm, dir.path())["boot_count"], 3);

    // The power button: it goes down by itself, and the process with it.
    let qemu = children(vmm.pid());
    assert_eq!(qemu.len(), 1, "{qemu:?}");
    vmm.ok("PUT", "vm.power-button", None);
    let status = within(BOOT, "the VMM ends", || vmm.ended().ok_or_else(|| "still running".to_owned()));
    assert_eq!(status.code(), Some(0));
    assert!(!Path::new(&format!("/proc/{}", qemu[0])).exists(), "qemu is still there");
    let events = vmm.vm_events();
    let last = ["vm/shutdown", "vm/deleted", "vmm/shutdown"].map(str::to_owned);
    assert!(events.ends_with(&last), "{events:?}");
}

#[test]
fn the_smbios_serial_is_enough_of_a_seed() {
    let Some(image) = image() else { return };
    let dir = directory();
    let vmm = launch().start(dir.path(), "a");
    let mut config = machine(&image, dir.path());
    for part in ["net", "disks"] {
        config.as_object_mut().unwrap().remove(part);
    }
    vmm.boot(&config);
    let serial =
        || String::from_utf8_lossy(&std::fs::read(dir.path().join("serial.log")).unwrap()).into_owned();
    within(BOOT, "it says who it is", || {
        let text = serial();
        if text.contains("regatta-guest: nor-this (not-this,one), boot 0") { Ok(()) } else { Err(text) }
    });

    // Without QEMU there is no VM; the VMM cannot go on.
    let qemu: i32 = children(vmm.pid())[0].parse().unwrap();
    let mut vmm = vmm;
    rustix::process::kill_process(rustix::process::Pid::from_raw(qemu).unwrap(), Signal::KILL).unwrap();
    assert_eq!(vmm.wait().code(), Some(1));
}

#[test]
fn qemu_ends_with_the_vmm_and_holds_the_disk_until_then() {
    let Some(image) = image().filter(|_| own_network()) else { return };
    let dir = directory();
    let mut vmm = launch().start(dir.path(), "a");
    let config = machine(&image, dir.path());
    vmm.boot(&config);
    let qemu = children(vmm.pid());
    assert_eq!(qemu.len(), 1);
    // The disk is locked against everybody else, the VMM's own kind included.
    let other = launch().start(dir.path(), "b");
    let mut second = config.clone();
    second.as_object_mut().unwrap().remove("net");
    second["serial"]["file"] = json!(dir.path().join("other.log"));
    other.ok("PUT", "vm.create", Some(&second));
    let refused = other.call("PUT", "vm.boot", None);
    assert!(refused.body.contains("The file is already locked"), "{refused:?}");
    vmm.signal(Signal::KILL);
    vmm.wait();
    // The lock goes with QEMU, which the kernel ends at its leisure.
    eventually("the disk is free", || {
        other.ok("PUT", "vm.delete", None);
        other.ok("PUT", "vm.create", Some(&second));
        let boot = other.call("PUT", "vm.boot", None);
        if boot.status == 204 { Ok(()) } else { Err(boot.body) }
    });
    let left = std::fs::read_to_string(format!("/proc/{}/cmdline", qemu[0])).unwrap_or_default();
    assert_eq!(left, "", "qemu is gone, too");
}

#[test]
fn a_machine_that_cannot_be_started_says_why() {
    let Some(image) = image().filter(|_| own_network()) else { return };
    let dir = directory();
    let boot = |vmm: &Vmm, config: &Value| -> Vec<String> {
        vmm.ok("PUT", "vm.create", Some(config));
        let answer = vmm.call("PUT", "vm.boot", None);
        assert_eq!(answer.status, 500, "{answer:?}");
        assert_eq!(children(vmm.pid()), [] as [String; 0], "nothing is left running");
        vmm.ok("PUT", "vm.delete", None);
        serde_json::from_str(&answer.body).unwrap()
    };
    let vmm = launch().start(dir.path(), "a");
    let start = ["Error from API", "The VM could not boot"];

    // A kernel that is none: QEMU's own words are at the end of the chain.
    let mut no_kernel = machine(&image, dir.path());
    no_kernel["payload"] = json!({"kernel": kernel(dir.path())});
    let chain = boot(&vmm, &no_kernel);
    assert_eq!(chain[..3], [start[0], start[1], "Error from CPU manager"]);
    assert!(chain[3].starts_with("qemu ended at its start (exit status: 1)"), "{chain:?}");

    // A tap that somebody has: upstream's words, found before QEMU is started.
    let holder = launch().start(dir.path(), "b");
    let mut with_tap = machine(&image, dir.path());
    with_tap.as_object_mut().unwrap().remove("disks");
    with_tap["serial"] = json!({"mode": "Null"});
    holder.boot(&with_tap);
    let chain = boot(&vmm, &with_tap);
    let last = ["Unable to configure tap interface", "Device or resource busy (os error 16)"];
    assert_eq!(chain[chain.len() - 2..], last, "{chain:?}");

    let mut unsupported = with_tap.clone();
    unsupported.as_object_mut().unwrap().remove("net");
    unsupported["tpm"] = json!({"socket": dir.path().join("b.sock")});
    let chain = boot(&vmm, &unsupported);
    assert_eq!(chain.last().unwrap(), "Not supported by the guest engine `qemu`: TPM");

    let absent = launch().env("REGATTA_CHSIM_QEMU", "/nonexistent/qemu").start(dir.path(), "c");
    with_tap.as_object_mut().unwrap().remove("net");
    let chain = boot(&absent, &with_tap);
    assert_eq!(
        chain[2..],
        [
            "Error from CPU manager",
            "Cannot start /nonexistent/qemu",
            "No such file or directory (os error 2)"
        ]
    );
}
