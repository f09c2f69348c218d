//! What an instance is made of: all that a manifest says of it, and the content of its image. Instances whose model differs from
//! that of the manifest in force are outdated; an upgrade replaces them.

use crate::manifest::{FileRef, ScaleSet, affects_new_instances_only, diff};
use crate::state::ImageDigests;
use crate::{drift, manifest::Change};

/// Fields in which the instances of two manifests differ, as paths of the manifest; content of images by what it is, not by
/// where it lies. Digests that are not known, of generations that an earlier version stored, say nothing.
#[must_use]
pub fn differences(
    (old, old_image): (&ScaleSet, Option<&ImageDigests>),
    (new, new_image): (&ScaleSet, Option<&ImageDigests>),
) -> Vec<String> {
    let replaces = |change: &Change| affects_new_instances_only(&change.path);
    let (mut paths, changes) = match (old_image, new_image) {
        (Some(old_image), Some(new_image)) => {
            let content = drift::of_image(old_image, new_image).into_iter().map(|drift| drift.path);
            (content.collect(), diff(&without_files(old), &without_files(new)))
        }
        _ => (Vec::new(), diff(old, new)),
    };
    paths.extend(changes.into_iter().filter(replaces).map(|change| change.path));
    paths
}

/// The manifest without where its files lie.
fn without_files(set: &ScaleSet) -> ScaleSet {
    let mut set = set.clone();
    let nowhere = || FileRef { path: String::new(), sha256: None };
    let image = &mut set.image;
    if image.name.is_some() {
        image.name = Some(String::new());
    }
    let files = [&mut image.kernel, &mut image.initramfs, &mut image.firmware].into_iter().flatten();
    let disks = image.disk.iter_mut().map(|disk| &mut disk.file);
    let shared = set.instance.shared_disks.iter_mut().map(|disk| &mut disk.file);
    files.chain(disks).chain(shared).for_each(|file| *file = nowhere());
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::manifest;

    fn image(kernel: &str) -> ImageDigests {
        ImageDigests { kernel: Some(kernel.into()), ..ImageDigests::default() }
    }

    #[test]
    fn what_instances_are_made_of_counts_and_nothing_else() {
        let (old, image) = (manifest(""), image("a"));
        let differing = |more: &str| differences((&old, Some(&image)), (&manifest(more), Some(&image)));
        assert!(differing("").is_empty());
        assert!(differing("tick: 2s\nhealth: { tcp: true }\nrepair: { grace: 1s }").is_empty());
        assert!(differing("instance: { boot_timeout: 5s, shutdown_timeout: 1s }").is_empty());
        assert_eq!(differing("instance: { vcpus: 2, memory: 64MiB }"), ["instance.vcpus", "instance.memory"]);
        assert_eq!(differing("network: { mode: loopback, pool: 127.40.0.0/24, port: 81 }"), ["network.port"]);
    }

    #[test]
    fn an_image_is_what_is_in_it() {
        let (here, there) = (manifest("image: { kernel: a }"), manifest("image: { kernel: b }"));
        let (one, other) = (image("1"), image("2"));
        assert!(differences((&here, Some(&one)), (&there, Some(&one))).is_empty(), "only its place differs");
        assert_eq!(differences((&here, Some(&one)), (&here, Some(&other))), ["image.kernel"]);
        assert!(differences((&here, None), (&here, Some(&other))).is_empty(), "nobody knows what it was");
        assert_eq!(differences((&here, None), (&there, Some(&other))), ["image.kernel.path"]);
    }
}
