//! What differs from the manifest though its text is the same: content that was rebuilt at its path, and policies that were
//! swapped.

use serde_json::Value;

use crate::digest::Digest;
use crate::manifest::PolicySpec;
use crate::state::{ImageDigests, PolicyActivation};

/// Content in force, and content that the manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// Of what, as paths of manifest changes are written.
    pub path: String,
    /// What is in force.
    pub before: Option<Value>,
    /// What the manifest names.
    pub after: Option<Value>,
}

/// Files of the image by their digests.
#[must_use]
pub fn of_image(old: &ImageDigests, new: &ImageDigests) -> Vec<Drift> {
    let digest = |digest: &Option<Digest>| digest.clone().map(Value::from);
    let text = |text: &Option<String>| text.clone().map(Value::from);
    let files = [
        ("image.disk", digest(&old.disk), digest(&new.disk)),
        ("image.kernel", digest(&old.kernel), digest(&new.kernel)),
        ("image.initramfs", digest(&old.initramfs), digest(&new.initramfs)),
        ("image.cmdline", text(&old.cmdline), text(&new.cmdline)),
        ("image.firmware", digest(&old.firmware), digest(&new.firmware)),
    ];
    let changed = files.into_iter().filter(|(_, before, after)| before != after);
    let mut drifts: Vec<Drift> =
        changed.map(|(path, before, after)| Drift { path: path.to_owned(), before, after }).collect();
    if old.shared_disks != new.shared_disks {
        drifts.push(Drift {
            path: "instance.shared_disks".to_owned(),
            before: Some(old.shared_disks.clone().into()),
            after: Some(new.shared_disks.clone().into()),
        });
    }
    drifts
}

/// Whether a slot runs what its spec says, with that module.
#[must_use]
pub fn runs(active: &PolicyActivation, spec: &PolicySpec, digest: &Digest) -> bool {
    active.digest == *digest && params_in_force(active) == spec.params
}

fn params_in_force(active: &PolicyActivation) -> Value {
    serde_json::from_str(&active.params).unwrap_or(Value::Null)
}

/// A policy in force beside the manifest's, whose module has that digest now. `old` is the one of the manifest in force:
/// parameters that differ from its were swapped; others are compared field by field.
#[must_use]
pub fn of_policy(
    active: &PolicyActivation,
    old: Option<&PolicySpec>,
    spec: &PolicySpec,
    digest: &Digest,
) -> Vec<Drift> {
    let mut drifts = Vec::new();
    let path = |what: &str| format!("policies[{}].{what}", spec.name);
    if active.digest != *digest {
        drifts.push(Drift {
            path: path("digest"),
            before: Some(active.digest.clone().into()),
            after: Some(digest.clone().into()),
        });
    }
    let params = params_in_force(active);
    if params != spec.params && old.is_none_or(|old| params != old.params) {
        let (before, after) = (Some(params), Some(spec.params.clone()));
        drifts.push(Drift { path: path("params in force"), before, after });
    }
    drifts
}

/// Policies without a `name` stay in the slot of the policy that they replace, so that a rollback has something to go back
/// to. `named` says for each policy whether the manifest names it, `old` are those in force.
pub fn keep_slots(new: &mut [PolicySpec], named: &[bool], old: &[PolicySpec]) {
    let known = |name: &str| old.iter().any(|spec| spec.name == name);
    let free: Vec<String> = old
        .iter()
        .filter(|spec| new.iter().all(|new| new.name != spec.name))
        .map(|spec| spec.name.clone())
        .collect();
    let homeless = new.iter_mut().zip(named).filter(|(spec, named)| !**named && !known(&spec.name));
    for ((spec, _), slot) in homeless.zip(free) {
        spec.name = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::manifest;

    fn specs(policies: &str) -> Vec<PolicySpec> {
        manifest(policies).policies
    }

    fn names(new: &str, named: &[bool], old: &str) -> Vec<String> {
        let mut new = specs(new);
        keep_slots(&mut new, named, &specs(old));
        new.into_iter().map(|spec| spec.name).collect()
    }

    #[test]
    fn another_module_without_a_name_takes_the_slot_of_the_one_that_it_replaces() {
        assert_eq!(names("policy: { module: b }", &[false], "policy: { module: a }"), ["a"]);
        assert_eq!(names("policy: { module: b, name: b }", &[true], "policy: { module: a }"), ["b"], "named");
        assert_eq!(names("policy: { module: a }", &[false], "policy: { module: a }"), ["a"]);
        let two = "policies: [{ module: a }, { module: b }]";
        assert_eq!(names("policies: [{ module: b }, { module: c }]", &[false; 2], two), ["b", "a"]);
        assert_eq!(names(two, &[false; 2], "policy: { module: a }"), ["a", "b"], "a new one");
    }

    fn active(digest: &str, params: &str) -> PolicyActivation {
        PolicyActivation {
            digest: digest.into(),
            params: params.to_owned(),
            ..crate::machine::testing::activation("step", 1)
        }
    }

    #[test]
    fn a_rebuilt_module_and_a_swapped_policy_are_drift() {
        let spec = &specs("policy: { module: step, params: { target: 0.6 } }")[0];
        assert!(runs(&active("d1", r#"{ "target": 0.6 }"#), spec, &"d1".into()));
        let rebuilt = of_policy(&active("d1", r#"{"target":0.6}"#), Some(spec), spec, &"d2".into());
        let [drift] = rebuilt.as_slice() else { panic!("one") };
        assert_eq!((drift.path.as_str(), &drift.before), ("policies[step].digest", &Some("d1".into())));
        let swapped = active("d1", r#"{"target":0.9}"#);
        assert!(!runs(&swapped, spec, &"d1".into()));
        assert_eq!(
            of_policy(&swapped, Some(spec), spec, &"d1".into())[0].path,
            "policies[step].params in force"
        );
        let old = &specs("policy: { module: step, params: { target: 0.9 } }")[0];
        assert_eq!(
            of_policy(&swapped, Some(old), spec, &"d1".into()),
            [],
            "the manifests differ, and say so"
        );
    }

    #[test]
    fn a_rebuilt_image_is_drift() {
        let old =
            ImageDigests { disk: Some("d1".into()), kernel: Some("k".into()), ..ImageDigests::default() };
        assert_eq!(of_image(&old, &old), []);
        let new = ImageDigests { disk: Some("d2".into()), shared_disks: vec!["s".into()], ..old.clone() };
        let paths: Vec<String> = of_image(&old, &new).into_iter().map(|drift| drift.path).collect();
        assert_eq!(paths, ["image.disk", "instance.shared_disks"]);
    }
}
