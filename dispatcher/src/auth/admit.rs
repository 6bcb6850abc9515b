//! Enforces a route's declared [`Access`] before its handler runs.

use axum::RequestExt;
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::principal::{Person, Principal, Who};
use super::store::users::Status;
use super::watch::{Reader, watch};
use super::{rights, token};
use crate::app::App;
use crate::audit::refusals::{self, Caller};
use crate::devices;
use crate::error::{ApiError, ApiResult};
use crate::http::limit::Standing;
use crate::http::listen::Peer;
use crate::http::routes::Access;
use crate::runtime;
use crate::secrets::hash_token;
use crate::workspaces::role::{Permission, Role};

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
        Ok(admitted) => {
            let mut response = next.run(request).await;
            if let Some(standing) = admitted.standing {
                standing.tell(response.headers_mut());
            }
            match admitted.reader {
                Some(reader) => watch(&app, reader, response),
                None => response,
            }
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

/// What is known of a caller who may pass.
#[derive(Default)]
struct Admitted {
    /// How many requests the caller has left.
    standing: Option<Standing>,
    /// Who reads the answer if that is a stream.
    reader: Option<Reader>,
}

/// Lets a request pass, with who made it among its extensions, or refuses it.
async fn check(app: &App, access: Access, request: &mut Request) -> ApiResult<Admitted> {
    match access {
        Access::Public => {}
        Access::Person | Access::PlatformAdmin => {
            let mut person = person(app, bearer(request.headers())?).await?;
            person.address = request.extensions().get().map(|Peer(address)| *address);
            let name = Who::User(person.user).name();
            let standing = app.limiter.admit(&app.bus, &name).await?;
            let is_allowed = access == Access::Person || person.is_platform_admin;
            request.extensions_mut().insert(person);
            if !is_allowed {
                return Err(ApiError::forbidden(
                    "only who runs the installation may do this",
                ));
            }
            return Ok(Admitted {
                standing,
                reader: None,
            });
        }
        Access::Needs(permission) => {
            let found = match request.headers().get(header::AUTHORIZATION) {
                None => (runtime::anonymous(app, request).await?, Status::Active),
                Some(_) => principal(app, bearer(request.headers())?).await?,
            };
            let (mut principal, status) = found;
            principal.address = request.extensions().get().map(|Peer(address)| *address);
            tracing::Span::current().record("workspace", principal.workspace.0);
            let standing = app.limiter.admit(&app.bus, &principal.name()).await?;
            principal.device = devices::prove(app, &principal, request).await?;
            let allowed = require_open(status, permission);
            let allowed = allowed.and_then(|()| principal.require(permission));
            let reader = Some(Reader {
                principal: principal.clone(),
                permission,
            });
            request.extensions_mut().insert(principal);
            allowed?;
            return Ok(Admitted { standing, reader });
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
    Ok(Admitted::default())
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

/// The person who holds this web or workspace token.
async fn person(app: &App, shown: &str) -> ApiResult<Person> {
    let refused = || ApiError::unauthorized("the token is not valid, or its sign-in has ended");
    if !token::is_token(shown) {
        return Err(ApiError::unauthorized(
            "this needs somebody who signed in: POST /api/auth/web/login",
        ));
    }
    let proof = token::verify(&app.tokens, shown).ok_or_else(refused)?;
    let (Who::User(user), Some(sign_in)) = (proof.who, proof.sign_in) else {
        return Err(ApiError::unauthorized(
            "this token belongs to a key, not to a person",
        ));
    };
    let rights = rights::of_sign_in(app, user, sign_in, None).await?;
    let rights = rights.ok_or_else(refused)?;
    Ok(Person {
        user,
        sign_in,
        is_platform_admin: rights.is_platform_admin,
        address: None,
    })
}

/// Who holds a credential, and the status of the workspace.
type Holder = (Principal, Status);

/// Who holds this API key or workspace token.
async fn principal(app: &App, shown: &str) -> ApiResult<Holder> {
    if token::is_token(shown) {
        return of_token(app, shown).await;
    }
    let found = rights::of_key_hash(app, hash_token(shown)).await?;
    found.ok_or_else(|| ApiError::unauthorized("the API key is unknown, expired or revoked"))
}

/// 403 if the workspace's status forbids what needs this permission.
fn require_open(status: Status, permission: Permission) -> ApiResult<()> {
    let is_kept = matches!(
        permission,
        Permission::WorkspaceUpdate | Permission::WorkspaceDelete
    );
    // What runs goes on, so it can be answered and stopped.
    let is_for_running = matches!(
        permission,
        Permission::ExecutionCancel | Permission::ExecutionApprove
    );
    match status {
        Status::Suspended if !permission.is_read() && !is_for_running => Err(ApiError::forbidden(
            "this workspace is suspended: it can be read, but not changed; ask whoever runs the installation",
        )),
        Status::Archived if !permission.is_read() && !is_kept => Err(ApiError::forbidden(
            "this workspace is archived: it can be read, but not changed",
        )),
        Status::Suspended | Status::Archived | Status::Active => Ok(()),
    }
}

async fn of_token(app: &App, shown: &str) -> ApiResult<Holder> {
    let refused = || {
        ApiError::unauthorized(
            "the token is not valid, its sign-in has ended, or you are no longer a member",
        )
    };
    let proof = token::verify(&app.tokens, shown).ok_or_else(refused)?;
    let Some(workspace) = proof.workspace else {
        return Err(ApiError::unauthorized(
            "this needs a workspace token: POST /api/auth/tenant-token",
        ));
    };
    match (proof.who, proof.sign_in) {
        (Who::User(user), Some(sign_in)) => {
            let rights = rights::of_sign_in(app, user, sign_in, Some(workspace)).await?;
            let member = rights.and_then(|rights| rights.member);
            let (role, status) = member.ok_or_else(refused)?;
            let principal = Principal {
                workspace,
                who: proof.who,
                sign_in: Some(sign_in),
                role: Role::Member(role),
                device: None,
                address: None,
            };
            Ok((principal, status))
        }
        (Who::Key(key), _) => {
            let found = rights::of_key_id(app, key).await?;
            let found = found.filter(|(principal, _)| principal.workspace == workspace);
            found.ok_or_else(refused)
        }
        _ => Err(refused()),
    }
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
