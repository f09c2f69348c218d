//! Everything on disk that a launch needs, and how its VMM is contained. The blocking half of a launch.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::attempt::{CancelOnDrop, DirGuard};
use super::dir::{DirError, InstanceDir};
use super::disks::OwnDisks;
use super::error::LaunchError;
use super::spec::{LaunchSpec, StartFrom};
use super::uses;
use crate::containment::{Containment, Isolation, Needs, Plan};
use crate::overlay::{self, Backing, OverlayError, PreparedDisk};
use crate::process::VmmProcess;
use crate::snapshot::Links;

/// What [`prepare`] has made and decided.
pub(crate) struct Prepared {
    pub(crate) dir: DirGuard,
    pub(crate) root: Option<PreparedDisk>,
    pub(crate) plan: Plan,
}

/// Makes the directory and everything in it, and decides how the VMM is contained.
pub(crate) async fn prepare(
    spec: &LaunchSpec,
    isolation: &Isolation,
    vmm: &Path,
    cancel: &CancelOnDrop,
) -> Result<Prepared, LaunchError> {
    let dir = spec.dir.clone();
    let id = spec.id.clone();
    let disks = DiskPlan::of(spec);
    let files = uses::files_of(spec);
    let identity = spec.identity.clone();
    let needs = Needs::of(spec, vmm);
    let own_dir = matches!(spec.start, StartFrom::BootForSnapshot).then(|| dir.snapshot());
    let links = match &spec.start {
        StartFrom::Snapshot(snapshot) => {
            Some(Links::new(snapshot, &dir, spec.root.as_ref().map(|root| root.overlay)))
        }
        _ => None,
    };
    let (isolation, required) = (isolation.clone(), spec.require_isolation);
    let cancelled = Arc::clone(&cancel.0);
    blocking(move || {
        // The launch may have been dropped while this waited for a thread: then nothing is made any more, and no one reads the answer.
        if cancelled.load(Ordering::Relaxed) {
            return Err(LaunchError::Spec { id, why: "it was cancelled" });
        }
        let plan = isolation.plan(&needs);
        refuse_root(&id, &isolation, &plan.containment)?;
        require(&id, required, &plan.containment)?;
        let failed = |source| LaunchError::Dir { id: id.clone(), source };
        dir.prepare().map_err(failed)?;
        let guard = DirGuard(Some(dir.clone()));
        if let Some(identity) = identity {
            dir.note_identity(&identity).map_err(failed)?;
        }
        uses::note(&dir, &files).map_err(failed)?;
        if let Some(path) = own_dir {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .map_err(|source| failed(DirError::Io { what: "make directory", path, source }))?;
        }
        if let Some(Err(error)) = links.map(|links| links.make()) {
            let why = format!("its snapshot cannot be linked to: {error}");
            return Err(LaunchError::Snapshot { id, why });
        }
        let root = disks.prepare(&cancelled)?;
        plan.apply(&dir).map_err(failed)?;
        Ok(Prepared { dir: guard, root, plan })
    })
    .await
}

/// Refuses to run a VMM as root, unless that was allowed.
fn refuse_root(id: &str, isolation: &Isolation, containment: &Containment) -> Result<(), LaunchError> {
    match isolation.refusal(containment) {
        Some(why) => Err(LaunchError::Root { id: id.to_owned(), why }),
        None => Ok(()),
    }
}

/// Refuses what is not contained completely, if that was asked for. What is only requested counts neither way: it is a wall that nobody can
/// rely on, and the rest must do without it.
fn require(id: &str, required: bool, containment: &Containment) -> Result<(), LaunchError> {
    let missing = containment.missing_text();
    if required && !missing.is_empty() {
        return Err(LaunchError::Isolation { id: id.to_owned(), missing });
    }
    Ok(())
}

/// Compares what was intended with what the kernel says of the running VMM, and records the result.
///
/// Takes well under a millisecond, and is not put on another thread for it: there it could go on after its launch was dropped, and write
/// into a directory that is being removed. Nobody else can have put anything in the record's place that would be waited for.
pub(crate) fn confirm(
    spec: &LaunchSpec,
    mut containment: Containment,
    process: &VmmProcess,
    isolation: &Isolation,
) -> Result<(), LaunchError> {
    containment.verify(process.pid());
    containment.save(&spec.dir).map_err(|source| LaunchError::Dir { id: spec.id.clone(), source })?;
    refuse_root(&spec.id, isolation, &containment)?;
    require(&spec.id, spec.require_isolation, &containment)
}

/// Everything that is made on disk for an instance, apart from its specification, for a blocking thread.
struct DiskPlan {
    id: String,
    dir: InstanceDir,
    root: Option<RootPlan>,
    others: OwnDisks,
}

impl DiskPlan {
    fn of(spec: &LaunchSpec) -> Self {
        let (id, dir) = (spec.id.clone(), spec.dir.clone());
        Self { id, dir, root: root_plan(spec), others: OwnDisks::of(spec) }
    }

    fn prepare(&self, cancelled: &AtomicBool) -> Result<Option<PreparedDisk>, LaunchError> {
        let id = || self.id.clone();
        let make = |plan: &RootPlan| {
            let _span = tracing::debug_span!("overlay", instance = self.id).entered();
            plan.prepare(&self.dir, cancelled).map_err(|source| LaunchError::Overlay { id: id(), source })
        };
        let root = self.root.as_ref().map(make).transpose()?;
        self.others.prepare().map_err(|source| LaunchError::Disk { id: id(), source })?;
        Ok(root)
    }
}

struct RootPlan {
    backing: Backing,
    kind: overlay::OverlayKind,
    size_bytes: Option<u64>,
}

impl RootPlan {
    fn prepare(&self, dir: &InstanceDir, cancelled: &AtomicBool) -> Result<PreparedDisk, OverlayError> {
        overlay::prepare(dir.path(), self.kind, &self.backing, self.size_bytes, cancelled)
    }
}

fn root_plan(spec: &LaunchSpec) -> Option<RootPlan> {
    spec.root.as_ref().map(|root| RootPlan {
        backing: snapshot_backing(spec, root.overlay).unwrap_or_else(|| Backing {
            path: root.image.path().to_path_buf(),
            format: root.image.format(),
            virtual_size_bytes: root.image.virtual_size_bytes(),
        }),
        kind: root.overlay,
        size_bytes: root.size_bytes,
    })
}

/// The disk of the snapshot that an instance is restored from: what its guest believes to be on its own.
fn snapshot_backing(spec: &LaunchSpec, kind: overlay::OverlayKind) -> Option<Backing> {
    let StartFrom::Snapshot(snapshot) = &spec.start else { return None };
    let (path, root) = snapshot.root()?;
    let path = match kind {
        overlay::OverlayKind::Qcow2 => spec.dir.base(root.format),
        overlay::OverlayKind::Copy => path,
    };
    Some(Backing { path, format: root.format, virtual_size_bytes: root.virtual_size_bytes })
}

/// Size of the root disk as the guest sees it, bytes.
pub(crate) fn root_size_bytes(spec: &LaunchSpec) -> Option<u64> {
    let plan = root_plan(spec)?;
    Some(plan.size_bytes.unwrap_or(plan.backing.virtual_size_bytes))
}

pub(crate) fn planned_root(spec: &LaunchSpec) -> Option<PreparedDisk> {
    let plan = root_plan(spec)?;
    Some(overlay::planned(spec.dir.path(), plan.kind, &plan.backing))
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down: there is no one left to answer to.
            Err(_) => std::future::pending().await,
        },
    }
}
