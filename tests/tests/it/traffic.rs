//! Clients at the edges of a load balancer: too many of them, and a daemon that follows another.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use regatta_tests::{Clients, Daemon, IDLE, get, get_on, wait_for};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process};

fn wait_for_event(daemon: &Daemon, set: &str, kind: &str) {
    wait_for(kind, || {
        let events = daemon.json(&["events", set]);
        let told = events.as_array().expect("events").iter().any(|event| event["kind"] == kind);
        if told { Ok(()) } else { Err(events.to_string()) }
    });
}

#[test]
fn a_full_load_balancer_answers_at_once_and_says_so() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\", max_connections: 2 }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("full", "{ min: 1, max: 1 }", "", &extra));
    daemon.wait_in_service("full", 1);
    let mut held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(lb).expect("a place")).collect();
    for stream in &mut held {
        assert_eq!(get_on(stream, "/", false).expect("an answer").status, 200);
    }
    let mut third = TcpStream::connect(lb).expect("accepted by the kernel");
    third.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let refused = third.read(&mut [0; 1]).expect_err("refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    wait_for_event(&daemon, "full", "load-balancer-full");
    assert!(daemon.run(&["describe", "full"]).out.contains("the load balancer is full: 2 connections"));
    drop(held);
    wait_for_event(&daemon, "full", "load-balancer-has-room");
    assert_eq!(get(lb, "/").expect("an answer").status, 200);
}

/// The part of a service manager that keeps a listening socket.
fn kept(manager: &UnixDatagram) -> (String, OwnedFd) {
    let mut text = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = recvmsg(manager, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC);
    let bytes = read.expect("a message").bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (String::from_utf8_lossy(&text[..bytes]).into_owned(), fd.expect("a socket"))
}

#[test]
fn a_restart_under_a_service_manager_costs_no_request() {
    let mut daemon = Daemon::prepare(&[]);
    let path = daemon.home().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    daemon.set_environment("NOTIFY_SOCKET", path.to_str().expect("text"));
    daemon.launch();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("kept", "{ min: 2, max: 2 }", "sim.service=50ms", &extra));
    let name = format!("FDSTORE=1\nFDNAME={}", lb.to_string().replace(':', "-"));
    let (told, listener) = kept(&manager);
    assert_eq!(told, name);
    daemon.wait_in_service("kept", 2);

    let clients = Clients::start(lb);
    clients.serves(20);
    assert!(daemon.stop().success());
    daemon.inherit(listener);
    daemon.launch();
    clients.serves(20);
    clients.finish();
    assert_eq!(kept(&manager).0, name, "for the next one");

    assert_eq!(daemon.run(&["delete", "kept", "--yes", "--wait"]).code, 0);
    let mut text = [0; 256];
    let bytes = manager.recv(&mut text).expect("a message");
    let expected = format!("FDSTOREREMOVE=1\nFDNAME={}", lb.to_string().replace(':', "-"));
    assert_eq!(String::from_utf8_lossy(&text[..bytes]), expected);
}

#[test]
fn a_daemon_that_takes_over_from_another_costs_no_connection() {
    let mut daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("kept", "{ min: 2, max: 2 }", "sim.service=50ms", &extra));
    daemon.wait_in_service("kept", 2);
    let vms = daemon.vm_pids("kept");

    let clients = Clients::start(lb);
    clients.serves(20);
    // The second one has its sockets from a daemon that has itself taken over.
    for _ in 0..2 {
        let before = daemon.pid();
        daemon.hot_restart();
        assert_ne!(daemon.pid(), before);
        clients.serves(20);
    }
    clients.finish();
    daemon.wait_in_service("kept", 2);
    assert_eq!(daemon.vm_pids("kept"), vms);

    assert_eq!(daemon.run(&["delete", "kept", "--yes", "--wait"]).code, 0);
    assert!(TcpStream::connect(lb).is_err(), "no copy of the socket is left");
}

/// The words of the next daemon, up to the sockets.
fn asks_for_sockets(daemon: &Daemon) -> (UnixStream, u32) {
    let mut stream = UnixStream::connect(daemon.data().join("hot-restart.sock")).expect("a daemon");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    stream.write_all(b"regatta hot-restart 1\n").expect("asked");
    let mut head = [0; 8];
    stream.read_exact(&mut head).expect("an answer");
    (stream, u32::from_le_bytes([head[0], head[1], head[2], head[3]]))
}

#[test]
fn a_take_over_that_fails_leaves_one_daemon_whoever_dies() {
    let mut daemon = Daemon::prepare(&[]);
    let lb = Daemon::free_port();
    // Nobody to take over from.
    daemon.launch_with(&["--hot-restart"]);
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("kept", "{ min: 1, max: 1 }", "", &extra));
    daemon.wait_in_service("kept", 1);
    let serves = || assert_eq!(get(lb, "/").expect("an answer").status, 200);
    let answers = |daemon: &Daemon| daemon.json(&["status"])["pid"].as_u64().expect("a pid");
    let first = answers(&daemon);

    // The next one dies before it has all: the one that runs stays.
    let (stream, sockets) = asks_for_sockets(&daemon);
    assert_eq!(sockets, 1);
    drop(stream);
    // One that speaks otherwise gets nothing.
    let mut stream = UnixStream::connect(daemon.data().join("hot-restart.sock")).expect("a daemon");
    stream.write_all(b"GET /v1/status HTTP/1.1\r\n\r\n").expect("sent");
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    serves();
    assert_eq!(answers(&daemon), first);

    // The one that runs does not answer: it keeps running, and serves once it continues.
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::STOP).expect("stopped");
    assert!(!daemon.start_another_in_vain(&["--hot-restart"]).success());
    kill_process(pid, Signal::CONT).expect("continued");
    assert!(daemon.log().contains("it keeps running"), "{}", daemon.log());
    serves();
    assert_eq!(answers(&daemon), first);

    // The next one dies after it was given everything: the one before has another follow.
    let (mut stream, _) = asks_for_sockets(&daemon);
    stream.read_exact(&mut [0]).expect("the socket, of which the kernel gives us no descriptor");
    // It hears both at once.
    kill_process(pid, Signal::STOP).expect("stopped");
    stream.write_all(b"end\n").expect("sent");
    drop(stream);
    kill_process(pid, Signal::CONT).expect("continued");
    daemon.ends_by_itself();
    wait_for("another daemon", || match daemon.run(&["status"]).code {
        0 => Ok(()),
        code => Err(code.to_string()),
    });
    serves();
    let second = i32::try_from(answers(&daemon)).expect("a pid");
    assert_ne!(u64::try_from(second), Ok(first));
    daemon.wait_in_service("kept", 1);

    // The one that runs dies: one that wants to take over starts without it.
    kill_process(Pid::from_raw(second).expect("a pid"), Signal::KILL).expect("killed");
    daemon.launch_with(&["--hot-restart"]);
    serves();
    daemon.wait_in_service("kept", 1);
}

#[test]
fn a_set_without_instances_starts_one_for_the_client_that_waits_and_removes_it_when_idle() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!(
        "load_balancer: {{ listen: \"{lb}\", drain_timeout: 0s }}\n\
         policy: {{ module: target-tracking, params: {{ metric: connections, target: 5, scale_to_zero: true }} }}"
    );
    daemon.apply_ok(&daemon.manifest("zero", "{ min: 0, max: 2 }", "", &extra));
    for _ in 0..2 {
        daemon.wait_in_service("zero", 0);
        assert_eq!(get(lb, "/").expect("an answer").status, 200);
        let why = daemon.run(&["why", "zero", "--last", "scale-out"]).out;
        assert!(why.contains("scale-from-zero") && why.contains("1 connection waits"), "{why}");
    }
    daemon.wait_in_service("zero", 0);
}

#[test]
fn a_set_that_nothing_could_start_is_refused_unless_forced() {
    let daemon = Daemon::start();
    let write = |capacity: &str| {
        let manifest = daemon.manifest("none", capacity, "", IDLE);
        std::fs::write(daemon.home().join("set.yaml"), manifest).expect("a manifest");
    };
    let told = "nothing starts an instance once the set has none";
    write("{ min: 0, max: 2 }");
    for command in ["diff", "apply"] {
        let refused = daemon.run(&[command, "-f", "set.yaml"]);
        assert_eq!(refused.code, 3, "{command}: {}", refused.err);
        for part in [told, "capacity.min", "load_balancer", "min: 1", "--force"] {
            assert!(refused.err.contains(part), "{command}: {part}: {}", refused.err);
        }
    }
    let forced = daemon.run(&["apply", "-f", "set.yaml", "--force"]);
    assert!(forced.code == 0 && forced.err.contains(told), "{}", forced.err);
    // It is as it was taken: another change is not refused for that.
    write("{ min: 0, max: 3 }");
    let changed = daemon.run(&["apply", "-f", "set.yaml"]);
    assert!(changed.code == 0 && changed.err.contains(told), "{}", changed.err);

    write("{ min: 1, max: 3 }");
    assert_eq!(daemon.run(&["apply", "-f", "set.yaml"]).code, 0);
    write("{ min: 0, max: 3 }");
    assert_eq!(daemon.run(&["apply", "-f", "set.yaml"]).code, 3, "what starts today would not start again");
    write("{ min: 0, max: 3, initial: 1 }");
    let started = daemon.run(&["apply", "-f", "set.yaml"]);
    assert!(started.code == 0 && started.err.contains(told), "{}", started.err);
}
