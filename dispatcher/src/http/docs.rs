//! `/docs`: the OpenAPI document as a page that works without a network.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use utoipa_swagger_ui::Config;

use super::edge::PAGE_POLICY;
use crate::error::{ApiError, ApiResult};

static CONFIG: LazyLock<Arc<Config<'static>>> =
    LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

/// `GET /docs`.
pub(super) async fn redirect() -> Redirect {
    Redirect::permanent("/docs/")
}

/// `GET /docs/`.
pub(super) async fn index() -> ApiResult<Response> {
    file(Path("index.html".to_owned())).await
}

/// `GET /docs/{file}`.
pub(super) async fn file(Path(name): Path<String>) -> ApiResult<Response> {
    let found = utoipa_swagger_ui::serve(&name, CONFIG.clone())
        .map_err(|error| anyhow::anyhow!("read {name} of the documentation: {error}"))?;
    let file = found.ok_or_else(|| ApiError::not_found("not_found", "no such page"))?;
    let headers = [
        (header::CONTENT_TYPE, file.content_type),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY.to_owned()),
    ];
    Ok((headers, file.bytes.into_owned()).into_response())
}
