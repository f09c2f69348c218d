//! A connection whose peer must take what it asked for.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};

/// A connection on which a write that makes no progress for a while is an error.
pub(super) struct Impatient {
    stream: UnixStream,
    patience: Duration,
    /// Ends the write that waits.
    stalled: Pin<Box<Sleep>>,
    waits: bool,
}

impl Impatient {
    /// Must be called within a tokio runtime.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> Self {
        Self { stream, patience, stalled: Box::pin(sleep(patience)), waits: false }
    }

    fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut UnixStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream), context);
        if written.is_ready() {
            self.waits = false;
            return written;
        }
        if !self.waits {
            self.waits = true;
            self.stalled.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller does not read its answer")))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(context, |stream, context| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(context, |stream, context| stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_reads_now_and_then_is_served_and_one_that_does_not_is_given_up() {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let mut ours = Impatient::new(ours, Duration::from_secs(1));
        let writes = tokio::spawn(async move {
            let (bytes, mut sent) = (vec![0; 64 << 10], 0_usize);
            loop {
                match ours.write_all(&bytes).await {
                    Ok(()) => sent += bytes.len(),
                    Err(error) => return (sent, error.kind()),
                }
            }
        });
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            read += theirs.read(&mut buffer).await.expect("it is served");
        }
        let (sent, kind) = writes.await.expect("it ends");
        assert!(sent >= read && read > 0, "{sent} of {read}");
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }
}
