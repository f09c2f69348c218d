//! The same decisions in the sandbox, in native code, by a plugin over gRPC and by a webhook: in turn, on one CPU.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use regatta_policy_host::CompiledPolicy;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use crate::decider::{self, Answer};
use crate::effort::Effort;
use crate::observed::{SEEDS, observation, set};
use crate::peer::Peer;
use crate::pinned;
use crate::{grpc, webhook};

/// Rounds of 8 decisions by each that are not counted, and that are, by the size of the set.
const WARM_UP: usize = 10;
const ROUNDS: [(u32, usize); 4] = [(10, 250), (100, 250), (1_000, 250), (10_000, 30)];

/// The same, of which one only sees that it runs.
const QUICK_WARM_UP: usize = 1;
const QUICK_ROUNDS: [(u32, usize); 2] = [(10, 1), (1_000, 1)];

/// After this time a size has no further round.
const TIME_OF_A_SIZE: Duration = Duration::from_secs(60);

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Native code in this process.
    Native,
    /// WebAssembly in this process, in a fresh instance.
    Sandbox,
    /// A plugin over gRPC on the CPU of this thread.
    GrpcSameCpu,
    /// A plugin over gRPC on another CPU.
    GrpcOtherCpu,
    /// A webhook on the CPU of this thread.
    WebhookSameCpu,
    /// A webhook on another CPU.
    WebhookOtherCpu,
}

impl Way {
    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Sandbox => "sandbox",
            Self::GrpcSameCpu => "gRPC plugin, same CPU",
            Self::GrpcOtherCpu => "gRPC plugin, other CPU",
            Self::WebhookSameCpu => "webhook, same CPU",
            Self::WebhookOtherCpu => "webhook, other CPU",
        }
    }
}

/// What the decisions of one way at one size took.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    pub(crate) way: Way,
    pub(crate) instances: u32,
    pub(crate) samples: Vec<Sample>,
    /// CPU time of all of them, here and in the peer.
    pub(crate) cpu: Duration,
}

/// One decision. The parts are zero where they are in another process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// From an observation to an answer.
    pub(crate) total: Duration,
    /// Folding the observation into the tick.
    pub(crate) fold: Duration,
    /// Making the instance.
    pub(crate) instantiate: Duration,
    /// The policy: in the sandbox from the call to its return, with arguments lowered and the result lifted.
    pub(crate) policy: Duration,
    /// Fuel.
    pub(crate) fuel: u64,
}

struct Contender {
    way: Way,
    kind: Kind,
}

enum Kind {
    Native,
    Sandbox(Arc<CompiledPolicy>),
    Grpc(Peer, grpc::Client),
    Webhook(Peer, webhook::Client),
}

/// What a policy decides with.
struct Task {
    metrics: Vec<String>,
    params: String,
    limits: PolicyLimits,
}

/// Measures all ways at all sizes. `policy` is the sandboxed one that [`decider`] has natively.
pub(crate) fn measure(runtime: &Runtime, policy: &Arc<CompiledPolicy>, effort: Effort) -> Result<Vec<Costs>> {
    let (warm_up, rounds) = effort.choose((WARM_UP, &ROUNDS[..]), (QUICK_WARM_UP, &QUICK_ROUNDS[..]));
    let directory = tempfile::Builder::new().prefix("regatta-bench-").tempdir();
    let directory = directory.context("cannot make a directory")?;
    let mut contenders = runtime.block_on(contenders(policy, directory.path()))?;
    let measured = rounds
        .iter()
        .map(|&(instances, rounds)| {
            measure_size(runtime, &mut contenders, policy, instances, (warm_up, rounds))
        })
        .collect::<Result<Vec<_>>>();
    let ended = runtime.block_on(end(contenders));
    let measured = measured?;
    ended?;
    Ok(measured.into_iter().flatten().collect())
}

/// In the order in which they take turns. On a machine with one CPU there is no other.
async fn contenders(policy: &Arc<CompiledPolicy>, directory: &Path) -> Result<Vec<Contender>> {
    let cpus = pinned::allowed()?;
    let &[.., same] = cpus.as_slice() else { bail!("no CPU is allowed") };
    let other = cpus.first().copied().filter(|&cpu| cpu != same);
    let mut contenders = vec![
        Contender { way: Way::Native, kind: Kind::Native },
        Contender { way: Way::Sandbox, kind: Kind::Sandbox(Arc::clone(policy)) },
    ];
    for (way, cpu) in [(Way::GrpcSameCpu, Some(same)), (Way::GrpcOtherCpu, other)] {
        let Some(cpu) = cpu else { continue };
        let cpu = cpu.to_string();
        let arguments = ["plugin", "--cpu", cpu.as_str(), "--directory"].map(OsStr::new);
        let (peer, line) = Peer::start(&[&arguments[..], &[directory.as_os_str()]].concat()).await?;
        let client = grpc::Client::connect(&line).await?;
        contenders.push(Contender { way, kind: Kind::Grpc(peer, client) });
    }
    for (way, cpu) in [(Way::WebhookSameCpu, Some(same)), (Way::WebhookOtherCpu, other)] {
        let Some(cpu) = cpu else { continue };
        let (peer, line) =
            Peer::start(&["webhook", "--cpu", cpu.to_string().as_str()].map(OsStr::new)).await?;
        let client = webhook::Client::connect(&line).await?;
        contenders.push(Contender { way, kind: Kind::Webhook(peer, client) });
    }
    Ok(contenders)
}

async fn end(contenders: Vec<Contender>) -> Result<()> {
    for Contender { kind, .. } in contenders {
        match kind {
            Kind::Native | Kind::Sandbox(_) => {}
            Kind::Grpc(peer, _) | Kind::Webhook(peer, _) => peer.end().await?,
        }
    }
    Ok(())
}

fn measure_size(
    runtime: &Runtime,
    contenders: &mut [Contender],
    policy: &CompiledPolicy,
    instances: u32,
    (warm_up, rounds): (usize, usize),
) -> Result<Vec<Costs>> {
    eprintln!("  in the sandbox and elsewhere with {instances} instances …");
    let set = set(instances)?;
    let [spec] = set.policies.as_slice() else { bail!("the set has not one policy") };
    let params = spec.params.to_string();
    let metrics = policy.wishes(&params).into_iter().map(|wish| wish.name).collect();
    let task = Task { metrics, params, limits: spec.limits };
    let observations: Vec<_> = SEEDS.map(|seed| Arc::new(observation(&set, instances, seed))).collect();
    let mut answers: Vec<Option<Answer>> = vec![None; observations.len()];
    let empty = |contender: &Contender| Costs {
        way: contender.way,
        instances,
        samples: Vec::new(),
        cpu: Duration::ZERO,
    };
    let mut costs: Vec<Costs> = contenders.iter().map(empty).collect();

    let _pinned = pinned::Pinned::to_one_cpu()?;
    let start = Instant::now();
    for round in 0..warm_up + rounds {
        if start.elapsed() > TIME_OF_A_SIZE && round > 2 * warm_up {
            break;
        }
        for (contender, costs) in contenders.iter_mut().zip(&mut costs) {
            let before = contender.cpu_time()?;
            for (observation, expected) in observations.iter().zip(&mut answers) {
                let (sample, answer) = runtime
                    .block_on(contender.decide(observation, &task))
                    .with_context(|| format!("{} with {instances} instances", contender.way.title()))?;
                let expected = expected.get_or_insert_with(|| answer.clone());
                ensure!(*expected == answer, "{} decides otherwise: {answer:?}", contender.way.title());
                if round >= warm_up {
                    costs.samples.push(sample);
                }
            }
            if round >= warm_up {
                costs.cpu += contender.cpu_time()?.saturating_sub(before);
            }
        }
    }
    Ok(costs)
}

impl Contender {
    async fn decide(&mut self, observation: &Arc<Observation>, task: &Task) -> Result<(Sample, Answer)> {
        let Task { metrics, params, limits } = task;
        let start = Instant::now();
        let mut sample = Sample::default();
        let answer = match &mut self.kind {
            Kind::Native => {
                let tick = decider::fold(observation, metrics);
                let folded = Instant::now();
                let outcome = decider::decide(tick, params, b"").map_err(anyhow::Error::msg)?;
                sample.fold = folded - start;
                sample.policy = folded.elapsed();
                outcome.into()
            }
            Kind::Sandbox(policy) => {
                let call = policy.decide(observation, params, b"", limits);
                sample.fold = call.times.observe;
                sample.instantiate = call.times.instantiate;
                sample.policy = call.times.guest;
                sample.fuel = call.run.fuel;
                let decision = call.run.result.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
                Answer { decision, state: call.state.unwrap_or_default() }
            }
            Kind::Grpc(_, client) => client.decide(observation, metrics, params, b"").await?,
            Kind::Webhook(_, client) => client.decide(observation, metrics, params, b"").await?,
        };
        sample.total = start.elapsed();
        Ok((sample, answer))
    }

    /// Of this thread, and of the peer.
    fn cpu_time(&self) -> Result<Duration> {
        let here = clock_gettime(ClockId::ThreadCPUTime);
        let here = Duration::try_from(here).context("the clock of this thread is off")?;
        Ok(match &self.kind {
            Kind::Native | Kind::Sandbox(_) => here,
            Kind::Grpc(peer, _) | Kind::Webhook(peer, _) => here + peer.cpu_time()?,
        })
    }
}
