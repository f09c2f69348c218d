//! Applying a manifest: everything is read and checked first, every problem is
//! told, and only then does anything change.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use regatta_core::digest::Digest;
use regatta_core::drift;
use regatta_core::machine::{Command, Done, NewPolicy, NewSet, Start, Update, create};
use regatta_core::manifest::{self, ManifestSource, Problems, ScaleSet};
use regatta_core::metrics;
use regatta_core::state::{ImageDigests, PolicyActivation, SetState};
use regatta_policy_host::CompiledPolicy;

use super::policies::{Rehearsal, unknown_metrics};
use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::types::{ApiError, ApplyOutcome, ApplyRequest, ApplyResult, ErrorCode, FieldChange, Problem};
use crate::clock;
use crate::images::{ImageProblem, SetImages};
use crate::set::{Call, Modules, Setup};
use regatta_util::chain;

pub(super) const STUCK_AT_ZERO: &str = "with `min: 0` and without a load_balancer, nothing starts an instance once the set has none: its policies \
                             decide by metrics of instances";

/// A manifest with everything that it names, ready to be put in force.
struct Checked {
    set: ScaleSet,
    /// What its image is.
    digests: ImageDigests,
    /// The image in the store; none after a dry run.
    images: Option<SetImages>,
    /// Digests of the modules, in the order of the manifest.
    modules: Vec<Digest>,
    /// Policies with their modules, in the order of the manifest; none where the set
    /// keeps the one that it has in that place.
    policies: Vec<Option<Prepared>>,
}

impl Checked {
    /// Its policies, also those that the set keeps.
    fn active<'a>(&'a self, old: Option<&'a SetState>) -> impl Iterator<Item = &'a PolicyActivation> {
        self.set.policies.iter().zip(&self.policies).filter_map(move |(spec, policy)| match policy {
            Some(prepared) => Some(&prepared.policy.activation),
            None => old?.slot(&spec.name).map(|slot| &slot.active),
        })
    }

    /// What its policies ask for in vain, also those that the set keeps: its metrics may be others now.
    fn warnings(&self, old: Option<&SetState>) -> Vec<String> {
        let unknown = self.active(old).flat_map(|activation| unknown_metrics(&self.set, activation));
        let rehearsed = self.policies.iter().flatten().filter_map(|prepared| prepared.warning.clone());
        let stuck = self.stuck_at_zero(old).then(|| STUCK_AT_ZERO.to_owned());
        unknown.chain(rehearsed).chain(stuck).collect()
    }

    fn stuck_at_zero(&self, old: Option<&SetState>) -> bool {
        let wishes = self.active(old).map(|activation| activation.wishes.as_slice());
        metrics::cannot_start_from_zero(&self.set, wishes)
    }

    /// A set that would never start is a slip. `initial` starts it once; one that was taken like that before stays as it is.
    fn refuse_stuck_at_zero(&self, source: &ManifestSource, old: Option<&SetState>) -> Answer<()> {
        let was_stuck = |old: &SetState| {
            let active = old.policies.iter().map(|slot| slot.active.wishes.as_slice());
            metrics::cannot_start_from_zero(&old.set, active)
        };
        if self.set.capacity.initial > 0 || !self.stuck_at_zero(old) || old.is_some_and(was_stuck) {
            return Ok(());
        }
        let hint = "add a `load_balancer`, whose waiting clients start the first instance, or set `min: 1`; --force applies it \
                    anyway, and `regatta scale` starts instances";
        let problem = source.problem_at("/capacity/min", STUCK_AT_ZERO, Some(hint.to_owned()));
        Err(invalid(&source.problems(vec![problem])))
    }

    /// Everything in which the manifest differs from what is in force.
    fn changes(&self, old: &SetState) -> Vec<FieldChange> {
        let mut changes = changes(&old.set, &self.set);
        let image = drift::of_image(&old.image, &self.digests).into_iter().map(|drift| (drift, true));
        let policies = self.set.policies.iter().zip(&self.modules).filter_map(|(spec, digest)| {
            let known = old.set.policies.iter().find(|known| known.name == spec.name);
            Some(drift::of_policy(&old.slot(&spec.name)?.active, known, spec, digest))
        });
        for (drift, new_instances_only) in image.chain(policies.flatten().map(|drift| (drift, false))) {
            changes.push(FieldChange {
                path: drift.path,
                before: drift.before.map(|value| value.to_string()),
                after: drift.after.map(|value| value.to_string()),
                new_instances_only,
            });
        }
        changes
    }
}

/// A policy that is ready to take a slot.
pub(super) struct Prepared {
    pub(super) policy: NewPolicy,
    pub(super) compiled: Arc<CompiledPolicy>,
    pub(super) module: Vec<u8>,
    /// What was wrong in its rehearsal and accepted all the same.
    pub(super) warning: Option<String>,
}

impl Fleet {
    pub(super) async fn apply_manifest(&self, request: ApplyRequest, actor: &str) -> Answer<ApplyOutcome> {
        let manifest = manifest::read_manifest(request.text.as_bytes(), &request.source, &request.base_dir)
            .map_err(|problems| invalid(&problems))?;
        let (mut set, source) = (manifest.set, manifest.source);
        // A dry run changes nothing, so it neither waits nor lets others wait.
        let _one_at_a_time = match request.dry_run {
            true => None,
            false => Some(self.names.lock(set.name.clone()).await),
        };
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
        if let Some(old) = &old {
            let named: Vec<bool> = (0..set.policies.len()).map(|index| source.names_policy(index)).collect();
            drift::keep_slots(&mut set.policies, &named, &old.state.set.policies);
        }
        let old_state = old.as_ref().map(|old| &*old.state);
        let checked = self.check(&source, set, named, old_state, &request).await?;
        if !request.force {
            checked.refuse_stuck_at_zero(&source, old_state)?;
        }
        let changes = old_state.map(|old| checked.changes(old)).unwrap_or_default();
        let result = match &old {
            None => ApplyResult::Created,
            // An image that was broken may have been mended: it is looked at again.
            Some(old) if changes.is_empty() && old.image_usable => ApplyResult::Unchanged,
            Some(_) => ApplyResult::Updated,
        };
        let generation =
            old.as_ref().map_or(1, |old| old.state.generation + u64::from(result == ApplyResult::Updated));
        let mut warnings = checked.warnings(old_state);
        if result != ApplyResult::Unchanged {
            warnings.extend(self.shortcomings(&checked).await);
        }
        let name = checked.set.name.clone();
        let updated = old.as_ref().filter(|_| result == ApplyResult::Updated);
        let upgrade = updated.and_then(|old| old.upgrade_preview(&checked.set, &checked.digests));
        let mut outcome = ApplyOutcome { set: name.clone(), result, generation, changes, upgrade, warnings };
        let Some(images) = checked.images.clone().filter(|_| result != ApplyResult::Unchanged) else {
            return Ok(outcome);
        };
        match existing {
            None => self.create(checked, images, actor).await?,
            Some(_) => {
                let Checked { set, policies, .. } = checked;
                let (mut seats, mut modules) = (Vec::with_capacity(policies.len()), Vec::new());
                for policy in policies {
                    seats.push(match policy {
                        Some(Prepared { policy, compiled, module, .. }) => {
                            self.keep_module(&policy.activation.digest, module).await?;
                            modules.push(compiled);
                            Some(policy)
                        }
                        None => None,
                    });
                }
                let update = Update { set, image: images.digests(), policies: seats, rolls_back: false };
                let command = Command::Update(Box::new(update));
                let update =
                    |reply| Call { command, actor: actor.into(), modules, images: Some(images), reply };
                if let (Done::Applied(ended), _) = self.call(&name, update).await? {
                    outcome.warnings.extend(ended);
                }
            }
        }
        Ok(outcome)
    }

    /// What this host lacks for the set.
    async fn shortcomings(&self, checked: &Checked) -> Vec<String> {
        let (node, set) = (Arc::clone(&self.shared.node), checked.set.clone());
        let images = checked.images.clone().unwrap_or_default();
        tokio::task::spawn_blocking(move || node.shortcomings(&set, &images)).await.unwrap_or_default()
    }

    /// Reads image and policies; those that are in force already are not prepared again. All their problems at once, each at its
    /// place in the manifest. `named` is what the name of its image means, if it has one. A dry run writes nothing.
    async fn check(
        &self,
        source: &ManifestSource,
        set: ScaleSet,
        named: Option<Result<ImageDigests, ImageProblem>>,
        old: Option<&SetState>,
        request: &ApplyRequest,
    ) -> Answer<Checked> {
        // Recorded ticks lack metrics that the same manifest brings.
        let must_decide = old.is_some_and(|old| old.set.metrics == set.metrics);
        let rehearsal = old.map(|old| Rehearsal { set: &old.set.name, must_decide, force: request.force });
        let metrics_of = (!request.force).then_some(&set);
        let policies = set.policies.iter().map(|spec| async move {
            let module = self.read_policy(spec).await?;
            let digest = Digest::of(&module);
            let kept = old.is_some_and(|old| {
                old.set.policies.contains(spec)
                    && old.slot(&spec.name).is_some_and(|slot| drift::runs(&slot.active, spec, &digest))
            });
            if kept {
                if let (Some(set), Some(old)) = (metrics_of, old) {
                    self.keeps_their_metrics(spec, set, old).await?;
                }
                return Ok((digest, None));
            }
            self.prepare_policy(spec, module, metrics_of, rehearsal)
                .await
                .map(|prepared| (digest, Some(prepared)))
        });
        let policies = futures::future::join_all(policies.collect::<Vec<_>>());
        let store = &self.shared.node.images;
        let images = async {
            if request.dry_run {
                return SetImages::look(store, &set, named).await.map(|digests| (digests, None));
            }
            SetImages::take(store, &set, named).await.map(|images| (images.digests(), Some(images)))
        };
        let (images, policies) = tokio::join!(images, policies);
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
        match (images, policies.into_iter().collect::<Result<Vec<_>, _>>()) {
            (Ok((digests, images)), Ok(policies)) => {
                let (modules, policies) = policies.into_iter().unzip();
                Ok(Checked { set, digests, images, modules, policies })
            }
            _ => Err(invalid(&source.problems(problems))),
        }
    }

    async fn create(&self, checked: Checked, images: SetImages, actor: &str) -> Answer<()> {
        let Checked { set, policies, .. } = checked;
        let (mut activations, mut blobs, mut modules) = (Vec::new(), Vec::new(), Modules::default());
        for policy in policies {
            let Some(Prepared { policy, compiled, module, .. }) = policy else {
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
