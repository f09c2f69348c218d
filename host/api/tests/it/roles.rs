//! Every endpoint asks for the role that the table gives it.

use std::sync::Arc;

use axum::Extension;
use regatta_api::types::{ApiError, ErrorCode};
use regatta_api::{Caller, ENDPOINTS, Role, router};
use reqwest::Method;

use crate::canned::Canned;
use crate::routes::ask;
use crate::server::Server;

/// Calls every endpoint, with the least that is valid JSON, and gives those that refuse the role.
fn refused(caller: Option<Caller>) -> (Vec<&'static str>, Server) {
    let canned = Arc::new(Canned::with_web());
    // Takes the place of whom the socket names.
    let router = match caller {
        Some(caller) => router(canned.clone()).layer(Extension(caller)),
        None => router(canned.clone()),
    };
    let server = Server::start_with(canned, router);
    let refused = ENDPOINTS.iter().filter(|endpoint| {
        let method = Method::from_bytes(endpoint.method.to_uppercase().as_bytes()).unwrap();
        let path = endpoint.path.replace("{set}", "web").replace("{image}", "tiny");
        let path = path.replace("{id}", "4").replace("{number}", "4").replace("{recording}", "incident");
        let (status, body) = ask(&server, method, &path, Some("{}"));
        let forbidden = serde_json::from_str(&body).is_ok_and(|error: ApiError| {
            if error.code == ErrorCode::Forbidden {
                let role = endpoint.role.as_str();
                let needs = format!("{} needs the role {role}, ann has the role ", endpoint.name);
                assert!(error.message.starts_with(&needs), "{}", error.message);
            }
            error.code == ErrorCode::Forbidden
        });
        assert_eq!(forbidden, status == 403, "{}: {status} {body}", endpoint.name);
        forbidden
    });
    (refused.map(|endpoint| endpoint.name).collect(), server)
}

#[test]
fn a_call_needs_the_role_that_the_table_names() {
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let (refused, server) = refused(Some(Caller { name: "ann".into(), uid: Some(1), role }));
        let above = ENDPOINTS.iter().filter(|endpoint| endpoint.role > role);
        assert_eq!(refused, above.map(|endpoint| endpoint.name).collect::<Vec<_>>(), "{role:?}");
        if role == Role::Viewer {
            let changes: Vec<_> =
                server.canned.called().into_iter().filter(|call| call.contains(" by ")).collect();
            assert_eq!(changes, Vec::<String>::new(), "what is refused does not reach the daemon");
        }
    }
}

#[test]
fn the_owner_of_the_socket_may_do_everything() {
    assert_eq!(refused(None).0, Vec::<&str>::new());
}

#[test]
fn what_changes_something_is_not_for_viewers() {
    for endpoint in ENDPOINTS {
        assert_eq!(endpoint.role == Role::Viewer, endpoint.method == "get", "{}", endpoint.name);
    }
}
