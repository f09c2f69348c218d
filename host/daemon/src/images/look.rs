//! What a manifest's image is, without taking it into the store.

use std::path::Path;

use regatta_core::digest::Digest;
use regatta_core::manifest::{FileRef, ScaleSet};
use regatta_core::state::ImageDigests;
use regatta_util::chain;
use regatta_vmm::ImageStore;

use super::{ImageProblem, SetImages, digest_of, note};

impl SetImages {
    /// What [`SetImages::take`] would take, by digest. Nothing is written.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn look(
        store: &ImageStore,
        set: &ScaleSet,
        named: Option<Result<ImageDigests, ImageProblem>>,
    ) -> Result<ImageDigests, Vec<ImageProblem>> {
        let mut problems = Vec::new();
        let mut digests = ImageDigests::default();
        match named {
            None => {
                if let Some(disk) = &set.image.disk
                    && let Some((digest, virtual_size_bytes)) =
                        note(look_disk(store, &disk.file).await, "/image/disk", &mut problems)
                {
                    digests.disk = Some(digest);
                    problems.extend(too_small(set, virtual_size_bytes));
                }
                let image = &set.image;
                digests.kernel =
                    look_file(store, image.kernel.as_ref(), "/image/kernel", &mut problems).await;
                digests.initramfs =
                    look_file(store, image.initramfs.as_ref(), "/image/initramfs", &mut problems).await;
                digests.firmware =
                    look_file(store, image.firmware.as_ref(), "/image/firmware", &mut problems).await;
            }
            Some(Ok(stored)) => {
                if let Some(images) = note(Self::open(store, &stored).await, "/image/name", &mut problems) {
                    problems
                        .extend(images.disk.as_ref().and_then(|it| too_small(set, it.virtual_size_bytes())));
                    digests = images.digests();
                }
            }
            Some(Err(problem)) => problems.push(problem),
        }
        for (index, disk) in set.instance.shared_disks.iter().enumerate() {
            let pointer = format!("/instance/shared_disks/{index}");
            let found = note(look_disk(store, &disk.file).await, &pointer, &mut problems);
            digests.shared_disks.extend(found.map(|(digest, _)| digest));
        }
        if problems.is_empty() { Ok(digests) } else { Err(problems) }
    }
}

/// An instance's own disk cannot be smaller than the image that it is made from.
pub(super) fn too_small(set: &ScaleSet, virtual_size_bytes: u64) -> Option<ImageProblem> {
    set.image.disk_size_bytes().filter(|wanted| *wanted < virtual_size_bytes)?;
    let size = regatta_core::manifest::units::format_size_bytes(virtual_size_bytes);
    let pointer = if set.image.name.is_some() { "/image/size" } else { "/image/disk/size" };
    let message = format!("the image is larger, it has {size}");
    Some(ImageProblem { pointer: pointer.to_owned(), message, hint: None })
}

async fn look_disk(store: &ImageStore, file: &FileRef) -> Result<(Digest, u64), String> {
    let found = store.look(Path::new(&file.path), digest_of(file)?).await;
    found.map(|(digest, size_bytes)| (digest.to_string().into(), size_bytes)).map_err(|error| chain(&error))
}

async fn look_file(
    store: &ImageStore,
    file: Option<&FileRef>,
    pointer: &str,
    problems: &mut Vec<ImageProblem>,
) -> Option<Digest> {
    let file = file?;
    let found = match digest_of(file) {
        Ok(expected) => store.look_file(Path::new(&file.path), expected).await.map_err(|error| chain(&error)),
        Err(why) => Err(why),
    };
    note(found, pointer, problems).map(|digest| digest.to_string().into())
}
