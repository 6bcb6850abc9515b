//! Signing in elsewhere over HTTP: two redirects and the answer.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::provider::Provider;
use super::{flow, join};
use crate::app::App;
use crate::auth::http::{answer, cookie, cookie_header};
use crate::error::{ApiError, ApiResult};
use crate::http::extract::{Path, Query};
use crate::http::listen::Peer;

/// The cookie that binds a sign-in to the browser that began it.
const COOKIE: &str = "clawlink_sign_in";
/// The paths that get it.
const COOKIE_PATH: &str = "/api/auth/oidc";
/// Bytes of the longest place to return to.
const MAX_RETURN: usize = 2048;

/// Where to go afterwards.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(super) struct Begin {
    /// A path of this installation; the refresh token is in a cookie then. Without it the
    /// answer at the end is JSON.
    return_to: Option<String>,
}

/// What a provider sends people back with.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct Back {
    code: Option<String>,
    state: Option<String>,
    /// Why it did not work.
    error: Option<String>,
}

/// Providers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProviderList)]
pub(super) struct List {
    providers: Vec<Item>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignInProvider)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    /// Its name in paths.
    name: &'static str,
    /// As people know it.
    title: String,
    /// Where to send the browser.
    login_url: String,
}

pub(super) async fn providers(State(app): State<App>) -> Answer<List> {
    let item = |provider: &Provider| Item {
        name: provider.name,
        title: provider.title.clone(),
        login_url: format!("/api/auth/oidc/{}/login", provider.name),
    };
    let providers = app.providers.by_name.values().map(item).collect();
    Answer(List { providers })
}

pub(super) async fn login(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(begin): Query<Begin>,
) -> ApiResult<Response> {
    let provider = find(&app, &name)?;
    let return_to = begin.return_to.map(own_path).transpose()?;
    let (url, kept) = flow::begin(&app, provider, return_to).await?;
    let seconds = flow::VALID.as_secs();
    let mut response = redirect(&url)?;
    let cookie = cookie_header(&app, COOKIE, COOKIE_PATH, "Lax", kept.expose(), seconds);
    response.headers_mut().append(header::SET_COOKIE, cookie);
    Ok(response)
}

pub(super) async fn callback(
    State(app): State<App>,
    from: Option<Extension<Peer>>,
    Path(name): Path<String>,
    Query(back): Query<Back>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let address = from.map(|Extension(Peer(address))| address);
    let provider = find(&app, &name)?;
    app.attempts.of_address(&app.bus, address).await?;
    let (Some(code), Some(state)) = (back.code, back.state) else {
        let why = back
            .error
            .map_or("no code came back", |_| "the provider refused");
        return Err(ApiError::unauthorized(format!("{why}; begin again")));
    };
    let kept = cookie(&headers, COOKIE);
    let kept = kept.as_ref().map(|kept| kept.expose());
    let (identity, return_to) = flow::finish(&app, provider, kept, &state, &code).await?;
    let signed_in = join::sign_in(&app, provider, identity, address).await?;
    let in_cookie = return_to.is_some();
    let mut response = answer(&app, StatusCode::OK, signed_in, in_cookie);
    if let Some(path) = return_to {
        let mut elsewhere = redirect(&path)?;
        for cookie in response.headers().get_all(header::SET_COOKIE) {
            elsewhere
                .headers_mut()
                .append(header::SET_COOKIE, cookie.clone());
        }
        response = elsewhere;
    }
    let used = cookie_header(&app, COOKIE, COOKIE_PATH, "Lax", "", 0);
    response.headers_mut().append(header::SET_COOKIE, used);
    Ok(response)
}

fn find<'a>(app: &'a App, name: &str) -> ApiResult<&'a Provider> {
    let found = app.providers.by_name.get(name);
    found.ok_or_else(|| ApiError::not_found("provider_not_found", "no such provider is configured"))
}

/// 400 unless it stays here: `//host` and `/\host` lead elsewhere.
fn own_path(path: String) -> ApiResult<String> {
    let is_own = path.len() <= MAX_RETURN
        && path.starts_with('/')
        && !path[1..].starts_with(['/', '\\'])
        && path.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    is_own
        .then_some(path)
        .ok_or_else(|| ApiError::invalid("returnTo: must be a path of this installation"))
}

fn redirect(url: &str) -> ApiResult<Response> {
    let to = HeaderValue::try_from(url).map_err(anyhow::Error::from)?;
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for good in ["/", "/tasks?x=1#y", "/a//b"] {
            assert!(own_path(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "x", "//host", "/\\host", "https://host", "/a\nb", "/ä"] {
            assert!(own_path(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
