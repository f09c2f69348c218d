//! The task that owns one VMM, from its launch to the removal of its directory.
//!
//! Others only ask it to stop. A stop preempts a launch: the launch is dropped
//! and takes with it what it had made.

use std::sync::Arc;
use std::time::Duration;

use regatta_core::agent::StopOrder;
use regatta_vmm::{InstanceDir, LaunchError, LaunchSpec, StartFrom, StopHow, Stopped, Vmm, VmmHost};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use regatta_util::{Said, chain};

/// Between two tries to remove an instance that resists.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What a driver tells its set.
#[derive(Debug)]
pub(crate) enum News {
    /// The launch has begun.
    LaunchStarted,
    /// The guest boots.
    Booted(Arc<Vmm>),
    /// The launch failed, and nothing of it is left.
    LaunchFailed(String),
    /// The VMM ended unasked.
    Exited(String),
    /// The guest could not be restarted.
    NotRestarted(String),
    /// The removal does not succeed; it is tried again.
    Stuck(String),
    /// Process, overlay and directory are gone; with what there is to say about that.
    Cleaned(Option<String>),
}

/// What a driver begins with.
#[derive(Debug)]
pub(super) enum Job {
    /// Make the instance.
    Launch(Box<LaunchSpec>),
    /// Watch over one that runs.
    Watch(Arc<Vmm>),
    /// Nothing runs; remove what lies about when asked to stop.
    Remains {
        /// Where.
        dir: InstanceDir,
        /// Why nothing runs: its logs are kept with this text.
        failure: Option<String>,
    },
}

/// A handle on the task.
#[derive(Debug)]
pub(super) struct Driver {
    stop: watch::Sender<Option<StopOrder>>,
    task: JoinHandle<()>,
}

impl Driver {
    /// Starts a driver; its news go to `news` with the instance's id.
    pub(super) fn start(id: u32, job: Job, vmms: Arc<VmmHost>, news: mpsc::Sender<(u32, News)>) -> Self {
        let (stop, stopped) = watch::channel(None);
        let desk = Desk { id, news, stop: stopped };
        Self { stop, task: tokio::spawn(drive(job, vmms, desk)) }
    }

    /// Asks for the end of the instance. Asking again changes nothing.
    pub(super) fn stop(&self, order: StopOrder) {
        self.stop.send_if_modified(|asked| {
            let first = asked.is_none();
            if first {
                *asked = Some(order);
            }
            first
        });
    }
}

impl Drop for Driver {
    /// A driver that is dropped without a stop leaves a running VMM alone.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where orders come in and news go out.
struct Desk {
    id: u32,
    news: mpsc::Sender<(u32, News)>,
    stop: watch::Receiver<Option<StopOrder>>,
}

impl Desk {
    async fn tell(&self, news: News) {
        // A set that no longer listens has ended with the daemon.
        let _ = self.news.send((self.id, news)).await;
    }

    /// Waits for the order to stop.
    async fn stop_asked(&mut self) -> StopOrder {
        let asked = self.stop.wait_for(Option::is_some).await.map(|asked| asked.clone().unwrap_or_default());
        match asked {
            Ok(order) => order,
            Err(_) => std::future::pending().await,
        }
    }
}

async fn drive(job: Job, vmms: Arc<VmmHost>, mut desk: Desk) {
    let (dir, vmm, mut failure) = match job {
        Job::Launch(spec) => {
            let vmm = launch(&spec, &vmms, &mut desk).await;
            (spec.dir, vmm, None)
        }
        Job::Watch(vmm) => (vmm.dir().clone(), Some(vmm), None),
        Job::Remains { dir, failure } => (dir, None, failure),
    };
    let order = match &vmm {
        Some(vmm) => {
            tokio::select! {
                biased;
                order = desk.stop_asked() => order,
                exit = vmm.exited() => {
                    let how = format!("the VMM ended with {exit}");
                    desk.tell(News::Exited(how.clone())).await;
                    failure = Some(how);
                    desk.stop_asked().await
                }
            }
        }
        None => desk.stop_asked().await,
    };
    // Of a VMM that ended by itself, the logs are of interest.
    let running = vmm.as_deref().filter(|_| failure.is_none());
    let order = StopOrder { failure: order.failure.or(failure), ..order };
    let note = remove(&dir, running, order, &vmms, &desk).await;
    desk.tell(News::Cleaned(note)).await;
}

async fn launch(spec: &LaunchSpec, vmms: &VmmHost, desk: &mut Desk) -> Option<Arc<Vmm>> {
    desk.tell(News::LaunchStarted).await;
    let mut launched = launch_unless_stopped(spec, vmms, desk).await?;
    if let Err(error @ LaunchError::Restore { .. }) = &launched {
        // At once, and once: the guest is wanted however it comes to run.
        let why = chain(error);
        tracing::warn!(instance = spec.id, why, "it boots instead");
        let cold = LaunchSpec { start: StartFrom::BootInstead(why), ..spec.clone() };
        launched = launch_unless_stopped(&cold, vmms, desk).await?;
    }
    match launched {
        Ok(vmm) => {
            let vmm = Arc::new(vmm);
            desk.tell(News::Booted(Arc::clone(&vmm))).await;
            Some(vmm)
        }
        Err(error) => {
            desk.tell(News::LaunchFailed(chain(&error))).await;
            None
        }
    }
}

async fn launch_unless_stopped(
    spec: &LaunchSpec,
    vmms: &VmmHost,
    desk: &mut Desk,
) -> Option<Result<Vmm, LaunchError>> {
    tokio::select! {
        biased;
        _ = desk.stop_asked() => None,
        launched = vmms.launch(spec) => Some(launched),
    }
}

/// Removes all that is left. Returns what there is to say about it.
async fn remove(
    dir: &InstanceDir,
    running: Option<&Vmm>,
    mut order: StopOrder,
    vmms: &VmmHost,
    desk: &Desk,
) -> Option<String> {
    let mut pause = RETRY_MIN;
    let mut note = None;
    loop {
        let removed = match running {
            Some(vmm) => end_and_remove(vmm, &mut order, vmms).await,
            // Its logs are kept once, however often the removal is tried.
            None => discard(dir, &mut order, vmms).await.map(|()| None),
        };
        match removed {
            Ok(new) => return new.or(note),
            Err(Resists { note: new, why }) => {
                note = new.or(note);
                desk.tell(News::Stuck(why)).await;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// A removal that did not succeed.
struct Resists {
    /// What there is to say all the same.
    note: Option<String>,
    /// Why.
    why: String,
}

async fn end_and_remove(vmm: &Vmm, order: &mut StopOrder, vmms: &VmmHost) -> Result<Option<String>, Resists> {
    let resists = |why| Resists { note: None, why };
    let grace = Duration::from_millis(order.grace_ms);
    if order.failure.is_none() {
        let stopped = vmm.stop(grace).await.map_err(|error| resists(chain(&error)))?;
        return Ok(ignored_button(stopped, grace));
    }
    let stopped = vmm.end(grace).await.map_err(|error| resists(chain(&error)))?;
    let note = ignored_button(stopped, grace);
    discard(vmm.dir(), order, vmms)
        .await
        .map_err(|Resists { why, .. }| Resists { note: note.clone(), why })?;
    Ok(note)
}

async fn discard(dir: &InstanceDir, order: &mut StopOrder, vmms: &VmmHost) -> Result<(), Resists> {
    let failure = order.failure.take();
    vmms.discard(dir, failure.map(Said::from).as_ref())
        .await
        .map_err(|error| Resists { note: None, why: chain(&error) })
}

/// How a VMM ended, in words.
pub(super) fn told(how: StopHow) -> &'static str {
    match how {
        StopHow::AlreadyGone => "it had ended",
        StopHow::PowerButton => "its guest shut down",
        StopHow::Terminated => "its VMM was stopped",
        StopHow::Killed => "its VMM was killed",
    }
}

fn ignored_button(stopped: Stopped, grace: Duration) -> Option<String> {
    let forced = matches!(stopped.how, StopHow::Terminated | StopHow::Killed);
    (forced && !grace.is_zero()).then(|| format!("did not shut down within {grace:?}; killed"))
}
