//! No request, however strange, brings the server down or gets anything but JSON.

use proptest::prelude::*;
use regatta_api::types::ApiError;
use reqwest::Method;

use crate::canned::Canned;
use crate::routes::ask;
use crate::server::Server;

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop_oneof![
            Just("capacity".to_owned()),
            Just("source".to_owned()),
            Just("text".to_owned()),
            Just("base_dir".to_owned()),
            Just("module".to_owned()),
            Just("params".to_owned()),
            Just("protected".to_owned()),
            ".{0,6}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(name, inner, 0..5)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        json_value().prop_map(|value| value.to_string()),
        // Cut off somewhere.
        (json_value(), any::<prop::sample::Index>()).prop_map(|(value, at)| {
            let text = value.to_string();
            text.chars().take(at.index(text.len() + 1)).collect()
        }),
        ".{0,40}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["tick", "last", "after", "limit", "set", "odd"]);
    let value = prop_oneof!["[0-9]{1,22}", "-[0-9]{1,3}", "scale-(out|in|up)", "[a-z%&=+#0-9]{0,8}"];
    prop::collection::vec((name, value), 0..4).prop_map(|pairs| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // Many requests a case: a case starts a server.
    #[test]
    fn the_server_survives_any_request(requests in prop::collection::vec((0..8usize, query(), body()), 8)) {
        let server = Server::start(Canned::with_web());
        for (route, query, body) in requests {
            let (method, path) = [
                (Method::GET, "/v1/sets/web/why"),
                (Method::GET, "/v1/sets/web/records"),
                (Method::GET, "/v1/events"),
                (Method::POST, "/v1/apply"),
                (Method::POST, "/v1/sets/web/scale"),
                (Method::POST, "/v1/sets/web/policy/swap"),
                (Method::PUT, "/v1/sets/web/instances/4/protection"),
                (Method::DELETE, "/v1/sets/web"),
            ][route].clone();
            let (status, answer) = ask(&server, method.clone(), &format!("{path}?{query}"), Some(&body));
            if status.is_success() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok(), "{method} {path}: {answer}");
            } else {
                prop_assert!(serde_json::from_str::<ApiError>(&answer).is_ok(), "{method} {path}: {answer}");
                prop_assert!(status != 500, "{method} {path}?{query} {body}: {answer}");
            }
        }
    }
}
