//! The catalogue of golden images.

use std::path::Path;
use std::sync::Arc;

use regatta_core::batch::{Batch, StateChange};
use regatta_core::catalogue::{NamedFile, NamedImage};
use regatta_core::manifest::nearest;
use regatta_core::recovery::Origin;
use regatta_core::state::{ImageDigests, SetState};
use regatta_vmm::{Digest, GoldenImage, InstanceDir, StoredFile};
use tokio::sync::watch;

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::image_types::{
    GcFile, GcOutcome, ImageDiskInfo, ImageFileInfo, ImageInfo, ImportImageRequest, ImportProgress,
};
use crate::api::types::ErrorCode;
use crate::catalogue::{ImportPlan, PlannedFile, plan};
use crate::clock::now_ms;
use crate::images::{ImageProblem, SetImages, named_disk, named_file};
use regatta_util::chain;

/// Fewest digits of a digest that name a file.
const DIGITS_MIN: usize = 6;

/// The files of an image in the store, held until its name is written down: a
/// collection in between spares them.
#[derive(Default)]
struct Files {
    disk: Option<GoldenImage>,
    kernel: Option<StoredFile>,
    initramfs: Option<StoredFile>,
    firmware: Option<StoredFile>,
}

impl Fleet {
    pub(super) async fn take_image(
        &self,
        request: ImportImageRequest,
        progress: watch::Sender<ImportProgress>,
        actor: &str,
    ) -> Answer<ImageInfo> {
        let (source, replace) = (request.path.clone(), request.replace);
        let plan = tokio::task::spawn_blocking(move || plan(&request))
            .await
            .map_err(|why| error(ErrorCode::Internal, format!("the files cannot be looked at: {why}")))??;
        self.refuse_taken(&plan.name, replace).await?;
        let files = self.take_files(&plan, progress).await?;

        // Names are given one at a time: nobody else takes this one in between.
        let _one_at_a_time = self.naming.lock().await;
        self.refuse_taken(&plan.name, replace).await?;
        let image = named(plan, source, &files);
        let change = StateChange { images: vec![image.clone()], ..StateChange::default() };
        self.write_images(change).await?;
        tracing::info!(image = image.name, source = image.source, actor, "an image was imported");
        Ok(self.info(image))
    }

    async fn refuse_taken(&self, name: &str, replace: bool) -> Answer<()> {
        let wanted = name.to_owned();
        match self.read(move |store| store.image(&wanted)).await? {
            Some(_) if !replace => Err(error(
                ErrorCode::Conflict,
                format!(
                    "there is an image named {name} already; give another name (--name), or --replace it"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Takes all files into the store, one after the other.
    async fn take_files(&self, plan: &ImportPlan, progress: watch::Sender<ImportProgress>) -> Answer<Files> {
        let total_bytes = plan.total_bytes();
        let progress = Arc::new(progress);
        let mut before = 0;
        let mut watching = |file: &'static str, planned: &PlannedFile| {
            let (progress, start) = (Arc::clone(&progress), before);
            let end = start + planned.size_bytes;
            before = end;
            let tell = move |read: u64| {
                // A file that grows meanwhile is refused in the end.
                let done_bytes = (start + read).min(end);
                progress.send_replace(ImportProgress { file: file.to_owned(), done_bytes, total_bytes });
            };
            tell(0);
            tell
        };
        let store = &self.shared.node.images;
        let refuse = |why: regatta_vmm::ImageError| {
            let code = match why {
                regatta_vmm::ImageError::Write { .. } | regatta_vmm::ImageError::NoRoom { .. } => {
                    ErrorCode::Unavailable
                }
                _ => ErrorCode::Invalid,
            };
            error(code, format!("nothing was imported: {}", chain(&why)))
        };
        let mut files = Files::default();
        if let Some(planned) = &plan.disk {
            let tell = watching("disk", planned);
            files.disk = Some(store.import_watched(&planned.path, None, tell).await.map_err(refuse)?);
        }
        for (what, planned, slot) in [
            ("kernel", &plan.kernel, &mut files.kernel),
            ("initramfs", &plan.initramfs, &mut files.initramfs),
            ("firmware", &plan.firmware, &mut files.firmware),
        ] {
            if let Some(planned) = planned {
                let tell = watching(what, planned);
                *slot = Some(store.import_file_watched(&planned.path, None, tell).await.map_err(refuse)?);
            }
        }
        Ok(files)
    }

    async fn write_images(&self, state: StateChange) -> Answer<()> {
        let batch = Batch { state, ..Batch::default() };
        self.shared.commit(batch).await.map(drop).map_err(|why| {
            let message = format!("nothing was changed; the store cannot be written: {}", chain(&why));
            error(ErrorCode::Unavailable, message)
        })
    }

    /// Gives images their names back that the catalogue has lost, as the instances of a set say; what a name means already stays.
    pub(super) async fn name_images(
        &self,
        set: &str,
        origins: &[Origin],
        dry_run: bool,
        notes: &mut Vec<String>,
    ) {
        for Origin { manifest, image } in origins {
            let Some(name) = &manifest.image.name else { continue };
            match self.name_again(name, set, image, dry_run).await {
                Ok(note) => notes.extend(note),
                Err(why) => notes.push(format!("image {name} is not in the catalogue: {why}")),
            }
        }
    }

    async fn name_again(
        &self,
        name: &str,
        set: &str,
        digests: &ImageDigests,
        dry_run: bool,
    ) -> Result<Option<String>, String> {
        let _one_at_a_time = self.naming.lock().await;
        let wanted = name.to_owned();
        let known = self.read(move |store| store.image(&wanted)).await.map_err(|why| why.message)?;
        if let Some(known) = known {
            let same = ImageDigests { shared_disks: Vec::new(), ..digests.clone() } == known.digests();
            let note = || format!("image {name} has other files than those of {set}; it stays as it is");
            return Ok((!same).then(note));
        }
        let files = SetImages::load(&self.shared.node.images, digests).await;
        let image = files.named(name, format!("recovered from instances of {set}"), now_ms())?;
        if !dry_run {
            let change = StateChange { images: vec![image], ..StateChange::default() };
            self.write_images(change).await.map_err(|why| why.message)?;
        }
        Ok(Some(format!("image {name} is in the catalogue again")))
    }

    pub(super) async fn list_images(&self) -> Answer<Vec<ImageInfo>> {
        let images = self.read(|store| store.images()).await?;
        Ok(images.into_iter().map(|image| self.info(image)).collect())
    }

    pub(super) async fn find_image(&self, wanted: &str) -> Answer<ImageInfo> {
        let images = self.read(|store| store.images()).await?;
        if let Some(image) = images.iter().find(|image| image.name == wanted) {
            return Ok(self.info(image.clone()));
        }
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted).to_ascii_lowercase();
        if digits.len() >= DIGITS_MIN && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let prefix = format!("sha256:{digits}");
            let has = |image: &&NamedImage| image.files().any(|(_, file)| file.digest.starts_with(&prefix));
            match &images.iter().filter(has).collect::<Vec<_>>()[..] {
                [image] => return Ok(self.info((*image).clone())),
                [] => {}
                several => {
                    let names: Vec<&str> = several.iter().map(|image| image.name.as_str()).collect();
                    let message = format!("several images have a file {wanted}: {}", names.join(", "));
                    return Err(error(ErrorCode::Conflict, message));
                }
            }
        }
        Err(error(ErrorCode::NotFound, format!("no image is named {wanted}; {}", advice(wanted, &images))))
    }

    pub(super) async fn forget_image(&self, name: &str, actor: &str) -> Answer<ImageInfo> {
        let _one_at_a_time = self.naming.lock().await;
        let images = self.read(|store| store.images()).await?;
        let Some(image) = images.iter().find(|image| image.name == name) else {
            return Err(error(
                ErrorCode::NotFound,
                format!("no image is named {name}; {}", advice(name, &images)),
            ));
        };
        self.write_images(StateChange { removed_images: vec![name.to_owned()], ..StateChange::default() })
            .await?;
        tracing::info!(image = name, actor, "the name of an image was removed");
        Ok(self.info(image.clone()))
    }

    /// Everything that the catalogue, a set or an instance uses is kept. What is
    /// being imported or launched is held open, and the store spares that itself.
    pub(super) async fn collect(&self, dry_run: bool, actor: &str) -> Answer<GcOutcome> {
        let (images, sets) = self.read(|store| Ok((store.images()?, store.load()?))).await?;
        let instances = self.shared.dirs.instances.clone();
        let run_on = tokio::task::spawn_blocking(move || in_use_by_instances(&instances))
            .await
            .map_err(|why| error(ErrorCode::Internal, why.to_string()))?
            .map_err(|why| error(ErrorCode::Unavailable, format!("nothing was removed: {why}")))?;
        let named = images.iter().map(NamedImage::digests);
        let mut keep = run_on;
        // A rollback of an upgrade goes back to what instances were made of before.
        let of_set = |state: &SetState| {
            std::iter::once(&state.image).chain(state.images.values()).cloned().collect::<Vec<_>>()
        };
        for digests in named.chain(sets.iter().flat_map(|stored| of_set(&stored.state))) {
            let ImageDigests { disk, kernel, initramfs, firmware, shared_disks, cmdline: _ } = digests;
            for digest in [disk, kernel, initramfs, firmware].into_iter().flatten().chain(shared_disks) {
                keep.push(digest.parse().map_err(|why: regatta_vmm::DigestError| {
                    error(ErrorCode::Internal, format!("nothing was removed, the store is damaged: {why}"))
                })?);
            }
        }
        let request = self.shared.node.images.prune(keep, dry_run).await;
        let removed = request
            .map_err(|why| error(ErrorCode::Unavailable, format!("not all was removed: {}", chain(&why))))?;
        let freed_bytes = removed.iter().map(|file| file.disk_bytes).sum();
        if !dry_run {
            tracing::info!(files = removed.len(), freed_bytes, actor, "unused image files were removed");
        }
        let file = |file: &regatta_vmm::UnusedFile| GcFile {
            digest: file.digest.to_string().into(),
            disk_bytes: file.disk_bytes,
        };
        Ok(GcOutcome { dry_run, removed: removed.iter().map(file).collect(), freed_bytes })
    }

    /// What a name in a manifest means now.
    pub(super) async fn resolve_image(&self, name: &str) -> Answer<Result<ImageDigests, ImageProblem>> {
        let images = self.read(|store| store.images()).await?;
        Ok(match images.iter().find(|image| image.name == name) {
            Some(image) => Ok(image.digests()),
            None => Err(ImageProblem {
                pointer: "/image/name".to_owned(),
                message: format!("no image of the catalogue is named `{name}`"),
                hint: Some(advice(name, &images)),
            }),
        })
    }

    fn info(&self, image: NamedImage) -> ImageInfo {
        let size_bytes = image.files().map(|(_, file)| file.size_bytes).sum();
        let uses =
            |handle: &crate::set::SetHandle| handle.view().state.set.image.name.as_ref() == Some(&image.name);
        let used_by =
            self.sets_now().iter().filter(|(_, set)| uses(set)).map(|(name, _)| name.clone()).collect();
        let file = |file: NamedFile| ImageFileInfo { digest: file.digest, size_bytes: file.size_bytes };
        ImageInfo {
            name: image.name,
            description: image.description,
            source: image.source,
            imported_ms: image.imported_ms,
            disk: image.disk.map(|disk| ImageDiskInfo {
                digest: disk.file.digest,
                size_bytes: disk.file.size_bytes,
                format: disk.format,
                virtual_size_bytes: disk.virtual_size_bytes,
            }),
            kernel: image.kernel.map(file),
            initramfs: image.initramfs.map(file),
            cmdline: image.cmdline,
            firmware: image.firmware.map(file),
            size_bytes,
            used_by,
        }
    }
}

fn named(plan: ImportPlan, source: String, files: &Files) -> NamedImage {
    NamedImage {
        name: plan.name,
        description: plan.description,
        source,
        imported_ms: now_ms(),
        disk: files.disk.as_ref().map(named_disk),
        kernel: files.kernel.as_ref().map(named_file),
        initramfs: files.initramfs.as_ref().map(named_file),
        cmdline: plan.cmdline,
        firmware: files.firmware.as_ref().map(named_file),
    }
}

/// Which stored files the instances stand on, also those that outlived their
/// set's image. Blocking.
fn in_use_by_instances(instances: &Path) -> Result<Vec<Digest>, String> {
    let mut used = Vec::new();
    for dir in InstanceDir::list(instances).map_err(|why| chain(&why))? {
        used.extend(dir.images_in_use().map_err(|why| chain(&why))?.all());
    }
    used.sort_unstable();
    used.dedup();
    Ok(used)
}

/// What there is instead of a name that is not there.
fn advice(wanted: &str, images: &[NamedImage]) -> String {
    let names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
    if names.is_empty() {
        return "there is none yet: `regatta image import` makes one".to_owned();
    }
    let near = nearest(wanted, names.iter().copied()).map(|near| format!("did you mean {near}? "));
    format!("{}there are: {}", near.unwrap_or_default(), names.join(", "))
}
