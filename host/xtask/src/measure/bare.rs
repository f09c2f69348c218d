//! The barest way to have the same VMs: start the VMM, create, boot, ask the guest until it answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::rig::{self, CMDLINE};

/// How long one VM may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(1);

const PORT: u16 = 8080;

/// Boots `count` VMs, `at_once` at a time; returns how long it took until the last guest answered.
pub(crate) async fn boot_all(vmm: &Path, count: u32, at_once: usize) -> Result<Duration> {
    let directory = rig::directory()?;
    rig::images(directory.path())?;
    let start = Instant::now();
    let mut running = Vec::new();
    let mut booting: JoinSet<Result<Child>> = JoinSet::new();
    for number in 0..count {
        if booting.len() == at_once
            && let Some(booted) = booting.join_next().await
        {
            running.push(booted??);
        }
        let (vmm, directory) = (vmm.to_owned(), directory.path().to_owned());
        booting.spawn(async move {
            timeout(LIMIT, boot(&vmm, &directory, number)).await.context("the VM takes too long")?
        });
    }
    while let Some(booted) = booting.join_next().await {
        running.push(booted??);
    }
    let took = start.elapsed();
    // All at once: dropping one by one would wait for none, and the directory goes next.
    for child in &mut running {
        child.start_kill().context("cannot end a VMM")?;
    }
    for mut child in running {
        child.wait().await.context("cannot end a VMM")?;
    }
    Ok(took)
}

async fn boot(vmm: &Path, directory: &Path, number: u32) -> Result<Child> {
    let socket = directory.join(format!("{number}.sock"));
    let child = Command::new(vmm)
        .arg("--api-socket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", vmm.display()))?;
    let stream = loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => break stream,
            Err(_) => sleep(PAUSE).await,
        }
    };
    let mut vmm = connect(stream).await?;
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 47, 0, 1)) + number);
    let config = json!({
        "payload": {
            "kernel": directory.join("vmlinux"),
            "cmdline": format!("{CMDLINE} ip={address}:::255.0.0.0:bare-{number}:eth0:off regatta.port={PORT}"),
        },
        "console": { "mode": "Off" },
    });
    for (call, body) in [("vm.create", config.to_string()), ("vm.boot", String::new())] {
        let status = ask(&mut vmm, Method::PUT, &format!("/api/v1/{call}"), body).await?;
        ensure!(status == StatusCode::NO_CONTENT, "{call} answered {status}");
    }
    while !healthy((address, PORT).into()).await {
        sleep(PAUSE).await;
    }
    Ok(child)
}

async fn healthy(address: SocketAddr) -> bool {
    let asked = async {
        let mut guest = connect(TcpStream::connect(address).await?).await?;
        ask(&mut guest, Method::GET, "/healthz", String::new()).await
    };
    asked.await.is_ok_and(|status| status == StatusCode::OK)
}

async fn connect(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the sender is dropped.
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: String,
) -> Result<StatusCode> {
    sender.ready().await?;
    let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    let response = sender.send_request(request.body(Full::from(body))?).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}
