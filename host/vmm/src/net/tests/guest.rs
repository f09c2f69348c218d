//! Stand-in guests: a network stack of their own (a namespace) behind the instance's tap, frames carried over by hand as a VMM does.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::super::links::make_tap;
use super::space::{PATIENCE, Space};

/// How long a connection that is expected not to come about is waited for.
const BLOCKED_AFTER: Duration = Duration::from_millis(700);
const PORT: u16 = 8080;

/// A machine with one network card, serving HTTP on port 8080.
pub(super) struct Guest {
    pub(super) space: Space,
    stop: Option<OwnedFd>,
    carrier: Option<JoinHandle<()>>,
}

impl Guest {
    /// Plugs in a guest where a VMM would open the tap.
    pub(super) fn plug(
        name: &'static str,
        tap_space: &Space,
        tap: &str,
        mac: &str,
        address: Ipv4Addr,
        prefix: u8,
        gateway: Ipv4Addr,
    ) -> Self {
        let space = Space::new();
        let outside = tap_space.run(|| make_tap(tap).expect("the instance's tap"));
        let inside = space.run(|| make_tap("eth0").expect("the guest's card"));
        space.with_links(async |links| {
            let index = links.index("eth0").await.expect("eth0");
            links.address(index, address, prefix).await.expect("address");
            let mac: Result<Vec<u8>, _> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
            links
                .change("eth0", index, |link| link.address(mac.expect("an address")).up())
                .await
                .expect("up");
        });
        space.default_route("eth0", gateway);
        let (stopped, stop) = rustix::pipe::pipe().expect("pipe");
        let carrier = std::thread::spawn(move || carry(&outside, &inside, &stopped));
        serve(&space, name);
        Self { space, stop: Some(stop), carrier: Some(carrier) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(carrier) = self.carrier.take() {
            carrier.join().expect("carrier of frames");
        }
    }
}

/// Carries frames between two taps, headers and all, until the other end of `stopped` is closed.
fn carry(one: &File, other: &File, stopped: &OwnedFd) {
    let mut frame = vec![0; 1 << 17];
    loop {
        let mut fds = [
            PollFd::new(one, PollFlags::IN),
            PollFd::new(other, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        poll(&mut fds, None).expect("poll");
        if !fds[2].revents().is_empty() {
            return;
        }
        let ready = [fds[0].revents(), fds[1].revents()];
        for (ready, (mut from, mut to)) in ready.into_iter().zip([(one, other), (other, one)]) {
            if ready.contains(PollFlags::IN) {
                let len = from.read(&mut frame).expect("frame");
                // A card that is down drops frames.
                let _ = to.write(&frame[..len]);
            }
        }
    }
}

/// Serves HTTP: who answers, and who seems to ask. The thread ends with the test's process.
pub(super) fn serve(space: &Space, name: &'static str) {
    let listener = space.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("listen"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let peer = stream.peer_addr().expect("peer").ip();
            stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|len| len == 1) {
                request.push(byte[0]);
            }
            let body = format!("{name} sees {peer}");
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
}

/// Asks the server at `address` from `space`; `None` when no connection comes about.
pub(super) fn get(space: &Space, address: Ipv4Addr) -> Option<String> {
    ask(space, address, PATIENCE)
}

/// Whether no connection comes about.
pub(super) fn is_blocked(space: &Space, address: Ipv4Addr) -> bool {
    ask(space, address, BLOCKED_AFTER).is_none()
}

fn ask(space: &Space, address: Ipv4Addr, within: Duration) -> Option<String> {
    space.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), within).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
        write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    })
}
