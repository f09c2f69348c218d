//! Clients of a load balancer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::{get, wait_for};

/// Clients that begin a request every few milliseconds.
#[derive(Debug)]
pub struct Clients {
    over: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<(), String>>>,
}

impl Clients {
    /// Four of them.
    #[must_use]
    pub fn start(lb: SocketAddr) -> Self {
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = || {
            let (over, served) = (Arc::clone(&over), Arc::clone(&served));
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = get(lb, "/work")?;
                    if answer.status != 200 {
                        return Err(format!("{answer:?}"));
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let threads = (0..4).map(|_| client()).collect();
        Self { over, served, threads }
    }

    /// Waits until so many more requests are served.
    pub fn serves(&self, more: u64) {
        let from = self.served.load(Ordering::Relaxed);
        wait_for("requests to be served", || {
            let served = self.served.load(Ordering::Relaxed) - from;
            if served >= more { Ok(()) } else { Err(format!("{served} served")) }
        });
    }

    /// Ends them.
    ///
    /// # Panics
    /// When a request was not served.
    pub fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client").expect("every request is served");
        }
    }
}
