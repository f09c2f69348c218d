//! Commits from async code: one thread, one queue, one wait for the disk for
//! all batches that fell together.

use std::sync::Arc;
use std::thread::JoinHandle;

use regatta_core::batch::{Batch, Revision};
use tokio::sync::{mpsc, oneshot};

use crate::error::StoreError;
use crate::store::StateStore;

/// How many batches may wait; whoever brings one more waits too.
pub const QUEUE_DEFAULT: usize = 256;

/// Maximum number of batches in one transaction.
const GROUP_MAX: usize = 64;

type Job = (Batch, oneshot::Sender<Result<Revision, StoreError>>);

/// Hands batches to the writer thread. Cheap to clone; the thread ends when the
/// last handle is gone and everything in the queue is stored.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread. `queue` is the number of batches that may wait. Join
    /// the thread after the last handle is dropped to be sure that all is stored.
    ///
    /// # Errors
    /// [`StoreError::WriterStart`].
    pub fn start(store: Arc<dyn StateStore>, queue: usize) -> Result<(Self, JoinHandle<()>), StoreError> {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || run(store.as_ref(), receiver))
            .map_err(|source| StoreError::WriterStart { source })?;
        Ok((Self { queue: sender }, thread))
    }

    /// Stores a batch; returns its number when it is safe, or why it is not stored. Once it
    /// is in the queue it is stored even if the caller no longer waits.
    ///
    /// # Errors
    /// As [`StateStore::commit`]; [`StoreError::WriterStopped`].
    pub async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send((batch, answer)).await.map_err(|_| StoreError::WriterStopped)?;
        answered.await.map_err(|_| StoreError::WriterStopped)?
    }
}

fn run(store: &dyn StateStore, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let (mut batches, mut answers) = (vec![first.0], vec![first.1]);
        while batches.len() < GROUP_MAX
            && let Ok((batch, answer)) = queue.try_recv()
        {
            batches.push(batch);
            answers.push(answer);
        }
        for (answer, result) in answers.into_iter().zip(store.commit_group(&batches)) {
            // A caller that no longer waits is not an error.
            _ = answer.send(result);
        }
    }
}
