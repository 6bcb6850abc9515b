//! Enforces a route's declared [`Access`] before its handler runs.

use axum::RequestExt;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::principal::Principal;
use super::store;
use crate::app::App;
use crate::audit::refusals::{self, Caller};
use crate::error::{ApiError, ApiResult};
use crate::http::limit::Standing;
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
) -> Response {
    let admitted = check(&app, access, &mut request).await;
    let extensions = request.extensions();
    let caller = Caller {
        principal: extensions.get().cloned(),
        person: extensions.get().cloned(),
        address: extensions.get().map(|Peer(address)| *address),
    };
    let (method, path) = (
        request.method().clone(),
        extensions.get::<MatchedPath>().cloned(),
    );
    let response = match admitted {
        Ok(standing) => {
            let mut response = next.run(request).await;
            if let Some(standing) = standing {
                standing.tell(response.headers_mut());
            }
            response
        }
        Err(refusal) => refusal.into_response(),
    };
    let status = response.status();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let path = path.as_ref().map_or("", MatchedPath::as_str);
        refusals::note(&app, &caller, access, &format!("{method} {path}"), status).await;
    }
    response
}

/// Lets a request pass, with who made it among its extensions, or refuses it. Answers how many
/// requests the caller has left.
async fn check(app: &App, access: Access, request: &mut Request) -> ApiResult<Option<Standing>> {
    match access {
        Access::Public => {}
        Access::Person | Access::PlatformAdmin => {
            return Err(ApiError::unauthorized("sign in first"));
        }
        Access::Needs(permission) => {
            let mut principal = authenticate(app, request.headers()).await?;
            principal.address = request.extensions().get().map(|Peer(address)| *address);
            tracing::Span::current().record("workspace", principal.workspace.0);
            let standing = app.limiter.admit(&app.bus, &principal.name()).await?;
            let allowed = principal.require(permission);
            request.extensions_mut().insert(principal);
            allowed?;
            return Ok(standing);
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
            name_execution(request).await;
        }
    }
    Ok(None)
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
