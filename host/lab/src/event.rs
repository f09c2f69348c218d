//! What happens next in a world.

use regatta_core::agent::{Input as AgentInput, Key, StopOrder, Want};
use regatta_core::batch::Batch;
use regatta_core::machine::Input;

/// Something that happens at a moment. Those of a daemon carry its number: what was under way in one that has ended is lost.
#[derive(Debug)]
pub(crate) enum Event {
    /// Of this daemon's process.
    Daemon(u64, DaemonEvent),
    /// A daemon is started.
    Start,
    /// Something goes wrong, or somebody wants something.
    Chaos,
    /// The store works again.
    StoreBack,
}

/// Something that happens in a daemon's process.
#[derive(Debug)]
pub(crate) enum DaemonEvent {
    /// A tick is due.
    Tick(Shell),
    /// Something reaches a machine.
    Input(Shell, Box<Input>),
    /// A batch reaches the store.
    Commit(Shell, Box<Batch>),
    /// Something reaches the agent.
    Agent(Key, Box<ToAgent>),
    /// The next step of a launch, of the instance with that unique id.
    Launch(Key, String, LaunchStep),
    /// A stop comes to its end.
    Stop(Key, StopOrder),
    /// A probe is due, of the watch with that number.
    Probe(Key, u64),
    /// Guests of a set are scraped.
    Scrape(Shell),
    /// A set is read from the store again.
    Reload(String),
}

/// A run of a set's machine: its number is never used again.
pub(crate) type Shell = u64;

/// What reaches an agent.
#[derive(Debug, Clone)]
pub(crate) enum ToAgent {
    /// A want, and which of the instance's it is.
    Want(u64, Want),
    Input(AgentInput),
}

/// Steps of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaunchStep {
    Process,
    Boot,
    GiveUp,
}
