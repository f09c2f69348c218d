//! The OpenAPI document is that of the table. `UPDATE=1` rewrites it.

use std::path::Path;

#[test]
fn the_openapi_document_is_that_of_the_routes() {
    let document = regatta_api::openapi().to_pretty_json().unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
        std::fs::write(&path, &document).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == document, "docs/openapi.json is not up to date; UPDATE=1 rewrites it");
}

#[test]
fn every_route_documents_its_errors_and_its_parameters() {
    let document = serde_json::to_value(regatta_api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 40, "{:?}", paths.keys());
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let error = &operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(error, "#/components/schemas/ApiError", "{method} {path}");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
        }
    }
    let why = document["paths"]["/v1/sets/{set}/why"]["get"]["parameters"].to_string();
    assert!(why.contains("tick") && why.contains("last"), "{why}");
}
