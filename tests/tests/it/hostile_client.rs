//! Anonymous clients of a load balancer, and what they cannot do to its instances.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use regatta_tests::{Daemon, IDLE, get, wait_for};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const OPEN_FILES: u32 = 400;
const CONNECTIONS: u32 = 2_000;
/// Hostile clients have more than one address.
const ADDRESSES: u32 = 8;
const TICKS: u64 = 25;

/// A connection that never says a byte, from an address of its own.
fn silent(to: SocketAddr, nth: u32) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
    let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 9, 0, 1).to_bits() + nth % ADDRESSES);
    bind(&socket, &SocketAddrV4::new(from, 0)).expect("an address");
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => socket,
        Err(why) => panic!("cannot connect: {why}"),
    }
}

fn events(daemon: &Daemon, kind: &str) -> usize {
    let events = daemon.json(&["events"]);
    events.as_array().expect("events").iter().filter(|event| event["kind"] == kind).count()
}

fn open_files(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("its descriptors").count()
}

fn last_tick(daemon: &Daemon) -> u64 {
    daemon.json(&["describe", "web"])["summary"]["last_tick"].as_u64().expect("a tick")
}

#[test]
fn connections_without_number_cost_no_vm() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("a greater limit");
    let mut daemon = Daemon::prepare(&[]);
    daemon.limit_open_files(OPEN_FILES);
    daemon.launch();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    let manifest = daemon.manifest("web", "{ min: 2, max: 2 }", "", &extra);
    daemon.apply_ok(&manifest.replace("http: /healthz", "tcp: true"));
    daemon.wait_in_service("web", 2);
    let vms = daemon.vm_pids("web");
    assert_eq!(get(lb, "/").expect("an answer").status, 200);

    let held: Vec<OwnedFd> = (0..CONNECTIONS).map(|nth| silent(lb, nth)).collect();
    wait_for("the load balancers to hold as many as they may", || {
        let status = daemon.json(&["status"]);
        let conditions = status["conditions"].as_array().expect("conditions");
        if conditions.iter().any(|it| it["kind"] == "connections") { Ok(()) } else { Err(status.to_string()) }
    });
    let begun = last_tick(&daemon);
    wait_for("some ticks more", || {
        assert!(open_files(&daemon) < OPEN_FILES as usize, "descriptors are left");
        let ticks = last_tick(&daemon) - begun;
        if ticks >= TICKS { Ok(()) } else { Err(format!("{ticks} ticks")) }
    });
    assert_eq!(daemon.vm_pids("web"), vms, "{}", daemon.log());
    assert_eq!(events(&daemon, "unhealthy"), 0, "{}", daemon.log());
    assert!(!daemon.log().contains("Too many open files"), "{}", daemon.log());
    // A launch has descriptors, too.
    let pid = i32::try_from(vms[0].1).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    wait_for("its end", || match events(&daemon, "instance-died") {
        1 => Ok(()),
        count => Err(format!("{count} events")),
    });
    daemon.wait_in_service("web", 2);
    assert!(daemon.vm_pids("web").iter().all(|(id, _)| *id != vms[0].0), "it was replaced");

    drop(held);
    wait_for("service for others", || get(lb, "/").map(|_| ()));
}

/// Twice as many as the daemon serves at once with so few descriptors.
const CALLERS: usize = 100;

#[test]
fn callers_that_send_or_read_slowly_keep_nobody_out_for_long() {
    let mut daemon = Daemon::prepare(&[]);
    daemon.limit_open_files(OPEN_FILES);
    daemon.launch();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let socket = daemon.data().join("api.sock");
    let head = "POST /v1/sets/web/scale HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n";
    let slow: Vec<UnixStream> = (0..CALLERS)
        .filter_map(|_| {
            // As many as the kernel queues.
            let mut caller = UnixStream::connect(&socket).ok()?;
            caller.set_nonblocking(true).expect("set");
            caller.write_all(head.as_bytes()).ok()?;
            Some(caller)
        })
        .collect();
    assert!(slow.len() > 50, "{}", slow.len());
    // They go on sending, a byte now and then.
    wait_for("an answer beside them", || {
        for mut caller in &slow {
            let _ = caller.write(b" ");
        }
        let status = daemon.run(&["status"]);
        if status.code == 0 { Ok(()) } else { Err(status.err) }
    });
    assert!(daemon.run(&["scale", "web", "1"]).code == 0, "{}", daemon.log());
    assert_eq!(events(&daemon, "instance-died"), 0);
}
