//! A guest for tests: a small HTTP/1.1 service that can be stopped like a VM.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a guest answers to a path.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    pub(crate) after: Duration,
    pub(crate) close: bool,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self { status: 200, body: body.into(), after: Duration::ZERO, close: false }
    }
}

pub(crate) struct Guest {
    pub(crate) addr: SocketAddr,
    /// Connections accepted so far.
    accepted: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Guest {
    /// Serves at a free port.
    pub(crate) fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).unwrap()
    }

    pub(crate) fn start_at(
        addr: SocketAddr,
        answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(64)?;
        let addr = listener.local_addr()?;
        let accepted = Arc::new(AtomicU32::new(0));
        let task = tokio::spawn(serve(listener, Arc::new(answer), Arc::clone(&accepted)));
        Ok(Self { addr, accepted, task })
    }

    /// Serves its name to whatever is asked.
    pub(crate) fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self::start(move |_| Answer::ok(name.clone()))
    }

    pub(crate) fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Closes the listener and every connection, and waits until that is done.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Handler = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

async fn serve(listener: TcpListener, answer: Handler, accepted: Arc<AtomicU32>) {
    // Dropped with this task, and with it the connections.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::SeqCst);
        connections.spawn(converse(stream, Arc::clone(&answer)));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, answer: Handler) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let answer = answer(head.split(' ').nth(1).unwrap_or(""));
        tokio::time::sleep(answer.after).await;
        let close = answer.close || head.contains("Connection: close");
        let reply = format!(
            "HTTP/1.1 {} x\r\nContent-Length: {}\r\n{}\r\n{}",
            answer.status,
            answer.body.len(),
            if close { "Connection: close\r\n" } else { "" },
            answer.body
        );
        stream.write_all(reply.as_bytes()).await?;
        if close {
            return Ok(());
        }
    }
}

/// Sends one request on an open connection and returns the body of the answer.
pub(crate) async fn ask(stream: &mut TcpStream, path: &str) -> io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await?;
    answer(stream).await
}

/// Reads one answer and returns its body.
pub(crate) async fn answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(String::from_utf8(body).unwrap())
}

/// One request on a connection of its own.
pub(crate) async fn ask_once(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    answer(&mut stream).await
}
