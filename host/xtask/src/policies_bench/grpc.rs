//! The decision by a plugin in a process of its own, over gRPC, as Nomad's autoscaler has it: started once, it says on
//! stdout where its Unix socket is; one unary call per decision over one connection.

use std::convert::Infallible;
use std::path::Path;
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, Result};
use regatta_core::observation::Observation;
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::codegen::tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::UnaryService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::decider::{self, Answer};
use crate::handshake::Handshake;
use crate::messages::{Evaluation, RunRequest, RunResponse};

/// The one method.
const RUN: &str = "/regatta.bench.v1.Policy/Run";

/// No message is larger: 10,000 instances take less than a tenth of it.
const MESSAGE_BYTES: usize = 16 << 20;

/// The plugin: says where it listens, and answers until its process ends.
pub(crate) async fn serve(directory: &Path) -> Result<()> {
    let socket = directory.join(format!("{}.sock", std::process::id()));
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    println!("{}", Handshake { socket: socket.display().to_string() });
    Server::builder().serve_with_incoming(Plugin, UnixListenerStream::new(listener)).await?;
    Ok(())
}

/// What tonic's code generator would write.
#[derive(Clone)]
struct Plugin;

impl Service<HttpRequest<Body>> for Plugin {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path() != RUN {
                return Ok(Status::unimplemented(request.uri().path().to_owned()).into_http());
            }
            let codec = ProstCodec::<RunResponse, RunRequest>::default();
            let mut grpc =
                tonic::server::Grpc::new(codec).apply_max_message_size_config(Some(MESSAGE_BYTES), None);
            Ok(grpc.unary(Run, request).await)
        })
    }
}

struct Run;

impl UnaryService<RunRequest> for Run {
    type Response = RunResponse;
    type Future = BoxFuture<Response<RunResponse>, Status>;

    fn call(&mut self, request: Request<RunRequest>) -> Self::Future {
        Box::pin(async move { run(request.into_inner()).map(Response::new) })
    }
}

fn run(request: RunRequest) -> Result<RunResponse, Status> {
    let observation = request
        .evaluation
        .and_then(Evaluation::into_observation)
        .ok_or_else(|| Status::invalid_argument("no evaluation that can be read"))?;
    let metrics: Vec<String> = observation.metrics.iter().map(|metric| metric.name.clone()).collect();
    let tick = decider::fold(&observation, &metrics);
    let outcome = decider::decide(tick, &request.params, &request.state);
    outcome.map(|outcome| Answer::from(outcome).into()).map_err(Status::failed_precondition)
}

/// The host's end of the connection.
pub(crate) struct Client {
    grpc: tonic::client::Grpc<Channel>,
}

impl Client {
    /// Connects with the plugin that printed `line`.
    pub(crate) async fn connect(line: &str) -> Result<Self> {
        let Handshake { socket } = Handshake::parse(line)?;
        let channel = Endpoint::from_shared(format!("unix://{socket}"))?.connect().await;
        let channel = channel.with_context(|| format!("cannot connect with {socket}"))?;
        let grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        Ok(Self { grpc })
    }

    /// One decision: encodes the observation, waits for the answer and decodes it.
    pub(crate) async fn decide(
        &mut self,
        observation: &Observation,
        metrics: &[String],
        params: &str,
        state: &[u8],
    ) -> Result<Answer> {
        let evaluation = Some(Evaluation::of(observation, metrics));
        let request = RunRequest { evaluation, params: params.to_owned(), state: state.to_vec() };
        self.grpc.ready().await.context("the plugin is gone")?;
        let codec = ProstCodec::<RunRequest, RunResponse>::default();
        let path = PathAndQuery::from_static(RUN);
        let response = self.grpc.unary(Request::new(request), path, codec).await;
        let response: Response<RunResponse> = response.context("the plugin does not decide")?;
        Ok(response.into_inner().into())
    }
}
