//! The endpoint table, and the way from a request to an answer. Source: `vmm/src/api/http` of v53.0.

use serde::de::DeserializeOwned;

use crate::http::{Method, Request, Response};
use crate::vmm::{Action, NewDevice, Reply};

const ROOT: &str = "/api/v1/";

/// What an endpoint makes of a request's body.
enum Body {
    /// There must be none.
    Refused(fn() -> Action),
    /// One may be there, and nobody looks at it.
    Ignored(fn() -> Action),
    /// JSON; a request without it is refused with `["Bad Request"]`.
    Json(fn(&[u8]) -> serde_json::Result<Action>),
    /// JSON; a request without it is refused with no text at all.
    JsonOrSilence(fn(&[u8]) -> serde_json::Result<Action>),
}

/// One endpoint.
struct Endpoint {
    method: Method,
    name: &'static str,
    body: Body,
    /// First message of a failure, behind "Error from API".
    failed: &'static str,
}

const fn row(method: Method, name: &'static str, body: Body, failed: &'static str) -> Endpoint {
    Endpoint { method, name, body, failed }
}

fn read<T: DeserializeOwned>(body: &[u8], action: impl FnOnce(T) -> Action) -> serde_json::Result<Action> {
    serde_json::from_slice(body).map(action)
}

fn add<T: DeserializeOwned>(body: &[u8], device: impl FnOnce(T) -> NewDevice) -> serde_json::Result<Action> {
    read(body, |config| Action::Add(Box::new(device(config))))
}

use Body::{Ignored, Json, JsonOrSilence, Refused};
use Method::{Get, Put};

#[rustfmt::skip]
const ENDPOINTS: &[Endpoint] = &[
    row(Get, "vmm.ping",                 Ignored(|| Action::Ping),                                          "The VMM does not answer"),
    row(Put, "vmm.shutdown",             Ignored(|| Action::VmmShutdown),                                   "The VMM could not shutdown"),
    row(Put, "vm.create",                JsonOrSilence(|b| read(b, |c| Action::Create(Box::new(c)))),       "The VM could not be created"),
    row(Put, "vm.delete",                Refused(|| Action::Delete),                                        "The VM could not be deleted"),
    row(Put, "vm.boot",                  Refused(|| Action::Boot),                                          "The VM could not boot"),
    row(Get, "vm.info",                  Ignored(|| Action::Info),                                          "The VM info is not available"),
    row(Get, "vm.counters",              Ignored(|| Action::Counters),                                      "The VM info is not available"),
    row(Put, "vm.shutdown",              Refused(|| Action::Shutdown),                                      "The VM could not shutdown"),
    row(Put, "vm.power-button",          Refused(|| Action::PowerButton),                                   "Error triggering power button"),
    row(Put, "vm.nmi",                   Refused(|| Action::Nmi),                                           "Error triggering NMI"),
    row(Put, "vm.reboot",                Refused(|| Action::Reboot),                                        "The VM could not reboot"),
    row(Put, "vm.pause",                 Refused(|| Action::Pause),                                         "The VM could not be paused"),
    row(Put, "vm.resume",                Refused(|| Action::Resume),                                        "The VM could not resume"),
    row(Put, "vm.snapshot",              Json(|b| read(b, Action::Snapshot)),                               "The VM could not be snapshotted"),
    row(Put, "vm.restore",               Json(|b| read(b, Action::Restore)),                                "The VM could not be restored"),
    row(Put, "vm.resize",                Json(|b| read(b, Action::Resize)),                                 "The VM could not be resized"),
    row(Put, "vm.resize-zone",           Json(|b| read(b, Action::ResizeZone)),                             "The memory zone could not be resized"),
    row(Put, "vm.resize-disk",           Json(|b| read(b, Action::ResizeDisk)),                             "The disk could not be resized"),
    row(Put, "vm.add-disk",              Json(|b| add(b, NewDevice::Disk)),                                 "The disk could not be added to the VM"),
    row(Put, "vm.add-net",               Json(|b| add(b, NewDevice::Net)),                                  "The network device could not be added to the VM"),
    row(Put, "vm.add-fs",                Json(|b| add(b, NewDevice::Fs)),                                   "The fs could not be added to the VM"),
    row(Put, "vm.add-pmem",              Json(|b| add(b, NewDevice::Pmem)),                                 "The pmem device could not be added to the VM"),
    row(Put, "vm.add-vsock",             Json(|b| add(b, NewDevice::Vsock)),                                "The vsock device could not be added to the VM"),
    row(Put, "vm.add-vdpa",              Json(|b| add(b, NewDevice::Vdpa)),                                 "The vDPA device could not be added to the VM"),
    row(Put, "vm.add-device",            Json(|b| add(b, NewDevice::Vfio)),                                 "The device could not be added to the VM"),
    row(Put, "vm.add-user-device",       Json(|b| add(b, NewDevice::User)),                                 "The user device could not be added to the VM"),
    row(Put, "vm.add-generic-vhost-user", Json(|b| add(b, NewDevice::GenericVhostUser)),                    "The generic vhost-user device could not be added to the VM"),
    row(Put, "vm.remove-device",         Json(|b| read(b, Action::RemoveDevice)),                           "The device could not be removed from the VM"),
    row(Put, "vm.send-migration",        Json(|b| read(b, Action::SendMigration)),                          "Error dispatching the migration worker"),
    row(Put, "vm.receive-migration",     Json(|b| read(b, Action::ReceiveMigration)),                       "Error receiving migration"),
];

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Routed {
    /// A call for the VMM.
    Call(Call),
    /// An answer that needs no VMM.
    Answer(Response),
}

/// A call and the names around it.
#[derive(Debug)]
pub(crate) struct Call {
    /// `vm.boot` and the like.
    pub(crate) name: &'static str,
    failed: &'static str,
    pub(crate) action: Action,
}

/// Why a call failed: HTTP status and the messages behind the call's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) messages: Vec<String>,
}

/// Whether `name` is a call of the API.
pub(crate) fn is_call(name: &str) -> bool {
    ENDPOINTS.iter().any(|endpoint| endpoint.name == name)
}

/// Finds the endpoint and reads the body.
pub(crate) fn route(request: &Request) -> Routed {
    let name = request.path().strip_prefix(ROOT).unwrap_or_default();
    let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.name == name) else {
        return Routed::Answer(error(404, &["Not Found"]));
    };
    // Four endpoints have handlers of their own upstream, which put text into every refusal.
    let generic = !matches!(name, "vm.create" | "vm.info" | "vmm.ping" | "vmm.shutdown");
    if request.method == Method::Patch && generic {
        return Routed::Answer(Response::empty(400));
    }
    if request.method != endpoint.method {
        return Routed::Answer(error(400, &["Bad Request"]));
    }
    let action = match (&endpoint.body, &request.body) {
        (Body::Ignored(action), _) | (Body::Refused(action), None) => Ok(action()),
        (Body::Json(read) | Body::JsonOrSilence(read), Some(body)) => read(body),
        (Body::JsonOrSilence(_), None) => return Routed::Answer(Response::empty(400)),
        (Body::Refused(_), Some(_)) | (Body::Json(_), None) => {
            return Routed::Answer(error(400, &["Bad Request"]));
        }
    };
    match action {
        Ok(action) => Routed::Call(Call { name: endpoint.name, failed: endpoint.failed, action }),
        Err(problem) => Routed::Answer(error(400, &["Failed to deserialize JSON", &problem.to_string()])),
    }
}

/// The response to a call that was carried out.
pub(crate) fn answer(failed: Failed, outcome: Result<Reply, Failure>) -> Response {
    match outcome {
        Ok(Reply::Nothing) => Response::empty(204),
        Ok(Reply::ShuttingDown) => Response::empty(200),
        Ok(Reply::Json(json)) => Response::json(200, json),
        Err(Failure { status: 429, .. }) => error(429, &["Too Many Requests"]),
        Err(Failure { status, messages }) => {
            let mut chain = vec!["Error from API", failed.0];
            chain.extend(messages.iter().map(String::as_str));
            error(status, &chain)
        }
    }
}

/// The first message of a call's failures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed(&'static str);

impl Call {
    /// The first message of this call's failures.
    pub(crate) fn failed(&self) -> Failed {
        Failed(self.failed)
    }
}

fn error(status: u16, messages: &[&str]) -> Response {
    Response::json(status, serde_json::to_string(messages).unwrap_or_default())
}
