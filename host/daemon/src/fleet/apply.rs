//! Applying a manifest: everything is read and checked first, every problem is
//! told, and only then does anything change.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use regatta_core::machine::{Command, NewPolicy, NewSet, Start, Update, create};
use regatta_core::manifest::{self, ManifestSource, Problems, ScaleSet};
use regatta_core::state::{ImageDigests, SetState};
use regatta_policy_host::CompiledPolicy;

use super::policies::unknown_metrics;
use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::types::{ApiError, ApplyOutcome, ApplyRequest, ApplyResult, ErrorCode, FieldChange, Problem};
use crate::clock;
use crate::images::{ImageProblem, SetImages};
use crate::set::{Call, Modules, Setup};
use regatta_util::chain;

/// A manifest with everything that it names, ready to be put in force.
struct Checked {
    set: ScaleSet,
    images: SetImages,
    /// Policies with their modules, in the order of the manifest; none where the set
    /// keeps the one that it has in that place.
    policies: Vec<Option<Prepared>>,
}

impl Checked {
    /// What its policies ask for in vain, also those that the set keeps: its metrics may be others now.
    fn warnings(&self, old: Option<&SetState>) -> Vec<String> {
        let active = self.set.policies.iter().zip(&self.policies).filter_map(|(spec, policy)| match policy {
            Some(prepared) => Some(&prepared.policy.activation),
            None => old?.slot(&spec.name).map(|slot| &slot.active),
        });
        active.flat_map(|activation| unknown_metrics(&self.set, activation)).collect()
    }
}

/// A policy that is ready to take a slot.
pub(super) struct Prepared {
    pub(super) policy: NewPolicy,
    pub(super) compiled: Arc<CompiledPolicy>,
    pub(super) module: Vec<u8>,
}

impl Fleet {
    pub(super) async fn apply_manifest(&self, request: ApplyRequest, actor: &str) -> Answer<ApplyOutcome> {
        let _one_at_a_time = self.applying.lock().await;
        let manifest = manifest::read_manifest(request.text.as_bytes(), &request.source, &request.base_dir)
            .map_err(|problems| invalid(&problems))?;
        let (set, source) = (manifest.set, manifest.source);
        let existing = self.sets_now().get(&set.name).cloned();
        let old = existing.as_ref().map(|handle| handle.view());
        if let Some(old) = &old
            && old.state.deleting
        {
            let message = format!("{} is being deleted; apply again once it is deleted", set.name);
            return Err(error(ErrorCode::Conflict, message));
        }
        if existing.is_none() {
            let advice = format!("a set needs a name of its own; `regatta record delete {}`", set.name);
            self.refuse_recording_name(&set.name, &advice).await?;
            self.refuse_over_orphans(&set.name)?;
        }
        let named = match &set.image.name {
            Some(name) => Some(self.resolve_image(name).await?),
            None => None,
        };
        let mut changes = old.as_ref().map(|old| changes(&old.state.set, &set)).unwrap_or_default();
        if let (Some(old), Some(Ok(digests))) = (&old, &named)
            && old.state.set.image.name == set.image.name
        {
            changes.extend(image_changes(&old.state.image, digests));
        }
        let result = match &old {
            None => ApplyResult::Created,
            // An image that was broken may have been mended: it is looked at again.
            Some(old) if changes.is_empty() && old.image_usable => ApplyResult::Unchanged,
            Some(_) => ApplyResult::Updated,
        };
        let generation =
            old.as_ref().map_or(1, |old| old.state.generation + u64::from(result == ApplyResult::Updated));
        let mut outcome =
            ApplyOutcome { set: set.name.clone(), result, generation, changes, warnings: Vec::new() };
        if result == ApplyResult::Unchanged && !matches!(named, Some(Err(_))) {
            return Ok(outcome);
        }
        let kept: Vec<bool> = set
            .policies
            .iter()
            .map(|spec| old.as_ref().is_some_and(|old| old.state.set.policies.contains(spec)))
            .collect();
        let checked = self.check(&source, set, named, &kept).await?;
        outcome.warnings = checked.warnings(old.as_ref().map(|old| &*old.state));
        outcome.warnings.extend(self.shortcomings(&checked).await);
        if request.dry_run {
            return Ok(outcome);
        }
        match existing {
            None => self.create(checked, actor).await?,
            Some(_) => {
                let Checked { set, images, policies } = checked;
                let (mut seats, mut modules) = (Vec::with_capacity(policies.len()), Vec::new());
                for policy in policies {
                    seats.push(match policy {
                        Some(Prepared { policy, compiled, module }) => {
                            self.keep_module(&policy.activation.digest, module).await?;
                            modules.push(compiled);
                            Some(policy)
                        }
                        None => None,
                    });
                }
                let name = set.name.clone();
                let update = Update { set, image: images.digests(), policies: seats };
                let command = Command::Update(Box::new(update));
                let update =
                    |reply| Call { command, actor: actor.into(), modules, images: Some(images), reply };
                self.call(&name, update).await?;
            }
        }
        Ok(outcome)
    }

    /// What this host lacks for the set.
    async fn shortcomings(&self, checked: &Checked) -> Vec<String> {
        let (node, set) = (Arc::clone(&self.shared.node), checked.set.clone());
        let images = checked.images.clone();
        tokio::task::spawn_blocking(move || node.shortcomings(&set, &images)).await.unwrap_or_default()
    }

    /// Reads image and policies, but for those that are `kept`. All their problems at once, each at its place in the manifest.
    /// `named` is what the name of its image means, if it has one.
    async fn check(
        &self,
        source: &ManifestSource,
        set: ScaleSet,
        named: Option<Result<ImageDigests, ImageProblem>>,
        kept: &[bool],
    ) -> Answer<Checked> {
        let policies = set.policies.iter().zip(kept).map(|(spec, kept)| async move {
            if *kept {
                return Ok(None);
            }
            self.prepare_policy(spec).await.map(Some)
        });
        let policies = futures::future::join_all(policies.collect::<Vec<_>>());
        let (images, policies) =
            tokio::join!(SetImages::take(&self.shared.node.images, &set, named), policies);
        let mut problems = Vec::new();
        if let Err(image_problems) = &images {
            problems.extend(
                image_problems.iter().map(|it| source.problem_at(&it.pointer, &it.message, it.hint.clone())),
            );
        }
        for (index, policy) in policies.iter().enumerate() {
            if let Err(policy_problems) = policy {
                problems.extend(policy_problems.iter().map(|it| it.locate(source, index)));
            }
        }
        match (images, policies.into_iter().collect::<Result<_, _>>()) {
            (Ok(images), Ok(policies)) => Ok(Checked { set, images, policies }),
            _ => Err(invalid(&source.problems(problems))),
        }
    }

    async fn create(&self, checked: Checked, actor: &str) -> Answer<()> {
        let Checked { set, images, policies } = checked;
        let (mut activations, mut blobs, mut modules) = (Vec::new(), Vec::new(), Modules::default());
        for policy in policies {
            let Some(Prepared { policy, compiled, module }) = policy else {
                return Err(error(ErrorCode::Internal, "a new set without a policy"));
            };
            modules.insert(&policy.activation.digest, Ok(compiled));
            blobs.push((policy.activation.digest.clone(), module));
            activations.push(policy.activation);
        }
        let load_balancer = match &set.load_balancer {
            Some(spec) => {
                let bound = crate::set::bind(spec, &self.shared.listeners);
                Some(bound.map_err(|why| error(ErrorCode::Conflict, chain(&why)))?)
            }
            None => None,
        };
        let incarnation = random_incarnation(&set.name);
        let new = NewSet { set, image: images.digests(), policies: activations, incarnation };
        let (state, mut batch) = create(new, clock::now(), actor.into());
        batch.blobs.extend(blobs);
        let revision = self.shared.commit(batch).await.map_err(|why| {
            let message = format!("nothing was created; the store cannot be written: {}", chain(&why));
            error(ErrorCode::Unavailable, message)
        })?;
        self.shared.events.notify_waiters();
        let start = Start {
            state,
            revision,
            instances: Vec::new(),
            manifests: BTreeMap::new(),
            last: None,
            listening: load_balancer.is_some(),
            image_problem: None,
        };
        self.start(start, Setup { images, modules, load_balancer, found: BTreeMap::new() });
        Ok(())
    }
}

/// Tells a set from every other of its name: the standard library seeds its hashes from the system's random numbers.
fn random_incarnation(name: &str) -> u64 {
    RandomState::new().hash_one((name, clock::now_ms())).max(1)
}

fn changes(old: &ScaleSet, new: &ScaleSet) -> Vec<FieldChange> {
    manifest::diff(old, new)
        .into_iter()
        .map(|change| FieldChange {
            new_instances_only: manifest::affects_new_instances_only(&change.path),
            before: change.before.map(|value| value.to_string()),
            after: change.after.map(|value| value.to_string()),
            path: change.path,
        })
        .collect()
}

/// What another meaning of the same name changes: the files by their digests.
fn image_changes(old: &ImageDigests, new: &ImageDigests) -> Vec<FieldChange> {
    let json =
        |text: &Option<String>| text.as_ref().map(|text| serde_json::Value::from(text.as_str()).to_string());
    let files = [
        ("image.disk", &old.disk, &new.disk),
        ("image.kernel", &old.kernel, &new.kernel),
        ("image.initramfs", &old.initramfs, &new.initramfs),
        ("image.cmdline", &old.cmdline, &new.cmdline),
        ("image.firmware", &old.firmware, &new.firmware),
    ];
    let changed = files.into_iter().filter(|(_, before, after)| before != after);
    changed
        .map(|(path, before, after)| FieldChange {
            path: path.to_owned(),
            before: json(before),
            after: json(after),
            new_instances_only: true,
        })
        .collect()
}

fn invalid(problems: &Problems) -> ApiError {
    let told = problems.problems.iter().map(|problem| Problem {
        path: problem.path.clone(),
        line: problem.line,
        column: problem.column,
        message: problem.message.clone(),
        hint: problem.hint.clone(),
        rendered: problem.render(&problems.file),
    });
    let s = if problems.total == 1 { "" } else { "s" };
    let message = format!("{}: {} problem{s}, nothing was applied", problems.file, problems.total);
    ApiError { code: ErrorCode::Invalid, message, problems: told.collect() }
}
