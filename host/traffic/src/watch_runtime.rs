//! A thread for probes and scrapes.

use std::io;

use tokio::runtime::{Builder, EnterGuard, Runtime};

/// A runtime of one thread on which probers and scrapers run.
///
/// Hundreds of short exchanges a second, spread over the workers of a larger
/// runtime, mostly wake threads: on one thread of their own they cost a third
/// less. A blocked worker of another runtime cannot delay a probe either.
#[derive(Debug)]
pub struct WatchRuntime(Option<Runtime>);

impl WatchRuntime {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread or no epoll instance can be had.
    pub fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("regatta-watch").enable_io().enable_time();
        Ok(Self(Some(builder.build()?)))
    }

    /// Probers and scrapers that are started while the guard lives run here. Do
    /// not hold it across an `await`.
    #[must_use]
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for WatchRuntime {
    fn drop(&mut self) {
        // A runtime must not be waited for within another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
