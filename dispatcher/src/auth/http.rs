//! Signing in over HTTP.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json as Answer};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clawlink_shared::id::UserId;
use clawlink_shared::secret::Secret;
use uuid::Uuid;

use super::person::{self, SignIn};
use super::principal::{KeyRole, Person, Principal};
use super::token::{self, TenantId};
use super::{refresh, reset, rights, wire};
use crate::api_keys::{self, New};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::error::{ApiError, ApiResult};
use crate::http::extract::{Json, Path};
use crate::http::listen::Peer;
use crate::secrets::hash_token;
use crate::workspaces;

/// The cookie that holds a refresh token.
const COOKIE: &str = "clawlink_refresh";
/// The only path that gets it.
const COOKIE_PATH: &str = "/api/auth/refresh";

/// Where a request came from.
type From = Option<Extension<Peer>>;

pub(super) async fn register(
    State(app): State<App>,
    from: From,
    Json(body): Json<wire::Register>,
) -> ApiResult<Response> {
    let address = from.map(|Extension(Peer(address))| address);
    let signed_in = person::register(&app, &body.email, &body.username, &body.password, address);
    Ok(answer(
        &app,
        StatusCode::CREATED,
        signed_in.await?,
        body.cookie,
    ))
}

pub(super) async fn login(
    State(app): State<App>,
    from: From,
    Json(body): Json<wire::Login>,
) -> ApiResult<Response> {
    let address = from.map(|Extension(Peer(address))| address);
    let signed_in = person::login(&app, &body.email, &body.password, address).await?;
    Ok(answer(&app, StatusCode::OK, signed_in, body.cookie))
}

pub(super) async fn refresh(
    State(app): State<App>,
    from: From,
    headers: HeaderMap,
    Json(body): Json<wire::Refresh>,
) -> ApiResult<Response> {
    let address = from.map(|Extension(Peer(address))| address);
    let in_cookie = body.refresh_token.is_none();
    let shown = body.refresh_token.or_else(|| cookie(&headers, COOKIE));
    let shown = shown.ok_or_else(|| ApiError::unauthorized("send a refreshToken"))?;
    let signed_in = refresh::exchange(&app, &shown, address).await?;
    Ok(answer(&app, StatusCode::OK, signed_in, in_cookie))
}

pub(super) async fn me(
    State(app): State<App>,
    Extension(person): Extension<Person>,
) -> ApiResult<Answer<wire::Me>> {
    let user = person::find(&app, person.user).await?;
    Ok(Answer(wire::Me { user: user.into() }))
}

pub(super) async fn my_tenants(
    State(app): State<App>,
    Extension(person): Extension<Person>,
) -> ApiResult<Answer<wire::Tenants>> {
    let mut db = app.db.acquire().await?;
    let tenants = workspaces::of_user(&mut db, person.user).await?;
    Ok(Answer(wire::Tenants { tenants }))
}

pub(super) async fn tenant_token(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Json(body): Json<wire::TenantToken>,
) -> ApiResult<Answer<wire::Token>> {
    let token = person::choose(&app, &person, body.tenant_id).await?;
    Ok(Answer(wire::Token {
        token,
        expires_in: token::WORKSPACE_SECONDS,
    }))
}

/// A workspace that one is no member of is not there.
pub(super) async fn switch(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Path(id): Path<i64>,
) -> ApiResult<Answer<wire::Token>> {
    let chosen = person::choose(&app, &person, TenantId::Number(id)).await;
    let token = chosen.map_err(|error| match error.code() {
        "unauthorized" => workspaces::not_found(),
        _ => error,
    })?;
    Ok(Answer(wire::Token {
        token,
        expires_in: token::WORKSPACE_SECONDS,
    }))
}

pub(super) async fn change_password(
    State(app): State<App>,
    Extension(person): Extension<Person>,
    Json(body): Json<wire::ChangePassword>,
) -> ApiResult<Response> {
    let (current, new) = (&body.current_password, &body.new_password);
    let signed_in = person::change_password(&app, &person, current, new).await?;
    Ok(answer(&app, StatusCode::OK, signed_in, body.cookie))
}

pub(super) async fn logout(
    State(app): State<App>,
    Extension(person): Extension<Person>,
) -> ApiResult<Response> {
    person::sign_out(&app, &person).await?;
    Ok(without_cookie(&app))
}

pub(super) async fn logout_everywhere(
    State(app): State<App>,
    Extension(person): Extension<Person>,
) -> ApiResult<Response> {
    person::sign_out_everywhere(&app, &person).await?;
    Ok(without_cookie(&app))
}

pub(super) async fn reset(
    State(app): State<App>,
    from: From,
    Json(body): Json<wire::Reset>,
) -> ApiResult<StatusCode> {
    let address = from.map(|Extension(Peer(address))| address);
    reset::reset(&app, &body.token, &body.password, address).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn key_token(
    State(app): State<App>,
    from: From,
    Json(body): Json<wire::KeyToken>,
) -> ApiResult<Answer<wire::Token>> {
    let wrong = || {
        ApiError::unauthorized("the API key is unknown, expired, revoked or of another workspace")
    };
    let address = from.map(|Extension(Peer(address))| address);
    app.attempts.of_address(&app.bus, address).await?;
    let found = rights::of_key_hash(&app, hash_token(body.api_key.expose())).await?;
    let (principal, _) = found.ok_or_else(wrong)?;
    let own = TenantId::Number(principal.workspace.0);
    let tenant = body.tenant_id.unwrap_or(own);
    if tenant.workspace() != Some(principal.workspace) {
        return Err(wrong());
    }
    let actor = Actor {
        name: principal.name(),
        address,
    };
    let key = actor.name.trim_start_matches("key:").to_owned();
    let entry = Entry::done(principal.workspace, &actor, "key.signed_in", ("key", key));
    let mut db = app.db.acquire().await?;
    audit::record(&mut db, &entry).await?;
    let token = token::workspace(&app.tokens, principal.who, None, tenant, principal.role);
    Ok(Answer(wire::Token {
        token,
        expires_in: token::WORKSPACE_SECONDS,
    }))
}

pub(super) async fn register_key(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Json(body): Json<wire::RegisterKey>,
) -> ApiResult<(StatusCode, Answer<wire::RegisteredKey>)> {
    let email = person::email_address(&body.email)?;
    let workspace = principal.workspace;
    if let Some(tenant) = body.tenant_id
        && tenant.workspace() != Some(workspace)
    {
        return Err(workspaces::not_found());
    }
    let new = New {
        name: email.clone(),
        role: KeyRole::Developer,
        expires_at: None,
    };
    let (_, key) = api_keys::create(&app, &principal, &new).await?;
    let user = wire::KeyHolder {
        id: UserId(stand_in(&app, &format!("{workspace}:{email}"))),
        email,
    };
    let made = wire::RegisteredKey {
        user,
        api_key: key,
        note: "Keep this key: it is not shown again.",
    };
    Ok((StatusCode::CREATED, Answer(made)))
}

/// The tokens as an answer; the refresh token as a cookie if the client wants that.
pub(super) fn answer(
    app: &App,
    status: StatusCode,
    signed_in: SignIn,
    in_cookie: bool,
) -> Response {
    let seconds = app.sign_in.refresh.as_secs();
    let SignIn { user, web, refresh } = signed_in;
    let cookie = in_cookie.then(|| {
        cookie_header(
            app,
            COOKIE,
            COOKIE_PATH,
            "Strict",
            refresh.expose(),
            seconds,
        )
    });
    let body = wire::SignedIn {
        token: web,
        expires_in: token::WEB_SECONDS,
        refresh_token: (!in_cookie).then_some(refresh),
        refresh_expires_in: seconds,
        user: user.into(),
    };
    let mut response = (status, Answer(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(cookie) = cookie {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

fn without_cookie(app: &App) -> Response {
    let cookie = [(
        header::SET_COOKIE,
        cookie_header(app, COOKIE, COOKIE_PATH, "Strict", "", 0),
    )];
    (StatusCode::NO_CONTENT, cookie).into_response()
}

/// A cookie that scripts cannot read. `same_site` is `Strict`, or `Lax` for what must come
/// along when another site sends the browser here.
pub(super) fn cookie_header(
    app: &App,
    name: &str,
    path: &str,
    same_site: &str,
    value: &str,
    seconds: u64,
) -> HeaderValue {
    let secure = if app.sign_in.is_https() {
        "; Secure"
    } else {
        ""
    };
    let text = format!(
        "{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"
    );
    HeaderValue::try_from(text).expect("names, paths and our tokens are plain text")
}

/// The value that the browser keeps under this name.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, value)| *found == name && !value.is_empty())
        .map(|(_, value)| Secret::new(value))
}

/// An id that stands for a text and tells nothing about it.
fn stand_in(app: &App, text: &str) -> Uuid {
    let key = Secret::new(BASE64_STANDARD.encode(app.keys.of_purpose("stand-in")[0]));
    let hash = hash_token(&format!("{}:{text}", key.expose()));
    let bytes = hash[..16].try_into().expect("16 of 32 bytes");
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}
