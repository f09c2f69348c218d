//! What probes, scrapes and relayed requests cost the process that makes them.
//!
//! ```text
//! cargo run --release -p regatta-traffic --example cost -- [targets] [interval ms] [seconds]
//! ```
//!
//! Starts itself once more as the guests, so that only the daemon's side is
//! measured, and prints JSON: the share of one core for probing and scraping
//! all targets at the interval, and the requests per second that one load
//! balancer carries on a connection each, with the CPU time of each.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use regatta_core::manifest::{GuestMetric, Health, Probe, ValueRange};
use regatta_traffic::{
    Endpoint, GuestClient, LbConfig, LoadBalancer, ProbePhase, ProbeTarget, Prober, ScrapeTarget, Scraper,
    WatchRuntime,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.first().map(String::as_str) {
        Some("guests") => runtime.block_on(guests(number(1, 1)?)),
        Some("clients") => runtime.block_on(clients(args[1].parse()?, number(2, 1)?)),
        _ => runtime.block_on(measure(number(0, 200)?, number(1, 1_000)?, number(2, 20)?)),
    }
}

/// Serves `count` guests and prints their addresses, one a line.
async fn guests(count: u64) -> Outcome<()> {
    let page: String = (0..40).map(|n| format!("guest_series_{n}{{queue=\"a\"}} {n}.5\n")).collect();
    let page = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let page: &'static str = page.leak();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1_024];
                    while let Ok(1..) = stream.read(&mut request).await {
                        if stream.write_all(page.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }
    println!();
    // Until the parent closes our input.
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
    Ok(())
}

/// Sends requests on a connection each for so many seconds and prints how many.
async fn clients(addr: SocketAddr, seconds: u64) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    let client = move || async move {
        let mut served = 0_u64;
        while Instant::now() < end {
            let mut stream = TcpStream::connect(addr).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
            let mut answer = [0; 4_096];
            assert!(stream.read(&mut answer).await? > 0, "closed without an answer");
            served += 1;
        }
        Ok::<_, std::io::Error>(served)
    };
    let clients: Vec<_> = (0..32).map(|_| tokio::spawn(client())).collect();
    let mut served = 0;
    for client in clients {
        served += client.await??;
    }
    println!("{served}");
    Ok(())
}

async fn measure(targets: u64, interval_ms: u64, seconds: u64) -> Outcome<()> {
    let this = std::env::current_exe()?;
    let mut guests = Command::new(&this)
        .args(["guests", &targets.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(guests.stdout.take().ok_or("no output")?).lines();
    let lines = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let addrs = lines.map(|line| line.parse()).collect::<Result<Vec<SocketAddr>, _>>()?;

    let (share, probes, scrapes) = watch(&addrs, interval_ms, seconds).await?;

    let lb = LoadBalancer::bind(SocketAddr::from(([127, 0, 0, 1], 0)), LbConfig::default())?;
    lb.set_endpoints(addrs.iter().zip(1..).map(|(&addr, id)| Endpoint { id, addr }));
    let before = cpu_time()?;
    let clients = tokio::process::Command::new(&this)
        .args(["clients", &lb.local_addr().to_string(), "5"])
        .output()
        .await?;
    let served: f64 = String::from_utf8(clients.stdout)?.trim().parse()?;
    let lb_cpu = (cpu_time()? - before).as_secs_f64();
    let totals = lb.stats().totals;
    drop(guests.stdin.take());
    guests.wait()?;

    let mut out = std::io::stdout();
    writeln!(
        out,
        "{{\"targets\":{targets},\"interval_ms\":{interval_ms},\"seconds\":{seconds},\
         \"probes\":{probes},\"scrapes\":{scrapes},\"core_share\":{share:.4},\
         \"lb_requests_per_s\":{:.0},\"lb_cpu_us_per_request\":{:.1},\"lb_mean_connect_us\":{:.0},\
         \"lb_unserved\":{},\"lb_broken\":{}}}",
        served / 5.0,
        lb_cpu * 1e6 / served,
        totals.connect_us as f64 / totals.connects.max(1) as f64,
        totals.unserved,
        totals.closed_broken,
    )?;
    Ok(())
}

/// Probes and scrapes the targets; returns the share of a core, probes and scrapes.
async fn watch(addrs: &[SocketAddr], interval_ms: u64, seconds: u64) -> Outcome<(f64, u64, u64)> {
    let interval = Duration::from_millis(interval_ms);
    let health = Health {
        probe: Some(Probe::Http { path: "/healthz".to_owned(), port: None }),
        interval_ms,
        timeout_ms: 1_000,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
    };
    let metric = |n: u32| GuestMetric {
        name: format!("m{n}"),
        series: format!("guest_series_{n}"),
        path: "/metrics".to_owned(),
        rate: false,
        range: ValueRange::ALL,
    };
    let scrape = ScrapeTarget::new(&[metric(1), metric(20)], Duration::from_secs(1))?;
    let (probe_sender, mut probe_reports) = mpsc::channel(1_024);
    let (scrape_sender, mut scrape_reports) = mpsc::channel(1_024);
    let watching = WatchRuntime::start()?;
    let entered = watching.enter();
    let mut probers = Vec::new();
    let mut scrapers = Vec::new();
    for (&addr, id) in addrs.iter().zip(1_u32..) {
        let client = GuestClient::new(addr);
        let target = ProbeTarget { id, client: client.clone(), phase: ProbePhase::Booting };
        probers.push(Prober::start(target, &health, u64::from(id), probe_sender.clone())?);
        let seed = u64::from(id) << 32;
        scrapers.push(Scraper::start(id, client, scrape.clone(), interval, seed, scrape_sender.clone()));
    }
    drop(entered);
    // Two events each until all are healthy; the start is not measured.
    for _ in 0..2 * addrs.len() {
        probe_reports.recv().await.ok_or("no reports")?;
    }
    let before = cpu_time()?;
    let probes_before: u64 = probers.iter().map(|prober| prober.status().probes).sum();
    // Reports are fetched at ticks: nobody is woken for each of them.
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut ticks = tokio::time::interval(interval);
    let mut scraped = 0;
    while tokio::time::timeout_at(end, ticks.tick()).await.is_ok() {
        while let Ok(report) = scrape_reports.try_recv() {
            scraped += u64::from(report.readings.iter().all(Result::is_ok));
        }
    }
    let share = (cpu_time()? - before).as_secs_f64() / seconds as f64;
    let probes: u64 = probers.iter().map(|prober| prober.status().probes).sum();
    Ok((share, probes - probes_before, scraped))
}

/// CPU time of this process and its threads so far, without its children's.
fn cpu_time() -> Outcome<Duration> {
    // Per thread, in nanoseconds: `/proc/self/stat` has ticks of 10 ms only.
    let mut total_ns = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total_ns += stat.split(' ').next().ok_or("empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total_ns))
}
