//! Load balancer, probes and scrapes against real sockets on the loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic, its helpers too")]

mod drain;
mod guest;
mod lb;
mod probe;
mod scrape;

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Long enough for any machine; reached only by a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `look` says yes; it says what it saw otherwise.
async fn eventually<T, F: Future<Output = Result<T, String>>>(mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) => assert!(Instant::now() < deadline, "not within {DEADLINE:?}; last seen: {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The result of `future`, which must come in time.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("should have come long ago")
}
