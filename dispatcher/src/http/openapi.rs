//! `/openapi.json`: the route table as an OpenAPI 3.1 document.

use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::path::{HttpMethod, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::doc::{BEARER, PROBLEM};
use super::routes::Route;
use clawlink_shared::problem::Problem;

/// The document as it is served: made once, when somebody asks, since the table never changes.
#[derive(Clone)]
pub struct Document(Arc<LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>>);

impl Document {
    /// Of these routes.
    pub fn of(routes: Vec<Route>) -> Self {
        let make = move || {
            let json = serde_json::to_vec(&document(&routes)).expect("a document serializes");
            json.into()
        };
        Self(Arc::new(LazyLock::new(Box::new(make))))
    }
}

/// `GET /openapi.json`.
pub(super) async fn openapi(Extension(document): Extension<Document>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, Bytes::clone(&document.0)).into_response()
}

/// The document of these routes.
pub fn document(routes: &[Route]) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new().security_scheme(
        BEARER,
        SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build()),
    );
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas.push((PROBLEM.to_owned(), Problem::schema()));
    for route in routes {
        let (operation, used) = route.doc.operation(route.path, route.access);
        let item = PathItem::new(method(route), operation);
        paths = paths.path(route.path, item);
        schemas.extend_from_slice(used);
    }
    for (name, schema) in schemas {
        components = components.schema(name, schema);
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("clawlink")
                .description(Some("Runs coding agents as jobs."))
                .version(env!("CARGO_PKG_VERSION"))
                .build(),
        )
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}
