//! Whether a module is fit to scale a set: the contract, its parameters, decision vectors, the properties of a good
//! policy, and what it costs at worst.

mod cost;
mod params;
mod report;
mod schema;
mod subject;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::CompiledPolicy;
use regatta_policy_host::vectors;
use regatta_sdk::testing::properties::{self, Options, Verdict};
use serde_json::Value;

pub use regatta_policy_host::vectors::{Vector, VectorsError, parse as parse_vectors};
pub use regatta_sdk::testing::properties::Property;

pub use self::cost::Cost;
pub use self::report::{CheckReport, Finding, Status};
pub use self::subject::ModuleSubject;
use self::subject::{overruns, patient};

/// Lines of one finding; the rest is counted.
const LINES: usize = 20;
/// Decisions past a limit after which no more are tried: each of them takes all that it is given.
const MOST_OVERRUNS: u32 = 3;
const NOT_DONE: &str =
    "not finished: the time is up; give it more with --budget, or leave properties out with --skip";

/// What to look at, and how hard.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Parameters as JSON; none for the defaults of the policy's schema.
    pub params: Option<Value>,
    /// Decision vectors; empty for none.
    pub vectors: Vec<Vector>,
    /// Properties that are left out.
    pub skip: Vec<Property>,
    /// Seed of the properties.
    pub seed: u64,
    /// Cases per property.
    pub cases: u32,
    /// What a metric reads for an instance that is full; none to find out.
    pub full_at: Option<f64>,
    /// What a decision may cost.
    pub limits: PolicyLimits,
    /// Numbers of instances to look for the worst case with.
    pub instances: Vec<u32>,
    /// How long it may take to try decisions; what is left by then is not tried, and the check has failed.
    pub budget: Duration,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            params: None,
            vectors: Vec::new(),
            skip: Vec::new(),
            seed: 1,
            cases: 32,
            full_at: None,
            limits: PolicyLimits::default(),
            instances: vec![10, 100, 1_000, 10_000],
            budget: Duration::from_secs(300),
        }
    }
}

/// Checks a policy. Takes seconds; `step` is told what comes next. Whatever the policy does becomes a finding: this
/// neither fails nor panics. It ends early when decisions go past their limits, or its time is up.
#[must_use]
pub fn check(policy: &CompiledPolicy, options: &CheckOptions, step: &mut dyn FnMut(&str)) -> CheckReport {
    let manifest = policy.manifest();
    let mut findings = vec![imports(policy), describe(policy)];
    step("checking its parameters");
    let schema = schema::Schema::new(policy);
    findings.push(schema.finding());
    let limits = options.limits;
    let until = Instant::now() + options.budget;
    let chosen = params::choose(policy, options.params.as_ref());
    let (mut full_at, mut costs, mut used) = (None, Vec::new(), None);
    match chosen {
        Err(finding) => findings.push(finding),
        Ok(params) => {
            let (accepted, finding) = params::accepted(policy, &schema, &params, &limits);
            findings.push(finding);
            findings.push(params::broken(policy, &schema, &params, &limits, until));
            if accepted {
                let text = params.to_string();
                step("trying the properties of a good policy");
                let (mut found, full, ended) = properties(policy, &text, options, until, step);
                findings.append(&mut found);
                full_at = Some(full);
                if ended {
                    findings.push(Finding::not_tried("worst-case"));
                } else {
                    let (finding, worst) = cost::worst(policy, &text, options, until, step);
                    findings.push(finding);
                    costs = worst;
                }
            }
            used = Some(params);
        }
    }
    // They bring their own parameters.
    if !options.vectors.is_empty() {
        step("comparing with the vectors");
        findings.push(compared(policy, &options.vectors, &limits, until, step));
    }
    CheckReport {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        digest: policy.digest().to_owned(),
        abi: policy.abi().as_str().to_owned(),
        size_bytes: policy.size_bytes(),
        params: used,
        seed: options.seed,
        full_at,
        optimised: !cfg!(debug_assertions),
        limits,
        findings,
        costs,
    }
}

/// A module with another import would not have been loaded.
fn imports(policy: &CompiledPolicy) -> Finding {
    let mut interfaces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for import in policy.imports() {
        // `interface function` of a core module, the interface alone of a component.
        let (interface, function) = import.split_once(' ').unwrap_or((import, ""));
        interfaces.entry(interface).or_default().push(function);
    }
    let told = interfaces.into_iter().map(|(interface, mut functions)| {
        functions.retain(|function| !function.is_empty());
        functions.sort_unstable();
        if functions.is_empty() {
            interface.to_owned()
        } else {
            format!("{interface} ({})", functions.join(", "))
        }
    });
    let told: Vec<String> = told.collect();
    let text = if told.is_empty() { "none at all".to_owned() } else { told.join(", ") };
    Finding::new("imports", Status::Ok, vec![text])
}

/// What the host does not insist on, but people do.
fn describe(policy: &CompiledPolicy) -> Finding {
    let manifest = policy.manifest();
    let mut lines = Vec::new();
    if !schema::is_semantic_version(&manifest.version) {
        lines.push(format!("its version `{}` is not a semantic version such as 1.2.0", manifest.version));
    }
    if manifest.description.trim().is_empty() {
        lines.push("it has no description".to_owned());
    }
    for wish in manifest.metrics.iter().filter(|wish| wish.name.starts_with('/')) {
        if !schema::knows(&manifest.params_schema, &wish.name) {
            lines.push(format!(
                "it asks for the metric that the parameter `{}` names, and its schema has no such parameter",
                wish.name
            ));
        }
    }
    if lines.is_empty() {
        let metrics: Vec<&str> = manifest.metrics.iter().map(|wish| wish.name.as_str()).collect();
        let metrics = if metrics.is_empty() { "no metrics".to_owned() } else { metrics.join(", ") };
        let text = format!("state version {}; asks for {metrics}", manifest.state_version);
        return Finding::new("describe", Status::Ok, vec![text]);
    }
    Finding::new("describe", Status::Warning, lines)
}

/// Why nothing more is tried, when that is so.
fn early_end(overran: u32, until: Instant) -> Option<String> {
    if Instant::now() >= until {
        return Some(NOT_DONE.to_owned());
    }
    (overran >= MOST_OVERRUNS).then(|| format!("stopped after {overran} calls that went past a limit"))
}

fn compared(
    policy: &CompiledPolicy,
    vectors: &[Vector],
    limits: &PolicyLimits,
    until: Instant,
    step: &mut dyn FnMut(&str),
) -> Finding {
    let (mut lines, mut overran) = (Vec::new(), 0);
    for (number, vector) in (1..).zip(vectors) {
        let mismatches = vectors::check(policy, vector, &patient(limits, Some(until)));
        overran +=
            mismatches.iter().filter(|found| found.failure.is_some_and(overruns)).map(|_| 1).sum::<u32>();
        lines.extend(
            mismatches
                .iter()
                .flat_map(|found| found.to_string().lines().map(str::to_owned).collect::<Vec<_>>()),
        );
        if let Some(end) = early_end(overran, until) {
            lines.insert(0, format!("{number} of {} compared: {end}", vectors.len()));
            break;
        }
        step(&format!("comparing with the vectors: {number} of {}", vectors.len()));
    }
    if lines.is_empty() {
        return Finding::new("vectors", Status::Ok, vec![format!("all {} agree", vectors.len())]);
    }
    Finding::new("vectors", Status::Failed, lines)
}

/// The properties, through the sandbox; and whether it kept to its limits while they were tried. Beside the findings,
/// what a full instance reads, and whether it was ended early.
fn properties(
    policy: &CompiledPolicy,
    params: &str,
    options: &CheckOptions,
    until: Instant,
    step: &mut dyn FnMut(&str),
) -> (Vec<Finding>, f64, bool) {
    let mut subject = ModuleSubject::new(policy, params, options.limits).watched(until, step);
    let mut wanted = Options::new().seed(options.seed).cases(options.cases);
    if let Some(full) = options.full_at {
        wanted = wanted.full_at(full);
    }
    let wanted = options.skip.iter().fold(wanted, |wanted, &property| wanted.skip(property));
    let report = properties::check_all(&mut subject, &wanted);
    let mut findings = Vec::new();
    let end = subject.early_end();
    let decisions = subject.decisions();
    let mut lines = subject.failed().unwrap_or_default().to_vec();
    lines.extend(end.as_ref().map(|end| format!("{decisions} decisions, then {end}")));
    findings.push(if lines.is_empty() {
        let text = format!("{decisions} decisions without a trap or a limit reached");
        Finding::new("sandbox", Status::Ok, vec![text])
    } else {
        Finding::new("sandbox", Status::Failed, lines)
    });
    for (property, verdict) in &report.verdicts {
        findings.push(match verdict {
            Verdict::Skipped if !options.skip.contains(property) => Finding::not_tried(property.name()),
            Verdict::Held { cases } => {
                Finding::new(property.name(), Status::Ok, vec![format!("{cases} cases")])
            }
            Verdict::Skipped => Finding::new(property.name(), Status::Skipped, Vec::new()),
            Verdict::Failed { story } => {
                let mut lines: Vec<String> = story.lines().map(str::to_owned).collect();
                if *property == Property::Answers
                    && let Some(refused) = subject.refused()
                {
                    lines.push("it first had no decision".to_owned());
                    lines.extend_from_slice(refused);
                }
                Finding::new(property.name(), Status::Failed, lines)
            }
        });
    }
    if !report.reacts && end.is_none() {
        let text =
            "no load made it scale out, so the properties above say little: give what a full instance reads";
        findings.push(Finding::new("reacts-to-load", Status::Warning, vec![text.to_owned()]));
    }
    (findings, report.full, end.is_some())
}
