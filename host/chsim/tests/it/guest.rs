//! The guest: its service, its load, its life and its faults.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Launch, Vmm, directory, eventually, falls_asleep, kernel};

fn config(directory: &Path, cmdline: &str) -> Value {
    json!({
        "cpus": {"boot_vcpus": 1, "max_vcpus": 1},
        "payload": {"kernel": kernel(directory), "cmdline": format!("console=ttyS0 {cmdline}")},
        "serial": {"mode": "File", "file": directory.join("serial")},
        "console": {"mode": "Off"},
        "pvpanic": true,
    })
}

/// A VMM under the explicit clock, with a guest of this command line.
fn boot(launch: Launch, directory: &Path, cmdline: &str) -> Vmm {
    let vmm = launch.env("REGATTA_CHSIM_CLOCK", "explicit").arg("--sim-control").start(directory, "a");
    vmm.boot(&config(directory, cmdline));
    vmm
}

fn poke(vmm: &Vmm, by: &str) {
    assert_eq!(vmm.control(&json!({"do": "poke", "by": by})), json!({"ok": true}));
}

fn connect(address: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    Ok(stream)
}

/// One request on a connection of its own.
fn get(address: &str, path: &str) -> Result<String, String> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

fn metrics(address: &str) -> BTreeMap<String, f64> {
    let text = get(address, "/metrics").unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let samples = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[test]
fn it_is_reachable_when_its_modelled_boot_ends_and_not_before() {
    let dir = directory();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.1::::web-1 sim.boot=400ms");
    poke(&vmm, "399ms");
    assert!(get("127.93.0.1:8080", "/healthz").is_err());
    poke(&vmm, "1ms");
    let healthy = eventually("the service", || get("127.93.0.1:8080", "/healthz"));
    assert!(healthy.starts_with("HTTP/1.1 200 OK\r\n") && healthy.ends_with("\r\n\r\nok\n"), "{healthy}");
    assert_eq!(metrics("127.93.0.1:8080")["guest_boot_time_seconds"], 0.4);
    let activated: Vec<_> =
        vmm.events().into_iter().filter(|(name, _)| name == "virtio-device/activated").collect();
    assert_eq!(activated, [("virtio-device/activated".to_owned(), json!({"id": "__rng"}))]);
}

#[test]
fn load_fills_workers_then_the_queue_then_is_refused() {
    let dir = directory();
    let address = "127.93.0.2:8080";
    let vmm = boot(
        Launch::stand_in(),
        dir.path(),
        "ip=127.93.0.2::::w sim.boot=1ms sim.workers=2 sim.queue=1 sim.service=100ms",
    );
    poke(&vmm, "1ms");
    eventually("the service", || get(address, "/healthz"));
    let mut working = Vec::new();
    for wanted in 1..=3 {
        let mut stream = connect(address).unwrap();
        stream.write_all(b"GET /work HTTP/1.1\r\n\r\n").unwrap();
        working.push(stream);
        eventually("the request arrives", || match metrics(address)["guest_requests_in_flight"] {
            found if found == f64::from(wanted) => Ok(()),
            found => Err(found.to_string()),
        });
    }
    assert_eq!(metrics(address)["guest_queue_depth"], 1.0);
    assert!(get(address, "/work").unwrap().starts_with("HTTP/1.1 503 "));
    assert!(get(address, "/healthz").unwrap().starts_with("HTTP/1.1 200 "), "probes do not queue");
    poke(&vmm, "100ms");
    // Time goes on at once, work when the guest's thread has its turn.
    eventually("two of them are done", || match metrics(address)["guest_requests_in_flight"] {
        1.0 => Ok(()),
        found => Err(found.to_string()),
    });
    poke(&vmm, "100ms");
    for mut stream in working {
        let mut start = [0; 15];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
    let after = metrics(address);
    assert_eq!((after["guest_requests_total"], after["guest_requests_rejected_total"]), (4.0, 1.0));
    assert!((after["guest_request_duration_seconds_sum"] - 0.4).abs() < 1e-6, "{after:?}");
    assert!((after["guest_utilization"] - 0.15).abs() < 1e-6, "{after:?}");
}

#[test]
fn work_of_a_given_length_and_connections_that_stay_open() {
    let dir = directory();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.3::::keep sim.boot=1ms regatta.port=9000");
    poke(&vmm, "1ms");
    let mut stream = eventually("the service", || connect("127.93.0.3:9000"));
    for count in 1..=2 {
        stream.write_all(b"POST /x?work=5 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        eventually("the request arrives", || match metrics("127.93.0.3:9000")["guest_requests_in_flight"] {
            1.0 => Ok(()),
            found => Err(found.to_string()),
        });
        poke(&vmm, "5ms");
        let expected = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\nkeep {count}\n"
        );
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
}

#[test]
fn hundreds_of_idle_connections_do_not_hold_it_up() {
    let dir = directory();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.4 sim.boot=1ms");
    poke(&vmm, "1ms");
    let address = "127.93.0.4:8080";
    eventually("the service", || get(address, "/healthz"));
    let mut idle: Vec<TcpStream> = (0..300).map(|_| connect(address).unwrap()).collect();
    for stream in &mut idle {
        stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
    }
    assert!(get(address, "/healthz").unwrap().starts_with("HTTP/1.1 200 "));
}

#[test]
fn an_address_that_is_taken_is_seen_on_the_serial_port_only() {
    let dir = directory();
    let _taken = std::net::TcpListener::bind("127.93.0.5:8080").unwrap();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.5 sim.boot=1ms");
    poke(&vmm, "1ms");
    eventually("the serial port tells", || {
        let text = std::fs::read_to_string(dir.path().join("serial")).unwrap();
        if text.contains("cannot bind 127.93.0.5:8080") { Ok(()) } else { Err(text) }
    });
    assert_eq!(vmm.state(), "Running");
}

#[test]
fn a_bad_parameter_is_told_and_its_default_used() {
    let dir = directory();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.6 sim.boot=soon");
    let log = std::fs::read_to_string(dir.path().join("a.log")).unwrap();
    assert!(log.contains("bad kernel parameter \"sim.boot=soon\""), "{log}");
    poke(&vmm, "1m");
    eventually("the service", || get("127.93.0.6:8080", "/healthz"));
}

#[test]
fn the_power_button_ends_the_process_or_with_no_shutdown_the_vm() {
    for (keep, address) in [(false, "127.93.0.7"), (true, "127.93.0.8")] {
        let dir = directory();
        let launch = if keep { Launch::stand_in().arg("--no-shutdown") } else { Launch::stand_in() };
        let mut vmm = boot(launch, dir.path(), &format!("ip={address} sim.boot=1ms sim.shutdown=50ms"));
        poke(&vmm, "1ms");
        eventually("the service", || get(&format!("{address}:8080"), "/healthz"));
        vmm.ok("PUT", "vm.power-button", None);
        eventually("the service ends", || match connect(&format!("{address}:8080")) {
            Ok(_) => Err("still there".to_owned()),
            Err(_) => Ok(()),
        });
        assert_eq!(vmm.state(), "Running", "it takes its time");
        // Its process may end before it has answered.
        let _answer = vmm.order(&json!({"do": "poke", "by": "50ms"}));
        if keep {
            eventually("the VM ends", || match vmm.state() {
                state if state == "Created" => Ok(()),
                state => Err(state),
            });
            assert_eq!(vmm.vm_events().last().map(String::as_str), Some("vm/shutdown"));
        } else {
            assert_eq!(vmm.wait().code(), Some(0));
            assert!(!vmm.socket.exists());
            assert!(vmm.vm_events().ends_with(&[
                "vm/shutdown".into(),
                "vm/deleted".into(),
                "vmm/shutdown".into()
            ]));
        }
    }
}

#[test]
fn a_paused_guest_neither_answers_nor_ages() {
    let dir = directory();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.9 sim.boot=10ms");
    vmm.ok("PUT", "vm.pause", None);
    poke(&vmm, "1h");
    assert!(connect("127.93.0.9:8080").is_err(), "its boot stood still");
    vmm.ok("PUT", "vm.resume", None);
    poke(&vmm, "10ms");
    eventually("the service", || get("127.93.0.9:8080", "/healthz"));
    vmm.ok("PUT", "vm.pause", None);
    let mut stream = connect("127.93.0.9:8080").unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.read_exact(&mut [0]).expect_err("no answer while paused");
    vmm.ok("PUT", "vm.resume", None);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[test]
fn faults_inside_the_guest() {
    let dir = directory();
    let address = "127.93.0.10:8080";
    let fault = "sim.fault=never-healthy,ignore-power-button,reset-after=5s,panic-after=1h";
    let vmm = boot(Launch::stand_in(), dir.path(), &format!("ip=127.93.0.10 sim.boot=1ms {fault}"));
    poke(&vmm, "1ms");
    let sick = eventually("the service", || get(address, "/healthz"));
    assert!(sick.starts_with("HTTP/1.1 503 "), "{sick}");
    vmm.ok("PUT", "vm.power-button", None);
    poke(&vmm, "5s");
    eventually("it resets itself", || match vmm.vm_events() {
        events if events.ends_with(&["vm/rebooting".into(), "vm/rebooted".into()]) => Ok(()),
        events => Err(format!("{events:?}")),
    });
    assert_eq!(vmm.control(&json!({"do": "panic"})), json!({"ok": true}));
    eventually("the panic is told", || match vmm.events().last() {
        Some((name, properties)) if name == "guest/panic" => {
            assert_eq!(properties, &json!({"event": "panic"}));
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    assert_eq!(vmm.state(), "Running", "a panicked guest still runs, as far as the VMM knows");
}

#[test]
fn a_crash_is_a_death_without_a_farewell() {
    let dir = directory();
    let mut vmm = boot(Launch::stand_in(), dir.path(), "sim.fault=crash-after=3s");
    // It may be gone before it answers.
    let _order = vmm.order(&json!({"do": "poke", "by": "3s"}));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&vmm.wait()), Some(9));
    assert!(vmm.socket.exists());
    assert_eq!(vmm.vm_events().last().map(String::as_str), Some("vm/booted"));
}

#[test]
fn a_hung_guest_is_silent_and_its_vmm_is_not() {
    let dir = directory();
    let vmm = boot(Launch::stand_in(), dir.path(), "ip=127.93.0.11 sim.boot=1ms");
    poke(&vmm, "1ms");
    eventually("the service", || get("127.93.0.11:8080", "/healthz"));
    assert_eq!(vmm.control(&json!({"do": "hang"})), json!({"ok": true}));
    eventually("it falls silent", || {
        let mut stream = connect("127.93.0.11:8080")?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        match stream.read_exact(&mut [0]) {
            Ok(()) => Err("answered".to_owned()),
            Err(_) => Ok(()),
        }
    });
    vmm.ok("GET", "vmm.ping", None);
    vmm.ok("PUT", "vm.delete", None);
    assert!(connect("127.93.0.11:8080").is_err());
    assert_eq!(vmm.control(&json!({"do": "hang"})), json!({"ok": false, "error": "there is no guest"}));
}

#[test]
fn the_service_is_reachable_through_vsock_too() {
    let dir = directory();
    let vmm =
        Launch::stand_in().env("REGATTA_CHSIM_CLOCK", "explicit").arg("--sim-control").start(dir.path(), "a");
    let socket = dir.path().join("v.sock");
    let mut config = config(dir.path(), "sim.boot=1ms");
    config["vsock"] = json!({"cid": 3, "socket": socket});
    vmm.boot(&config);
    poke(&vmm, "1ms");
    let talk = |port: u32| -> Result<String, String> {
        let mut stream = UnixStream::connect(&socket).map_err(|error| error.to_string())?;
        write!(stream, "CONNECT {port}\nGET /healthz HTTP/1.0\r\n\r\n").map_err(|error| error.to_string())?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    };
    eventually("the service", || match talk(8080)? {
        text if text.starts_with("OK ") && text.ends_with("ok\n") => Ok(()),
        text => Err(text),
    });
    assert!(!talk(22).unwrap_or_default().starts_with("OK"), "nobody listens there");
    vmm.ok("PUT", "vm.delete", None);
    assert!(!socket.exists());
}

#[test]
fn counters_grow_with_the_traffic() {
    let dir = directory();
    let launch = Launch::stand_in().env("REGATTA_CHSIM_TAPS", "record");
    let vmm = launch.env("REGATTA_CHSIM_CLOCK", "explicit").arg("--sim-control").start(dir.path(), "a");
    let mut config = config(dir.path(), "ip=127.93.0.12 sim.boot=1ms");
    config["net"] = json!([{"id": "net0", "tap": "tap0"}]);
    vmm.boot(&config);
    let counters = || -> Value { serde_json::from_str(&vmm.ok("GET", "vm.counters", None).body).unwrap() };
    assert_eq!(counters()["net0"], json!({"rx_bytes": 0, "rx_frames": 0, "tx_bytes": 0, "tx_frames": 0}));
    poke(&vmm, "1ms");
    eventually("the service", || get("127.93.0.12:8080", "/healthz"));
    let after = counters();
    assert!(
        after["net0"]["rx_bytes"].as_u64() > Some(20) && after["net0"]["tx_frames"].as_u64() >= Some(1),
        "{after}"
    );
}

#[test]
fn an_idle_process_sleeps() {
    let dir = directory();
    let vmm = Launch::stand_in().start(dir.path(), "a");
    vmm.boot(&config(dir.path(), "ip=127.93.0.13 sim.boot=1ms"));
    eventually("the service", || get("127.93.0.13:8080", "/healthz"));
    falls_asleep(&vmm);
}
