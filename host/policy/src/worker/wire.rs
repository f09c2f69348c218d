//! What goes between the daemon and its worker: one frame each way, its length first.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use regatta_core::manifest::PolicyLimits;
use regatta_core::metrics::MetricWish;
use serde::{Deserialize, Serialize};

use super::observation::Packed;
use crate::ask::Ask;
use crate::compile::Refusal;
use crate::jail::WallState;
use crate::load::Abi;

/// What the worker says of itself before it takes the first request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) pooling: bool,
    pub(super) walls: Vec<WallState>,
}

/// Names a policy within a worker.
pub(super) type PolicyId = u64;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request<'a> {
    /// Gets the code ready; answered by [`Loaded`].
    Load {
        id: PolicyId,
        abi: Abi,
        #[serde(borrow, with = "serde_bytes")]
        code: &'a [u8],
    },
    /// Asks it; answered by [`Ran`](crate::ask::Ran).
    Run {
        id: PolicyId,
        limits: PolicyLimits,
        #[serde(borrow)]
        ask: Question<'a>,
    },
    /// Forgets these; answered by nothing in a frame.
    Drop { ids: Vec<PolicyId> },
}

/// What the worker says to code.
pub(super) type Loaded = Result<Ready, Refusal>;

/// What is known of code that is ready to run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) migrates: bool,
    /// Size of its machine code with the data that belongs to it.
    pub(super) bytes: usize,
}

/// [`Ask`], packed.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question<'a> {
    Describe,
    Validate {
        params: &'a str,
    },
    Migrate {
        from_version: u32,
        #[serde(borrow, with = "serde_bytes")]
        state: &'a [u8],
    },
    Decide {
        #[serde(borrow)]
        observation: Box<Packed<'a>>,
        wishes: Vec<MetricWish>,
        params: &'a str,
        #[serde(borrow, with = "serde_bytes")]
        state: &'a [u8],
    },
}

impl<'a> Question<'a> {
    pub(super) fn of(ask: &'a Ask<'_>) -> Self {
        match ask {
            Ask::Describe => Self::Describe,
            Ask::Validate { params } => Self::Validate { params },
            Ask::Migrate { from_version, state } => Self::Migrate { from_version: *from_version, state },
            Ask::Decide { observation, wishes, params, state } => Self::Decide {
                observation: Box::new(Packed::of(observation, wishes)),
                wishes: wishes.clone(),
                params,
                state,
            },
        }
    }

    pub(super) fn unpack(self) -> Ask<'a> {
        match self {
            Self::Describe => Ask::Describe,
            Self::Validate { params } => Ask::Validate { params },
            Self::Migrate { from_version, state } => Ask::Migrate { from_version, state },
            Self::Decide { observation, wishes, params, state } => {
                Ask::Decide { observation: Arc::new(observation.unpack()), wishes, params, state }
            }
        }
    }
}

/// Bytes of a buffer that is kept for the next frame.
const KEPT_BYTES: usize = 1 << 20;
const LENGTH_BYTES: usize = size_of::<u32>();

/// Sends `message` as one frame. `buffer` is room to write it in.
pub(super) fn send(mut to: impl Write, message: &impl Serialize, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut frame = std::mem::take(buffer);
    frame.clear();
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    let mut frame = postcard::to_extend(message, frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - LENGTH_BYTES).map_err(io::Error::other)?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame)?;
    frame.shrink_to(KEPT_BYTES);
    *buffer = frame;
    Ok(())
}

/// Receives one frame of at most `most` bytes until `deadline`, and reads it. `from` must wake up now and then for the deadline to
/// count. `buffer` is room to have it in.
pub(super) fn receive<'a, T: Deserialize<'a>>(
    mut from: impl Read,
    most: usize,
    deadline: Option<Instant>,
    buffer: &'a mut Vec<u8>,
) -> io::Result<T> {
    if buffer.len() < KEPT_BYTES / 8 {
        buffer.resize(KEPT_BYTES / 8, 0);
    }
    let mut have = read_some(&mut from, buffer, deadline)?;
    while have < LENGTH_BYTES {
        have += read_some(&mut from, &mut buffer[have..], deadline)?;
    }
    let (length, _) = buffer.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(io::Error::other)?;
    if length > most {
        return Err(io::Error::other(format!("a frame of {length} bytes, more than {most}")));
    }
    let end = LENGTH_BYTES + length;
    if buffer.len() < end {
        buffer.resize(end, 0);
    }
    while have < end {
        have += read_some(&mut from, &mut buffer[have..end], deadline)?;
    }
    if have > end {
        return Err(io::Error::other("more than one frame"));
    }
    postcard::from_bytes(&buffer[LENGTH_BYTES..end]).map_err(io::Error::other)
}

/// At least one byte.
fn read_some(from: &mut impl Read, into: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        match from.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn received<'a, T: Deserialize<'a>>(bytes: &[u8], buffer: &'a mut Vec<u8>) -> io::Result<T> {
        receive(bytes, 1 << 20, None, buffer)
    }

    /// Whoever has taken the worker over can send what it likes.
    #[test]
    fn what_is_no_answer_is_an_error_and_takes_no_memory() {
        let frame = |length: u32, content: &[u8]| [&length.to_le_bytes()[..], content].concat();
        for (bytes, wanted) in [
            (frame(u32::MAX, b"x"), "a frame of 4294967295 bytes, more than 1048576"),
            (frame(3, b"abc and more"), "more than one frame"),
            (frame(4, b"abc"), "unexpected end of file"),
            (vec![1, 0], "unexpected end of file"),
            // A text of four billion bytes.
            (frame(5, b"\xff\xff\xff\xff\x0f"), "end of"),
            (frame(3, b"\x02\xff\xfe"), "UTF-8"),
        ] {
            let mut buffer = Vec::new();
            let error = received::<String>(&bytes, &mut buffer).unwrap_err().to_string();
            assert!(error.to_lowercase().contains(&wanted.to_lowercase()), "{bytes:?}: {error}");
            assert!(buffer.capacity() <= 2 * KEPT_BYTES, "{}", buffer.capacity());
        }
    }

    #[test]
    fn a_frame_that_comes_byte_by_byte_is_read_until_the_deadline() {
        let (mut from, to) = UnixStream::pair().unwrap();
        to.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut frame = Vec::new();
        send(&mut frame, &"a text", &mut Vec::new()).unwrap();
        let (last, first) = frame.split_last().unwrap();
        for byte in first {
            from.write_all(&[*byte]).unwrap();
        }
        let mut buffer = Vec::new();
        let soon = Some(Instant::now() + Duration::from_millis(50));
        let error = receive::<&str>(&to, 100, soon, &mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        from.write_all(first).unwrap();
        from.write_all(&[*last]).unwrap();
        assert_eq!(
            receive::<&str>(&to, 100, Some(Instant::now() + Duration::from_secs(60)), &mut buffer).unwrap(),
            "a text"
        );
    }
}
