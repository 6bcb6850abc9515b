//! Enforces a route's declared [`Access`] before its handler runs.

use axum::RequestExt;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::principal::Principal;
use super::store;
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::http::listen::Peer;
use crate::http::routes::Access;
use crate::secrets::hash_token;

/// The lease token that a worker showed; handlers compare it with the execution's.
#[derive(Clone)]
pub struct LeaseHash(pub [u8; 32]);

/// The middleware that [`crate::http::routes::Routes`] puts before every handler.
pub async fn admit(
    State((app, access)): State<(App, Access)>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let mut standing = None;
    match access {
        Access::Public => {}
        Access::Person | Access::PlatformAdmin => {
            return Err(ApiError::unauthorized("sign in first"));
        }
        Access::Needs(permission) => {
            let mut principal = authenticate(&app, request.headers()).await?;
            principal.address = request.extensions().get().map(|Peer(address)| *address);
            tracing::Span::current().record("workspace", principal.workspace.0);
            standing = app.limiter.admit(&app.bus, &principal.name()).await?;
            principal.require(permission)?;
            request.extensions_mut().insert(principal);
        }
        Access::Pool => {
            let token = bearer(request.headers())?;
            let shown = hash_token(token);
            if !bool::from(shown.ct_eq(&hash_token(app.pool_token.expose()))) {
                return Err(ApiError::unauthorized("the pool token is wrong"));
            }
        }
        Access::Lease => {
            let hash = LeaseHash(hash_token(bearer(request.headers())?));
            request.extensions_mut().insert(hash);
            name_execution(&mut request).await;
        }
    }
    let mut response = next.run(request).await;
    if let Some(standing) = standing {
        standing.tell(response.headers_mut());
    }
    Ok(response)
}

/// Says in the request's span which execution a worker's call is about.
async fn name_execution(request: &mut Request) {
    let params = request.extract_parts::<RawPathParams>().await;
    let id = params.as_ref().ok().and_then(|params| {
        let id = params.iter().find(|(name, _)| *name == "id")?;
        id.1.parse::<i64>().ok()
    });
    tracing::Span::current().record("execution", id);
}

async fn authenticate(app: &App, headers: &HeaderMap) -> ApiResult<Principal> {
    let hash = hash_token(bearer(headers)?);
    let mut db = app.db.acquire().await?;
    store::principal_by_hash(&mut db, &hash)
        .await?
        .ok_or_else(|| ApiError::unauthorized("the API key is unknown, expired or revoked"))
}

fn bearer(headers: &HeaderMap) -> ApiResult<&str> {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty())
        .ok_or_else(|| {
            ApiError::unauthorized(
                "send `Authorization: Bearer <key>`; `clawlink admin create-key` makes one",
            )
        })
}
