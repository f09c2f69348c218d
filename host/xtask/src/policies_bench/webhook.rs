//! The decision by a webhook, as the autoscaler of Agones has it: JSON is posted over HTTP/1.1 and JSON comes back, over
//! one TCP connection that is kept.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use regatta_core::decision::Decision;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{InstanceTable, MetricObservation, MetricScope, Observation};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use crate::decider::{self, Answer};

const PATH: &str = "/scale";

/// What is posted: a review with its request, as Kubernetes' and Agones' webhooks have it.
#[derive(Serialize, Deserialize)]
struct Review<Request> {
    request: Request,
}

/// What crosses of an observation: those metrics only that the policy asks for, without their windows.
#[derive(Serialize, Deserialize)]
struct Asked<'a> {
    uid: Cow<'a, str>,
    set: Cow<'a, str>,
    tick: u64,
    now_ms: u64,
    generation: u64,
    min: u32,
    max: u32,
    desired: u32,
    instances: Cow<'a, InstanceTable>,
    metrics: Vec<AskedMetric<'a>>,
    params: Cow<'a, str>,
    state: Cow<'a, [u8]>,
}

#[derive(Serialize, Deserialize)]
struct AskedMetric<'a> {
    name: Cow<'a, str>,
    scope: MetricScope,
    values: Cow<'a, [MetricValue]>,
}

/// What comes back.
#[derive(Serialize, Deserialize)]
struct Reviewed {
    response: Response,
}

#[derive(Serialize, Deserialize)]
struct Response {
    uid: String,
    decision: Result<Decision, String>,
    state: Vec<u8>,
}

/// The webhook: says where it listens, and answers until its process ends.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
    println!("{}", listener.local_addr()?);
    let app = Router::new().route(PATH, post(review)).layer(DefaultBodyLimit::disable());
    // As Go's servers do it; where it cannot be had, the figures tell.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    axum::serve(listener, app).await?;
    Ok(())
}

/// The body is read here: axum's own `Json` also keeps the path of what it reads, for its errors, and takes twice as long.
async fn review(body: Bytes) -> Result<Json<Reviewed>, (StatusCode, String)> {
    let review = serde_json::from_slice::<Review<Asked<'_>>>(&body);
    let Review { request } = review.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    let metric = |metric: AskedMetric<'_>| MetricObservation {
        name: metric.name.into_owned(),
        scope: metric.scope,
        values: metric.values.into_owned(),
        window: Vec::new(),
    };
    let observation = Observation {
        set: request.set.into_owned(),
        tick: request.tick,
        now_ms: request.now_ms,
        generation: request.generation,
        min: request.min,
        max: request.max,
        desired: request.desired,
        instances: request.instances.into_owned(),
        metrics: request.metrics.into_iter().map(metric).collect(),
        last: None,
        schedule: Vec::new(),
    };
    let metrics: Vec<String> = observation.metrics.iter().map(|metric| metric.name.clone()).collect();
    let tick = decider::fold(&observation, &metrics);
    let (decision, state) = match decider::decide(tick, &request.params, &request.state) {
        Ok(outcome) => {
            let Answer { decision, state } = outcome.into();
            (Ok(decision), state)
        }
        Err(message) => (Err(message), Vec::new()),
    };
    Ok(Json(Reviewed { response: Response { uid: request.uid.into_owned(), decision, state } }))
}

/// The host's end of the connection.
pub(crate) struct Client {
    connection: SendRequest<Full<Bytes>>,
    address: String,
}

impl Client {
    /// Connects with the webhook that printed `line`.
    pub(crate) async fn connect(line: &str) -> Result<Self> {
        let stream = TcpStream::connect(line).await.with_context(|| format!("cannot connect with {line}"))?;
        stream.set_nodelay(true)?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends when the sender is dropped.
        tokio::spawn(driver);
        Ok(Self { connection, address: line.to_owned() })
    }

    /// One decision: writes the observation as JSON, waits for the answer and reads it.
    pub(crate) async fn decide(
        &mut self,
        observation: &Observation,
        metrics: &[String],
        params: &str,
        state: &[u8],
    ) -> Result<Answer> {
        let uid = format!("{}-{}", observation.set, observation.tick);
        let body = serde_json::to_vec(&asked(&uid, observation, metrics, params, state))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        self.connection.ready().await.context("the webhook is gone")?;
        let response = self.connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == StatusCode::OK, "the webhook answers {status}: {}", String::from_utf8_lossy(&body));
        let Reviewed { response } = serde_json::from_slice(&body)?;
        ensure!(response.uid == uid, "the webhook answers {}, and was asked {uid}", response.uid);
        let decision = response.decision.map_err(|message| anyhow::anyhow!(message))?;
        Ok(Answer { decision, state: response.state })
    }
}

fn asked<'a>(
    uid: &'a str,
    observation: &'a Observation,
    metrics: &[String],
    params: &'a str,
    state: &'a [u8],
) -> Review<Asked<'a>> {
    let metric = |metric: &'a MetricObservation| AskedMetric {
        name: metric.name.as_str().into(),
        scope: metric.scope,
        values: metric.values.as_slice().into(),
    };
    let request = Asked {
        uid: uid.into(),
        set: observation.set.as_str().into(),
        tick: observation.tick,
        now_ms: observation.now_ms,
        generation: observation.generation,
        min: observation.min,
        max: observation.max,
        desired: observation.desired,
        instances: Cow::Borrowed(&observation.instances),
        metrics: metrics.iter().filter_map(|name| observation.metric(name)).map(metric).collect(),
        params: params.into(),
        state: state.into(),
    };
    Review { request }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{observation, set};

    #[test]
    fn an_observation_crosses_whole_but_for_what_is_not_asked_for() {
        let set = set(5).expect("the quickstart is valid");
        let mut seen = observation(&set, 5, 1);
        let cpu = seen.metrics.iter_mut().find(|metric| metric.name == "cpu").expect("a metric");
        cpu.values[1] = MetricValue::Missing;
        cpu.values[2] = MetricValue::Stale { value: 0.5, age_ms: 7 };
        let text =
            serde_json::to_string(&asked("u", &seen, &["cpu".to_owned()], "{}", b"\x00")).expect("JSON");
        let Review { request } = serde_json::from_str::<Review<Asked<'_>>>(&text).expect("it is read");
        assert_eq!((&*request.uid, &*request.params, &*request.state), ("u", "{}", &[0][..]));
        assert_eq!(*request.instances, seen.instances);
        let [metric] = request.metrics.as_slice() else { panic!("{text}") };
        assert_eq!(Some(&*metric.values), seen.metric("cpu").map(|metric| &*metric.values));
    }
}
