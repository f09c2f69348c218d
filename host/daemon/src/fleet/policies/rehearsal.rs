//! What a policy goes through before it takes over on a set that runs.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::digest::Digest;
use regatta_core::event::PolicyRef;
use regatta_core::machine::NewPolicy;
use regatta_core::manifest::PolicyLimits;
use regatta_core::metrics::{MetricWish, cannot_start_from_zero};
use regatta_core::observation::Observation;
use regatta_core::state::{PolicyActivation, PolicySlot, SetState};
use regatta_policy_host::{CompiledPolicy, DryRun, PrepareError, dry_run};
use regatta_store::RecordQuery;

use super::super::apply::STUCK_AT_ZERO;
use super::super::error;
use super::{Fleet, activation, has_its_metrics, params_invalid, slot_of, told, unknown_metrics};
use crate::api::control::Answer;
use crate::api::types::{ApiError, ErrorCode, SwapRequest};
use crate::set::SetView;
use regatta_util::{Said, chain};

/// Recorded ticks that a new policy is tried on before it takes over.
const REHEARSED_TICKS: usize = 20;

/// The least time that a call may take in a rehearsal, whatever the set's deadline is: no tick waits for it, and the policy is not
/// to blame for a busy host. Fuel still bounds what it may compute.
const REHEARSAL_DEADLINE_MS: u64 = 2_000;

/// A policy that may take a place in a set.
pub(super) struct Ready {
    pub(super) policy: NewPolicy,
    pub(super) compiled: Arc<CompiledPolicy>,
    /// Recorded ticks that it was tried on.
    pub(super) ticks: u32,
    /// Those of them for which it returned a decision.
    pub(super) decided: u32,
    pub(super) warnings: Vec<String>,
    pub(super) prepare_ms: u64,
}

/// How a policy did on recorded ticks.
pub(in crate::fleet) struct Tried {
    ticks: u32,
    decided: u32,
    /// Where its state comes from.
    pub(in crate::fleet) origin: &'static str,
    /// What was wrong and accepted all the same.
    pub(in crate::fleet) warning: Option<String>,
}

impl Fleet {
    /// Finds, compiles, checks and rehearses a policy for a set, and stores its
    /// module. That it is refused stands in the history. One that will not act may
    /// have no decision for any recorded tick.
    pub(super) async fn ready(
        &self,
        set: &str,
        request: &SwapRequest,
        acts: bool,
        actor: &str,
    ) -> Answer<Ready> {
        let begun = Instant::now();
        let view = self.find(set)?.view();
        let slot = slot_of(&view.state, request.slot.as_deref())?;
        let module = self.module_of(&view.state, request).await?;
        let digest = Digest::of(&module);
        match self.rehearsed(&view, slot, request, acts, module).await {
            Ok(ready) => {
                let prepare_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                Ok(Ready { prepare_ms, ..ready })
            }
            Err(why) => {
                let policy = PolicyRef {
                    slot: slot.name.clone(),
                    name: Said::default(),
                    version: Said::default(),
                    digest,
                    source: request.source.clone().into(),
                    activation: 0,
                    params: request.params.as_ref().map(ToString::to_string).unwrap_or_default(),
                };
                self.note_refusal(set, policy, &told(&why), actor).await;
                Err(why)
            }
        }
    }

    async fn rehearsed(
        &self,
        view: &SetView,
        slot: &PolicySlot,
        request: &SwapRequest,
        acts: bool,
        module: Vec<u8>,
    ) -> Answer<Ready> {
        let refused = |message| ApiError { code: ErrorCode::Invalid, message, problems: Vec::new() };
        let compiled = self
            .compile(module.clone())
            .await
            .map_err(|why| refused(format!("{}: {why}", request.source)))?;
        self.has_a_name_of_its_own(&compiled)
            .await
            .map_err(|why| refused(format!("{}: {why}", request.source)))?;
        let params = match &request.params {
            Some(params) => params.to_string(),
            None => slot.active.params.clone(),
        };
        let limits = limits_of(&view.state, &slot.name);
        self.validate(&compiled, &params, limits)
            .await
            .and_then(|()| match request.force {
                true => Ok(()),
                false => has_its_metrics(&view.state.set, &compiled, &params),
            })
            .map_err(|problems| params_invalid(&request.source, &problems))?;
        let mut activation = activation(&compiled, &request.source, params);
        if acts && !request.force && ends_first_starts(&view.state, slot, &activation.wishes) {
            let way_out = "give the set a `load_balancer` or `min: 1`; --force takes it anyway";
            return Err(refused(format!("{}: {STUCK_AT_ZERO}; {way_out}", request.source)));
        }
        let mut warnings = unknown_metrics(&view.state.set, &activation);
        let set = &view.state.set.name;
        let tried = self.tried(set, &compiled, &mut activation, limits, acts, request.force).await?;
        warnings.extend(tried.warning);
        // Before the switch: the loop of the set is not held for so much to write.
        self.keep_module(&activation.digest, module).await?;
        Ok(Ready {
            policy: NewPolicy { activation, state_origin: tried.origin.to_owned() },
            compiled,
            ticks: tried.ticks,
            decided: tried.decided,
            warnings,
            prepare_ms: 0,
        })
    }

    /// Rehearses a policy on the recorded ticks of a set, which gives it the state that it begins with. Refuses it when it fails
    /// them, unless forced; one that need not decide may leave them undecided.
    pub(in crate::fleet) async fn tried(
        &self,
        set: &str,
        compiled: &Arc<CompiledPolicy>,
        activation: &mut PolicyActivation,
        limits: PolicyLimits,
        must_decide: bool,
        force: bool,
    ) -> Answer<Tried> {
        let rehearsal = self.rehearse(set, compiled, activation, limits).await?;
        let warning = match rehearsal.verdict() {
            Ok(()) => None,
            Err(why) if force || !must_decide && matches!(why, PrepareError::Undecided { .. }) => {
                Some(chain(&why))
            }
            Err(why) => {
                let message = format!("{}\nto take it anyway, use --force", chain(&why));
                return Err(error(ErrorCode::Invalid, message));
            }
        };
        activation.state = BASE64.encode(&rehearsal.state);
        let ticks = count(rehearsal.runs.len());
        let origin = match ticks {
            0 => "empty: there is no recorded tick yet",
            _ => "built from the recorded ticks",
        };
        Ok(Tried { ticks, decided: count(rehearsal.decided()), origin, warning })
    }

    /// Tries the policy on the last recorded observations. The state that this
    /// builds is what it begins with, unless it takes over that of the policy before.
    async fn rehearse(
        &self,
        set: &str,
        compiled: &Arc<CompiledPolicy>,
        activation: &PolicyActivation,
        limits: PolicyLimits,
    ) -> Answer<DryRun> {
        let observations = self.last_observations(set).await?;
        let (rehearsed, params) = (Arc::clone(compiled), activation.params.clone());
        let limits = PolicyLimits { deadline_ms: limits.deadline_ms.max(REHEARSAL_DEADLINE_MS), ..limits };
        let rehearsal =
            tokio::task::spawn_blocking(move || dry_run(&rehearsed, &params, &observations, &limits)).await;
        let refused = |why: &dyn std::error::Error| error(ErrorCode::Invalid, chain(why));
        rehearsal.map_err(|why| refused(&why))?.map_err(|why| refused(&why))
    }

    async fn last_observations(&self, set: &str) -> Answer<Vec<Arc<Observation>>> {
        let set = set.to_owned();
        let mut records =
            self.read(move |store| store.records(&set, &RecordQuery::newest(REHEARSED_TICKS))).await?;
        records.sort_by_key(|record| record.observation.tick);
        Ok(records.into_iter().map(|record| Arc::new(record.observation)).collect())
    }
}

fn limits_of(state: &SetState, slot: &str) -> PolicyLimits {
    let spec = state.set.policies.iter().find(|spec| spec.name == slot);
    spec.map_or_else(PolicyLimits::default, |spec| spec.limits)
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

/// Whether nothing could start the first instance of a set anymore, with a policy that asks for `wishes` in `slot`.
fn ends_first_starts(state: &SetState, slot: &PolicySlot, wishes: &[MetricWish]) -> bool {
    let before = state.policies.iter().map(|it| it.active.wishes.as_slice());
    let after = state
        .policies
        .iter()
        .map(|it| if it.name == slot.name { wishes } else { it.active.wishes.as_slice() });
    cannot_start_from_zero(&state.set, after) && !cannot_start_from_zero(&state.set, before)
}
