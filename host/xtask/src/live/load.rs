//! Sends the requests of a profile, each on a connection of its own, and counts what comes back.
//!
//! One connection per request because the load balancer works on connections: a client that
//! kept its connections would stay on the instances that were there when it came.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::profile::Profile;
use crate::tally::{Outcome, Tally};

/// A request without its whole answer by then has failed.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Requests under way at once; each holds a socket, and processes have 1,024 by default.
const MOST_IN_FLIGHT: u64 = 800;

/// A load that runs in the background.
pub(crate) struct Load {
    tally: Arc<Mutex<Tally>>,
    start: Instant,
    profile: Profile,
    sender: tokio::task::JoinHandle<()>,
}

impl Load {
    /// Begins to send GET requests for `path` to `address`.
    pub(crate) fn start(address: SocketAddr, path: &str, profile: Profile, seed: u64) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let start = Instant::now();
        let sender = tokio::spawn(send_all(
            address,
            Arc::from(path),
            profile.clone(),
            seed,
            start,
            Arc::clone(&tally),
        ));
        Self { tally, start, profile, sender }
    }

    /// A copy of the counts so far.
    pub(crate) fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }

    /// Time since the begin.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Requests per second that are due now.
    pub(crate) fn rate(&self) -> f64 {
        self.profile.rate_at(self.elapsed())
    }

    /// Whether every request has been sent and has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.sender.is_finished()
    }

    /// Sends no more and forgets what is under way.
    pub(crate) fn stop(&self) {
        self.sender.abort();
    }
}

/// A panic while counting leaves counts that are still worth showing.
fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends every request when it is due, then waits for the last answer.
async fn send_all(
    address: SocketAddr,
    path: Arc<str>,
    profile: Profile,
    seed: u64,
    start: Instant,
    tally: Arc<Mutex<Tally>>,
) {
    // Aborting this task drops the set, and with it every request.
    let mut requests = JoinSet::new();
    for offset in profile.arrivals(seed) {
        let due = start + offset;
        sleep_until(due).await;
        while requests.try_join_next().is_some() {}
        {
            let mut tally = locked(&tally);
            tally.begin();
            if tally.in_flight() > MOST_IN_FLIGHT {
                tally.end(Outcome::NotSent, Duration::ZERO);
                continue;
            }
        }
        let (path, tally) = (Arc::clone(&path), Arc::clone(&tally));
        requests.spawn(async move {
            let outcome = timeout(REQUEST_LIMIT, get(address, &path)).await.unwrap_or(Outcome::TimedOut);
            locked(&tally).end(outcome, due.elapsed());
        });
    }
    while requests.join_next().await.is_some() {}
}

/// One GET request on a new connection.
async fn get(address: SocketAddr, path: &str) -> Outcome {
    let Ok(stream) = TcpStream::connect(address).await else {
        return Outcome::Refused;
    };
    // Small requests must not wait for more; if this fails, they are only slower.
    let _ = stream.set_nodelay(true);
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return Outcome::CutOff;
    };
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let Ok(request) = request else {
        return Outcome::NotSent;
    };
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok::<_, hyper::Error>(status)
    };
    // The connection is driven here, not in a task of its own, so that nothing outlives the
    // request when it is dropped.
    tokio::pin!(connection);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // The answer may be complete and only not yet taken.
            Ok(()) => answer.await,
            Err(error) => Err(error),
        },
    };
    match answer {
        Ok(status) if status.is_success() => Outcome::Served,
        Ok(status) => Outcome::Status(status.as_u16()),
        Err(_) => Outcome::CutOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that answers every connection with one of `answers` in turn.
    async fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            for answer in answers.iter().cycle() {
                let (mut stream, _) = listener.accept().await.expect("accept");
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    async fn run_to_end(load: &Load) -> Tally {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !load.is_finished() {
            assert!(Instant::now() < deadline, "unfinished: {:?}", load.tally());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        load.tally()
    }

    #[tokio::test]
    async fn every_request_of_the_profile_is_sent_and_judged() {
        let address = server(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nhalf of it",
            "",
        ])
        .await;
        let profile = Profile::tide(Duration::from_secs(1), 20.0, 200.0);
        let planned = profile.arrivals(3).count() as u64;
        let load = Load::start(address, "/", profile, 3);
        let tally = run_to_end(&load).await;
        assert_eq!(tally.due, planned);
        assert_eq!(tally.in_flight(), 0);
        let quarter = planned / 4;
        assert!((quarter..=quarter + 1).contains(&tally.served()), "{tally:?}");
        let failures = tally.failures();
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[0].starts_with("status 503: "), "{failures:?}");
        assert!(failures[1].starts_with("cut off: "), "{failures:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_a_refusal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let profile = Profile::tide(Duration::from_millis(200), 50.0, 100.0);
        let tally = run_to_end(&Load::start(address, "/", profile, 1)).await;
        assert_eq!(tally.served(), 0);
        assert_eq!(tally.failures(), [format!("refused: {}", tally.due)]);
    }
}
