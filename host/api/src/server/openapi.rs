//! The OpenAPI document.

use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{
    Array, ComponentsBuilder, Content, InfoBuilder, License, Object, OpenApi, OpenApiBuilder, Paths, Ref,
    RefOr, Required, Response, ResponseBuilder, Schema,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use crate::endpoints::{Endpoint, endpoints};
use crate::image_types::*;
use crate::input::{Json, Query, Upload};
use crate::log_types::*;
use crate::recording_types::*;
use crate::recovery_types::*;
use crate::size_types::*;
use crate::types::*;
use crate::upgrade_types::*;

/// What the parameters of paths are.
const PARAMETERS: [(&str, &str); 5] = [
    ("set", "Name of the set"),
    ("id", "Ordinal of the instance within the set"),
    ("number", "Number of its activation"),
    ("recording", "Name of the recording"),
    ("image", "Name; to look one up, also the digest of a file"),
];

/// The schemas that the document refers to.
#[derive(Default)]
struct Schemas(Vec<(String, RefOr<Schema>)>);

impl Schemas {
    fn of<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.0.push((T::name().into(), T::schema()));
        T::schemas(&mut self.0);
        Ref::from_schema_name(T::name()).into()
    }
}

/// The answer of an endpoint.
macro_rules! answer {
    ($schemas:ident ImportLines) => {
        response("One ImportEvent a line", "application/x-ndjson", $schemas.of::<ImportEvent>())
    };
    ($schemas:ident OpenMetrics) => {
        response("", "application/openmetrics-text", String::schema())
    };
    // The core's own types, whose shape the document leaves open.
    ($schemas:ident Comparison) => {
        json("A comparison", Object::new())
    };
    ($schemas:ident TickRecord) => {
        json("A tick record", Object::new())
    };
    ($schemas:ident Vec<TickRecord>) => {
        json("Tick records", Array::new(Object::new()))
    };
    ($schemas:ident Vec<$item:ident>) => {
        json("", Array::new($schemas.of::<$item>()))
    };
    ($schemas:ident $type:ident) => {
        json("", $schemas.of::<$type>())
    };
}

fn json(description: &str, schema: impl Into<RefOr<Schema>>) -> Response {
    response(description, "application/json", schema)
}

fn response(description: &str, content_type: &str, schema: impl Into<RefOr<Schema>>) -> Response {
    ResponseBuilder::new().description(description).content(content_type, Content::new(Some(schema))).build()
}

impl<T: ToSchema> Json<T> {
    fn describe(operation: OperationBuilder, schemas: &mut Schemas) -> OperationBuilder {
        let content = Content::new(Some(schemas.of::<T>()));
        let body =
            RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True));
        operation.request_body(Some(body.build()))
    }
}

impl<T: ToSchema> Upload<T> {
    fn describe(operation: OperationBuilder, schemas: &mut Schemas) -> OperationBuilder {
        Json::<T>::describe(operation, schemas)
    }
}

impl<T: IntoParams> Query<T> {
    fn describe(operation: OperationBuilder, _: &mut Schemas) -> OperationBuilder {
        T::into_params(|| Some(ParameterIn::Query)).into_iter().fold(operation, OperationBuilder::parameter)
    }
}

macro_rules! document {
    ($(
        $(@$by_hand:ident)?
        $(#[doc = $doc:literal])+
        $method:ident $path:literal $attributes:tt
        $name:ident($($parameter:ident: $parameter_type:ty),*) $($input:ident: $carrier:ident<$input_type:ty>)?
            => $answer:ident $(<$item:ident>)?;
    )*) => {
        fn operations(schemas: &mut Schemas) -> Vec<(Endpoint, Operation)> {
            vec![$({
                let operation = operation(Endpoint::$name);
                $(let operation = parameter(operation, stringify!($parameter), <$parameter_type>::schema());)*
                $(let operation = $carrier::<$input_type>::describe(operation, schemas);)?
                let operation = operation
                    .response("200", answer!(schemas $answer $(<$item>)?))
                    .response("default", json("", schemas.of::<ApiError>()));
                (Endpoint::$name, operation.build())
            }),*]
        }
    };
}
endpoints!(document);

/// What the table says of an endpoint, without its types.
fn operation(endpoint: Endpoint) -> OperationBuilder {
    let lines: Vec<&str> = endpoint.doc.iter().map(|line| line.trim()).collect();
    let text = lines.join("\n");
    let (summary, details) = text.split_once("\n\n").map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
    OperationBuilder::new()
        .tag(endpoint.tag)
        .summary(Some(summary))
        .description(details)
        .operation_id(Some(endpoint.name))
        .extensions(Some(ExtensionsBuilder::new().add("x-required-role", endpoint.role.as_str()).build()))
}

fn parameter(operation: OperationBuilder, name: &str, schema: RefOr<Schema>) -> OperationBuilder {
    let description =
        PARAMETERS.iter().find(|(known, _)| *known == name).map(|(_, description)| *description);
    let parameter =
        ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
    operation.parameter(parameter.description(description).schema(Some(schema)))
}

/// The OpenAPI document of the API.
#[must_use]
pub fn openapi() -> OpenApi {
    let mut schemas = Schemas::default();
    let mut paths = Paths::new();
    for (endpoint, operation) in operations(&mut schemas) {
        let method = match endpoint.method {
            "get" => HttpMethod::Get,
            "put" => HttpMethod::Put,
            "post" => HttpMethod::Post,
            _ => HttpMethod::Delete,
        };
        paths.add_path_operation(endpoint.path, vec![method], operation);
    }
    let description = "The API of a Regatta daemon, on its Unix socket. Times are Unix milliseconds. \
        Every error, also that of an unknown route, has an ApiError as its body. \
        `x-required-role` is the least role that may call an operation: viewer, operator or admin.";
    let license = env!("CARGO_PKG_LICENSE");
    let mut license = License::new(license);
    license.identifier = Some(env!("CARGO_PKG_LICENSE").to_owned());
    let info = InfoBuilder::new()
        .title("Regatta")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(description))
        .license(Some(license));
    let components = ComponentsBuilder::new().schemas_from_iter(schemas.0);
    OpenApiBuilder::new().info(info.build()).paths(paths).components(Some(components.build())).build()
}
