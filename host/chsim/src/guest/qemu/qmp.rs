//! QEMU's machine protocol: one JSON object a line. Commands are sent by the VMM's thread, everything is received by the
//! guest's thread, which hands answers back to whoever waits for them.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// A longer line is not an answer of QEMU's.
const MAX_LINE_BYTES: usize = 8 << 20;

/// A command came to nothing.
#[derive(Debug, Error)]
pub(crate) enum QmpError {
    /// QEMU said no.
    #[error("qemu refused `{command}`: {reason}")]
    Refused { command: &'static str, reason: String },
    /// It said nothing.
    #[error("qemu did not answer `{command}` within {} s", .within.as_secs())]
    Silent { command: &'static str, within: Duration },
    /// It has ended.
    #[error("qemu ended before it answered `{command}`")]
    Gone { command: &'static str },
}

/// What is not the answer to a waiting command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Event {
        name: String,
        data: Value,
    },
    /// The answer to [`Qmp::post`]; `None` when QEMU refused.
    Posted {
        tag: String,
        value: Option<Value>,
    },
}

#[derive(Debug, Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<Value>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

type Answer = Result<Value, String>;

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    commands: HashMap<u64, mpsc::SyncSender<Answer>>,
    gone: bool,
}

/// The sending half, and the list of those who wait.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: Mutex<UnixStream>,
    waiting: Mutex<Waiting>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream: Mutex::new(stream), waiting: Mutex::default() }
    }

    /// Sends a command and waits for its answer. Never call it on the thread that receives.
    pub(crate) fn execute(
        &self,
        command: &'static str,
        arguments: &Value,
        within: Duration,
    ) -> Result<Value, QmpError> {
        let (sender, answer) = mpsc::sync_channel(1);
        let id = {
            let mut waiting = locked(&self.waiting);
            if waiting.gone {
                return Err(QmpError::Gone { command });
            }
            waiting.next += 1;
            let id = waiting.next;
            waiting.commands.insert(id, sender);
            id
        };
        let sent = self.send(command, arguments, json!(id));
        let outcome = match sent {
            Ok(()) => match answer.recv_timeout(within) {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(reason)) => Err(QmpError::Refused { command, reason }),
                Err(mpsc::RecvTimeoutError::Timeout) => Err(QmpError::Silent { command, within }),
                Err(mpsc::RecvTimeoutError::Disconnected) => Err(QmpError::Gone { command }),
            },
            Err(_) => Err(QmpError::Gone { command }),
        };
        locked(&self.waiting).commands.remove(&id);
        outcome
    }

    /// Sends a command whose answer comes as [`Incoming::Posted`] with this tag.
    pub(crate) fn post(&self, tag: &str, command: &str, arguments: &Value) -> io::Result<()> {
        self.send(command, arguments, json!(tag))
    }

    fn send(&self, command: &str, arguments: &Value, id: Value) -> io::Result<()> {
        let mut line = json!({"execute": command, "arguments": arguments, "id": id}).to_string();
        line.push('\n');
        locked(&self.stream).write_all(line.as_bytes())
    }

    /// Takes in one received line; answers go to those who wait for them.
    pub(crate) fn receive(&self, line: &[u8]) -> Option<Incoming> {
        let line: Line = serde_json::from_slice(line).ok()?;
        if let Some(name) = line.event {
            return Some(Incoming::Event { name, data: line.data });
        }
        match line.id? {
            Value::String(tag) => Some(Incoming::Posted { tag, value: line.value }),
            id => {
                let sender = locked(&self.waiting).commands.remove(&id.as_u64()?)?;
                let answer = match line.error {
                    Some(refusal) => Err(refusal.desc),
                    None => Ok(line.value.unwrap_or_default()),
                };
                // Whoever waited has given up.
                let _ = sender.send(answer);
                None
            }
        }
    }

    /// QEMU has ended: nobody waits any longer.
    pub(crate) fn hang_up(&self) {
        let mut waiting = locked(&self.waiting);
        waiting.gone = true;
        waiting.commands.clear();
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Adds bytes; returns the lines that are complete with them, without their ends. An endless line is dropped.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.0.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = self.0.drain(..=end).collect();
            line.pop();
            lines.push(line);
        }
        if self.0.len() > MAX_LINE_BYTES {
            self.0.clear();
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn answers_find_those_who_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qmp = Qmp::new(ours);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut lines = BufReader::new(theirs).lines().map_while(Result::ok);
                for answer in
                    [r#""return": {"actual": 5}"#, r#""error": {"class": "GenericError", "desc": "no"}"#]
                {
                    let sent: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
                    let line = format!("{{{answer}, \"id\": {}}}", sent["id"]);
                    assert_eq!(qmp.receive(line.as_bytes()), None);
                }
                lines.next().unwrap();
                qmp.hang_up();
            });
            let value = qmp.execute("query-balloon", &json!({}), LONG).unwrap();
            assert_eq!(value["actual"], 5);
            let refused = qmp.execute("cont", &json!({}), LONG).unwrap_err();
            assert_eq!(refused.to_string(), "qemu refused `cont`: no");
            assert!(matches!(qmp.execute("stop", &json!({}), LONG), Err(QmpError::Gone { .. })));
        });
        assert!(matches!(qmp.execute("stop", &json!({}), LONG), Err(QmpError::Gone { .. })));
    }

    #[test]
    fn events_and_posted_answers_are_handed_on() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let qmp = Qmp::new(ours);
        let event = qmp.receive(br#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true}}"#);
        assert_eq!(
            event,
            Some(Incoming::Event { name: "SHUTDOWN".to_owned(), data: json!({"guest": true}) })
        );
        let posted = qmp.receive(br#"{"return": {"a": 1}, "id": "x"}"#);
        assert_eq!(posted, Some(Incoming::Posted { tag: "x".to_owned(), value: Some(json!({"a": 1})) }));
        assert_eq!(qmp.receive(br#"{"QMP": {}}"#), None);
        assert_eq!(qmp.receive(b"garbage"), None);
        let silent = qmp.execute("stop", &json!({}), Duration::from_millis(1)).unwrap_err();
        assert!(matches!(silent, QmpError::Silent { .. }), "{silent}");
    }

    #[test]
    fn lines_are_cut_wherever_they_arrive() {
        let mut lines = Lines::default();
        assert!(lines.push(b"{\"a\"").is_empty());
        assert_eq!(lines.push(b":1}\r\nx\ny"), [b"{\"a\":1}\r".to_vec(), b"x".to_vec()]);
        assert_eq!(lines.push(b"\n"), [b"y".to_vec()]);
    }
}
