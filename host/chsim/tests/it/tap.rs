//! The guest behind a tap: its TCP/IP as a kernel on the other side sees it. Every test makes its own network namespaces.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::space::Space;
use crate::support::{Launch, Vmm, directory, eventually, falls_asleep, kernel};

/// Every guest has this address, in a network of its own.
const GUEST: &str = "10.88.0.2";
const SERVICE: &str = "10.88.0.2:8080";
const MAC: &str = "52:54:00:12:34:56";
/// How long something is waited for that is not to come.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// A VM behind a tap that the VMM makes, and gives the address of the gateway.
fn config(directory: &Path, more: &str) -> Value {
    let ip = format!("ip={GUEST}::10.88.0.1:255.255.255.0:web:eth0:off");
    json!({
        "cpus": {"boot_vcpus": 2, "max_vcpus": 2},
        "payload": {"kernel": kernel(directory), "cmdline": format!("console=ttyS0 {ip} sim.boot=10ms {more}")},
        "serial": {"mode": "File", "file": directory.join("serial")},
        "console": {"mode": "Off"},
        "net": [{"id": "net0", "tap": "rg-tap", "ip": "10.88.0.1", "mask": "255.255.255.0", "mac": MAC}],
    })
}

fn boot(space: &Space, launch: &Launch, directory: &Path, more: &str) -> Vmm {
    let vmm = space.run(|| launch.start(directory, "a"));
    vmm.boot(&config(directory, more));
    vmm
}

fn connect(space: &Space, address: &str) -> Result<TcpStream, String> {
    space.run(|| connect_here(address))
}

/// From the namespace of this thread.
fn connect_here(address: &str) -> Result<TcpStream, String> {
    let address: SocketAddr = address.parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// One request on a connection of its own.
fn get(space: &Space, path: &str) -> Result<String, String> {
    space.run(|| get_here(path))
}

fn get_here(path: &str) -> Result<String, String> {
    let mut stream = connect_here(SERVICE)?;
    write!(stream, "GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n").map_err(|error| error.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Waits for the service.
fn up(space: &Space) {
    eventually("the service", || match get(space, "/healthz")? {
        answer if answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nok\n") => Ok(()),
        answer => Err(answer),
    });
}

fn metric(space: &Space, name: &str) -> f64 {
    let text = get(space, "/metrics").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn a_guest_answers_http_and_ping_and_refuses_other_ports() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let mut vmm = boot(&space, &Launch::stand_in(), dir.path(), "sim.service=1ms");
    up(&space);
    assert!(get(&space, "/").unwrap().ends_with("web 1\n"));
    assert_eq!(space.neighbour(GUEST).as_deref(), Some(MAC));
    let ping = space.ping();
    for sequence in 0..5 {
        ping.send(GUEST, sequence);
        assert_eq!(ping.receive(PATIENCE), Some(sequence));
    }
    let refused = connect(&space, "10.88.0.2:22").unwrap_err();
    assert!(refused.contains("refused"), "{refused}");

    let info: Value = serde_json::from_str(&vmm.ok("GET", "vm.info", None).body).unwrap();
    let link = space.run(|| std::process::Command::new("ip").args(["-o", "link", "show", "rg-tap"]).output());
    if let Ok(link) = link {
        let host_mac = info["config"]["net"][0]["host_mac"].as_str().unwrap().to_owned();
        assert!(String::from_utf8_lossy(&link.stdout).contains(&host_mac), "{link:?}");
    }
    vmm.ok("PUT", "vmm.shutdown", None);
    vmm.wait();
    assert!(space.links().is_empty(), "a tap that the VMM made goes with it");
}

#[test]
fn the_link_comes_up_before_the_service() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let launch = Launch::stand_in().env("REGATTA_CHSIM_CLOCK", "explicit").arg("--sim-control");
    let vmm = boot(&space, &launch, dir.path(), "sim.boot=100ms");
    let ping = space.ping();
    ping.send(GUEST, 1);
    assert_eq!(ping.receive(SILENCE), None, "nobody is there yet");
    vmm.control(&json!({"do": "poke", "by": "60ms"}));
    assert_eq!(ping.receive(PATIENCE), Some(1), "what was sent to it has waited");
    assert!(connect(&space, SERVICE).unwrap_err().contains("refused"));
    vmm.control(&json!({"do": "poke", "by": "40ms"}));
    up(&space);
}

#[test]
fn guests_with_the_same_address_live_side_by_side() {
    let (Some(one), Some(other)) = (Space::new_or_skip(), Space::new_or_skip()) else { return };
    let dirs = [directory(), directory()];
    let spaces = [&one, &other];
    let vmms: Vec<Vmm> = (spaces.iter().zip(&dirs))
        .map(|(space, dir)| boot(space, &Launch::stand_in(), dir.path(), "sim.service=1ms"))
        .collect();
    spaces.into_iter().for_each(up);
    for _ in 0..3 {
        get(&one, "/").unwrap();
    }
    assert_eq!(spaces.map(|space| metric(space, "guest_requests_total")), [3.0, 0.0]);
    drop(vmms);
}

#[test]
fn a_paused_guest_is_silent_and_goes_on_where_it_stood() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let launch = Launch::stand_in().env("REGATTA_CHSIM_CLOCK", "explicit").arg("--sim-control");
    let vmm = boot(&space, &launch, dir.path(), "");
    let poke = |by: &str| vmm.control(&json!({"do": "poke", "by": by}));
    poke("10ms");
    up(&space);
    let mut working = connect(&space, SERVICE).unwrap();
    working.write_all(b"GET /?work=100 HTTP/1.1\r\n\r\n").unwrap();
    eventually("the request arrives", || match metric(&space, "guest_requests_in_flight") {
        1.0 => Ok(()),
        found => Err(found.to_string()),
    });
    vmm.ok("PUT", "vm.pause", None);
    poke("10s");
    let ping = space.ping();
    ping.send(GUEST, 7);
    assert_eq!(ping.receive(SILENCE), None);
    working.set_read_timeout(Some(SILENCE)).unwrap();
    let silent = working.read(&mut [0]).unwrap_err();
    assert!(matches!(silent.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silent}");

    vmm.ok("PUT", "vm.resume", None);
    assert_eq!(ping.receive(PATIENCE), Some(7));
    poke("100ms");
    working.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut start = [0; 15];
    working.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");

    vmm.control(&json!({"do": "hang"}));
    ping.send(GUEST, 8);
    assert_eq!(ping.receive(SILENCE), None, "a guest that hangs answers nothing");
    assert_eq!(vmm.state(), "Running");
}

#[test]
fn many_connections_at_once_and_one_after_the_other() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let _vmm = boot(&space, &Launch::stand_in(), dir.path(), "sim.workers=64 sim.service=20ms");
    up(&space);
    // Threads are in the namespace of the one that starts them.
    space.run(|| {
        let asking: Vec<_> = (0..50).map(|_| std::thread::spawn(|| get_here("/"))).collect();
        for asked in asking {
            let answer = asked.join().unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
    });
    // More than there may be at once: nothing is left behind by one that is over.
    let start = Instant::now();
    space.run(|| {
        for _ in 0..1000 {
            get_here("/healthz").unwrap();
        }
    });
    println!("1000 connections, one request each: {:?}", start.elapsed());
    assert_eq!(metric(&space, "guest_requests_total"), 50.0);
}

#[test]
fn an_idle_network_stack_sleeps() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let vmm = boot(&space, &Launch::stand_in(), dir.path(), "");
    up(&space);
    falls_asleep(&vmm);
}

#[test]
fn large_requests_and_answers_pass() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let vmm = boot(&space, &Launch::stand_in(), dir.path(), "");
    up(&space);
    let counters = || -> Value {
        let counters: Value = serde_json::from_str(&vmm.ok("GET", "vm.counters", None).body).unwrap();
        counters["net0"].clone()
    };
    let before = counters();
    assert!(before["rx_frames"].as_u64() >= Some(5) && before["tx_frames"].as_u64() >= Some(4), "{before}");

    const BODY_BYTES: usize = 1 << 20;
    let mut stream = connect(&space, SERVICE).unwrap();
    let start = Instant::now();
    write!(stream, "POST /healthz HTTP/1.1\r\nContent-Length: {BODY_BYTES}\r\n\r\n").unwrap();
    stream.write_all(&vec![b'x'; BODY_BYTES]).unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    println!("1 MiB to the guest: {:?}", start.elapsed());
    let after = counters();
    let grown = |name: &str| after[name].as_u64().unwrap() - before[name].as_u64().unwrap();
    assert!(grown("rx_bytes") > BODY_BYTES as u64, "{before} {after}");
    assert!(grown("rx_frames") > (BODY_BYTES / 1500) as u64, "{before} {after}");

    // Answers pile up until the asker reads them, in its buffers, the guest's and the connection's.
    const REQUESTS: usize = 1000;
    let mut stream = connect(&space, SERVICE).unwrap();
    let start = Instant::now();
    stream.write_all("GET /metrics HTTP/1.1\r\n\r\n".repeat(REQUESTS).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    println!("{} bytes in {REQUESTS} answers from the guest: {:?}", text.len(), start.elapsed());
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), REQUESTS);
    assert!(text.len() > 1 << 20);
}

#[test]
fn a_client_may_close_its_half_and_a_reset_is_seen() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let _vmm = boot(&space, &Launch::stand_in(), dir.path(), "");
    up(&space);
    let mut stream = connect(&space, SERVICE).unwrap();
    stream.write_all(b"GET /?work=50 HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("web 1\n"), "{text}");

    // Closed with data unread, which resets the connection; its work is done all the same.
    let mut stream = connect(&space, SERVICE).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\nGET /?work=1 HTTP/1.1\r\n\r\n").unwrap();
    let mut start = [0; 4];
    stream.read_exact(&mut start).unwrap();
    drop(stream);
    eventually("the work is done", || match metric(&space, "guest_requests_total") {
        2.0 => Ok(()),
        found => Err(found.to_string()),
    });
}

#[test]
fn a_rebooted_guest_is_back_and_one_that_powers_off_says_goodbye() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let mut vmm = boot(&space, &Launch::stand_in().arg("--sim-control"), dir.path(), "sim.service=1ms");
    up(&space);
    get(&space, "/").unwrap();
    assert_eq!(metric(&space, "guest_requests_total"), 1.0);
    vmm.ok("PUT", "vm.reboot", None);
    up(&space);
    assert_eq!(metric(&space, "guest_requests_total"), 0.0);
    vmm.control(&json!({"do": "reset"}));
    eventually("the guest has rebooted itself", || {
        let rebooted = vmm.vm_events().iter().filter(|name| *name == "vm/rebooted").count();
        if rebooted == 2 { Ok(()) } else { Err(rebooted.to_string()) }
    });
    up(&space);
    let mut open = connect(&space, SERVICE).unwrap();
    open.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(open.read(&mut [0; 4]).unwrap(), 4);
    vmm.ok("PUT", "vm.power-button", None);
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    vmm.wait();
    assert!(space.links().is_empty());
}

#[test]
fn a_restored_guest_keeps_its_addresses_behind_another_tap() {
    let (Some(first), Some(second)) = (Space::new_or_skip(), Space::new_or_skip()) else { return };
    let dir = directory();
    let vmm = boot(&first, &Launch::stand_in(), dir.path(), "sim.service=1ms");
    up(&first);
    vmm.ok("PUT", "vm.pause", None);
    let snapshot = dir.path().join("snapshot");
    std::fs::create_dir(&snapshot).unwrap();
    let url = format!("file://{}", snapshot.display());
    vmm.ok("PUT", "vm.snapshot", Some(&json!({"destination_url": url})));
    drop(vmm);

    let path = snapshot.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let net = config["net"][0].as_object_mut().unwrap();
    assert!(net.remove("host_mac").is_some());
    net.insert("tap".to_owned(), json!("other-tap"));
    net.insert("mac".to_owned(), json!("52:54:00:00:00:99"));
    config["payload"]["cmdline"] = json!("ip=10.88.0.77");
    std::fs::write(&path, config.to_string()).unwrap();
    let clone = second.run(|| Launch::stand_in().start(dir.path(), "b"));
    clone.ok("PUT", "vm.restore", Some(&json!({"source_url": url})));
    clone.ok("PUT", "vm.resume", None);
    up(&second);
    assert!(get(&second, "/").unwrap().ends_with("web 1\n"));
    assert_eq!(second.links(), ["other-tap"]);
    assert_eq!(second.neighbour(GUEST).as_deref(), Some(MAC));
}

#[test]
fn a_tap_that_cannot_be_opened_is_told_in_upstreams_words() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let _vmm = boot(&space, &Launch::stand_in(), dir.path(), "");
    let other = space.run(|| Launch::stand_in().start(dir.path(), "b"));
    let refusal = |change: Value| -> Value {
        let mut config = config(dir.path(), "");
        config["serial"] = json!({"mode": "Null"});
        config["net"][0].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        other.ok("PUT", "vm.create", Some(&config));
        let answer = other.call("PUT", "vm.boot", None);
        assert_eq!(answer.status, 500, "{answer:?}");
        other.ok("PUT", "vm.delete", None);
        serde_json::from_str(&answer.body).unwrap()
    };
    let chain = |last: &[&str]| {
        let mut chain = vec![
            "Error from API",
            "The VM could not boot",
            "Error from device manager",
            "Cannot create virtio-net device",
            "Failed to open taps",
        ];
        chain.extend(last);
        json!(chain)
    };
    let configure = ["Open tap device failed", "Unable to configure tap interface"];
    assert_eq!(
        refusal(json!({})),
        chain(&[configure[0], configure[1], "Device or resource busy (os error 16)"])
    );
    assert_eq!(
        refusal(json!({"tap": "lo"})),
        chain(&[configure[0], configure[1], "Invalid argument (os error 22)"])
    );
    // Found out before by looking into /sys, but that of another namespace.
    assert_eq!(
        refusal(json!({"num_queues": 4})),
        chain(&[configure[0], configure[1], "Invalid argument (os error 22)"])
    );
    assert_eq!(space.links(), ["rg-tap"], "refusals leave nothing behind");
}

#[test]
fn a_tap_with_several_queues_and_a_small_mtu() {
    let Some(space) = Space::new_or_skip() else { return };
    let dir = directory();
    let vmm = space.run(|| Launch::stand_in().start(dir.path(), "a"));
    let mut config = config(dir.path(), "");
    config["net"][0]["num_queues"] = json!(4);
    config["net"][0]["mtu"] = json!(1280);
    vmm.boot(&config);
    for _ in 0..20 {
        // Connections are spread over the queues.
        up(&space);
    }
    vmm.ok("PUT", "vm.remove-device", Some(&json!({"id": "net0"})));
    eventually("the guest lets go of its card", || match space.links() {
        links if links.is_empty() => Ok(()),
        links => Err(format!("{links:?}")),
    });
}
