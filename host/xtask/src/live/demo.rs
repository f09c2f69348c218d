//! The demo itself: a set, a tide of requests, a policy swapped half-way, and the proof.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::daemon::{Daemon, POLL};
use crate::load::Load;
use crate::profile::Profile;
use crate::records::{SetDetail, SetSummary, SwapOutcome, TickRecord};
use crate::screen::{Screen, print};
use crate::tally::Tally;
use crate::verdict::{Check, judge};
use crate::view::{Frame, History, Sample, SetView, ms};

/// Name of the set in both manifests.
const SET: &str = "web";

/// The policy that takes over half-way.
const SECOND_POLICY: &str = "step";

/// Same arrivals in every demo.
const SEED: u64 = 2;

/// How long the last answers may take once the last request was sent.
const REST_LIMIT: Duration = Duration::from_secs(30);

/// How often the daemon is asked for the picture.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which set is shown, and under which load.
pub(crate) struct Scenario {
    /// Its manifest, from the root of the workspace.
    pub(crate) manifest: &'static str,
    /// Parameters of the second policy, as `regatta policy swap --params` takes them, from there as well.
    second_params: &'static str,
    /// What is asked for.
    path: &'static str,
    /// Requests per second at ebb and at flood.
    rates: (f64, f64),
    /// How long the first instances may take until they serve.
    ready_limit: Duration,
    /// How long after the load a scale-in may take to show.
    settle_limit: Duration,
    /// How long the instances may take to go when the demo ends.
    pub(crate) delete_limit: Duration,
}

impl Scenario {
    /// Guests that are only modelled. Two carry the ebb with ease, the flood takes six.
    pub(crate) const MODEL: Self = Self {
        manifest: "examples/quickstart/set.yaml",
        second_params: "@examples/quickstart/step.json",
        path: "/",
        rates: (20.0, 300.0),
        ready_limit: Duration::from_secs(60),
        settle_limit: Duration::from_secs(15),
        delete_limit: Duration::from_secs(20),
    };

    /// Guests that boot a kernel. The flood is what two cores can bear that emulate the processors of four guests.
    pub(crate) const REAL: Self = Self {
        manifest: "examples/real-guests/set.yaml",
        second_params: "@examples/real-guests/step.json",
        path: "/burn?ms=50",
        rates: (3.0, 26.0),
        ready_limit: Duration::from_secs(120),
        settle_limit: Duration::from_secs(30),
        delete_limit: Duration::from_secs(60),
    };
}

/// What came of a demo.
pub(crate) struct Outcome {
    /// The claims.
    pub(crate) checks: Vec<Check>,
    /// The requests.
    pub(crate) tally: Tally,
    /// Number of ticks recorded.
    pub(crate) ticks: usize,
    /// Most instances in service at once.
    pub(crate) peak: usize,
}

/// Follows a set through the daemon's API.
struct Watch<'a> {
    daemon: &'a Daemon,
    records: Vec<TickRecord>,
    /// How many of the records have been told.
    told: usize,
}

impl Watch<'_> {
    /// The set now; also fetches the records that are new.
    async fn look(&mut self) -> Result<SetDetail> {
        let detail: SetDetail = self.daemon.get(&format!("/v1/sets/{SET}")).await?;
        let after = self.records.last().map_or(0, |last| last.observation.tick);
        let path = format!("/v1/sets/{SET}/records?after={after}&limit=1000");
        let new: Vec<TickRecord> = self.daemon.get(&path).await?;
        self.records.extend(new);
        Ok(detail)
    }

    /// Prints the decisions since the last time that changed the capacity.
    fn tell(&mut self, screen: &mut Screen) {
        for record in self.records[self.told..].iter().filter(|record| record.changes_capacity()) {
            let policy = record.runs.first().map_or("no policy", |run| run.name.as_str());
            screen.say(format_args!("        {} ({policy})", record.summary()));
        }
        self.told = self.records.len();
    }
}

/// Applies the manifest and waits until the set's first instances serve.
pub(crate) async fn apply(daemon: &Daemon, scenario: &Scenario) -> Result<SetSummary> {
    let file = scenario.manifest;
    print(format_args!("      $ regatta apply -f {file}"));
    daemon.cli(&["apply", "-f", file]).await?;
    let deadline = Instant::now() + scenario.ready_limit;
    loop {
        let detail: SetDetail = daemon.get(&format!("/v1/sets/{SET}")).await?;
        let summary = detail.summary;
        if summary.count("in-service") >= summary.desired.max(1) {
            return Ok(summary);
        }
        if Instant::now() >= deadline {
            bail!(
                "after {} s the set has {:?}, wanted {} in service {}",
                scenario.ready_limit.as_secs(),
                summary.instances,
                summary.desired,
                summary.problems.join("; ")
            );
        }
        sleep(POLL).await;
    }
}

/// Drives the load and shows what happens.
pub(crate) async fn play(
    daemon: &Daemon,
    scenario: &Scenario,
    set: &SetSummary,
    length: Duration,
) -> Result<Outcome> {
    let address: SocketAddr = set
        .load_balancer
        .as_deref()
        .context("the set has no load balancer")?
        .parse()
        .context("the load balancer's address is none")?;
    let profile = Profile::tide(length, scenario.rates.0, scenario.rates.1);
    let mut screen = Screen::new();
    let mut watch = Watch { daemon, records: Vec::new(), told: 0 };
    let mut history = History::default();
    let mut swap = None;
    let load = Load::start(address, scenario.path, profile, SEED);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !load.is_finished() {
        looks.tick().await;
        let detail = watch.look().await?;
        watch.tell(&mut screen);
        let view = SetView::new(&detail, watch.records.last());
        history.push(Sample {
            rate: load.rate(),
            utilization: view.utilization,
            in_service: view.count("in-service"),
        });
        let tally = load.tally();
        screen.show(&Frame {
            elapsed: load.elapsed(),
            length,
            rate: load.rate(),
            tally: &tally,
            set: &view,
            history: &history,
        });
        if swap.is_none() && load.elapsed() * 2 >= length {
            swap = Some(swap_policy(daemon, scenario.second_params, &mut screen).await?);
        }
        if load.elapsed() > length + REST_LIMIT {
            load.stop();
            break;
        }
    }
    let tally = load.tally();
    settle(&mut watch, &tally, swap.as_ref(), scenario.settle_limit).await?;
    watch.tell(&mut screen);
    let records = &watch.records;
    Ok(Outcome {
        checks: judge(&tally, records, swap.as_ref()),
        ticks: records.len(),
        peak: records.iter().map(TickRecord::in_service).max().unwrap_or(0),
        tally,
    })
}

/// Gives the set the time to act on the last decisions before it is judged.
async fn settle(
    watch: &mut Watch<'_>,
    tally: &Tally,
    swap: Option<&SwapOutcome>,
    limit: Duration,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        watch.look().await?;
        let scaling =
            judge(tally, &watch.records, swap).into_iter().filter(|check| check.claim.starts_with("scaled"));
        if scaling.into_iter().all(|check| check.holds) || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(POLL).await;
    }
}

async fn swap_policy(daemon: &Daemon, params: &str, screen: &mut Screen) -> Result<SwapOutcome> {
    let mut arguments = vec!["policy", "swap", SET, SECOND_POLICY, "--params", params];
    screen.say(format_args!("      $ regatta {}", arguments.join(" ")));
    arguments.extend(["-o", "json"]);
    let answer = daemon.cli(&arguments).await?;
    let swap: SwapOutcome =
        serde_json::from_str(&answer).context("the answer of the swap is not what was expected")?;
    screen.say(format_args!(
        "        {} decided tick {}, {} decides from the next one on",
        swap.from.name, swap.after_tick, swap.to.name
    ));
    Ok(swap)
}

/// Prints the daemon's own answer to why it scaled, once each way.
pub(crate) async fn explain(daemon: &Daemon) -> Result<()> {
    for way in ["scale-out", "scale-in"] {
        print(format_args!("      $ regatta why {SET} --last {way}"));
        match daemon.cli(&["why", SET, "--last", way]).await {
            Ok(text) => text.lines().for_each(|line| print(format_args!("        {line}"))),
            // That it never happened is judged elsewhere.
            Err(error) => print(format_args!("        {error}")),
        }
    }
    Ok(())
}

/// Removes the set, if it is there, and waits until its last instance is gone.
pub(crate) async fn delete(daemon: &Daemon, limit: Duration) -> Result<()> {
    let gone = async || -> Result<bool> {
        let sets: Vec<serde_json::Value> = daemon.get("/v1/sets").await?;
        Ok(sets.iter().all(|set| set["name"] != SET))
    };
    if gone().await? {
        return Ok(());
    }
    daemon.cli(&["delete", SET, "--yes"]).await?;
    let deadline = Instant::now() + limit;
    loop {
        if gone().await? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(anyhow!("the set was not gone after {} s", limit.as_secs()));
        }
        sleep(POLL).await;
    }
}

/// Prints the summary; returns whether every claim holds.
pub(crate) fn report(outcome: &Outcome, logs: &[PathBuf]) -> bool {
    let tally = &outcome.tally;
    print(format_args!(
        "      {} ticks, at most {} instances in service, {} requests",
        outcome.ticks, outcome.peak, tally.due
    ));
    if let Some([median, tail, worst]) = tally.percentiles([0.5, 0.99, 1.0]) {
        print(format_args!("      latency p50 {}, p99 {}, worst {}", ms(median), ms(tail), ms(worst)));
    }
    for check in &outcome.checks {
        let mark = if check.holds { "yes" } else { "NO " };
        print(format_args!("      {mark} {:<26} {}", check.claim, check.because));
    }
    for log in logs {
        print(format_args!("      log: {}", log.display()));
    }
    outcome.checks.iter().all(|check| check.holds)
}
