//! Going to a provider and coming back as the same browser.

use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink_shared::secret::Secret;
use openidconnect::core::CoreAuthenticationFlow;
use openidconnect::{
    AuthorizationCode, CsrfToken, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, Scope,
};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

use super::provider::{Identity, Provider};
use crate::app::App;
use crate::error::{ApiError, ApiResult};

/// How long somebody may take at the provider.
pub(super) const VALID: Duration = Duration::from_secs(600);
/// What the cookie is sealed for.
const OWNER: &[u8] = b"sign-in elsewhere";

/// What the browser keeps meanwhile, sealed.
#[derive(Serialize, Deserialize)]
struct Begun {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    return_to: Option<String>,
    /// Unix time.
    until: i64,
}

/// The provider's address to go to, and what the browser is to keep.
pub(super) async fn begin(
    app: &App,
    provider: &Provider,
    return_to: Option<String>,
) -> ApiResult<(String, Secret)> {
    let found = provider
        .find(&app.providers.http, redirect(app, provider)?)
        .await;
    let found = found.map_err(|error| away(provider, error))?;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let mut request = found
        .client
        .authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            CsrfToken::new_random,
            Nonce::new_random,
        )
        .set_pkce_challenge(challenge);
    for scope in provider.scopes() {
        request = request.add_scope(Scope::new((*scope).to_owned()));
    }
    let (url, state, nonce) = request.url();
    let begun = Begun {
        provider: provider.name.to_owned(),
        state: state.into_secret(),
        nonce: nonce.secret().clone(),
        verifier: verifier.into_secret(),
        return_to,
        until: OffsetDateTime::now_utc().unix_timestamp() + VALID.as_secs() as i64,
    };
    let text = serde_json::to_vec(&begun).context("keep the sign-in")?;
    let sealed = BASE64_URL_SAFE_NO_PAD.encode(app.keys.seal(OWNER, &text));
    Ok((url.into(), Secret::new(sealed)))
}

/// Who came back, and where they wanted to go. 401 unless it is the browser that went.
pub(super) async fn finish(
    app: &App,
    provider: &Provider,
    kept: Option<&str>,
    state: &str,
    code: &str,
) -> ApiResult<(Identity, Option<String>)> {
    let begun = kept.and_then(|kept| open(app, kept));
    let begun = begun.filter(|begun| {
        begun.provider == provider.name
            && begun.until > OffsetDateTime::now_utc().unix_timestamp()
            && bool::from(begun.state.as_bytes().ct_eq(state.as_bytes()))
    });
    let begun = begun.ok_or_else(|| {
        ApiError::unauthorized(
            "this sign-in was not begun in this browser, or took too long; begin again",
        )
    })?;
    let http = &app.providers.http;
    let found = provider.find(http, redirect(app, provider)?).await;
    let found = found.map_err(|error| away(provider, error))?;
    let tokens = found
        .client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(begun.verifier))
        .request_async(http)
        .await;
    let refused = |what: String| {
        tracing::info!(provider = provider.name, what, "sign-in elsewhere refused");
        ApiError::unauthorized("the provider did not confirm this sign-in; begin again")
    };
    let tokens = tokens.map_err(|error| match error {
        RequestTokenError::Request(cause) => away(provider, cause.into()),
        other => refused(other.to_string()),
    })?;
    let nonce = Nonce::new(begun.nonce);
    let identity = provider.identity(http, &found, &tokens, &nonce).await;
    let identity = identity.map_err(|error| refused(format!("{error:#}")))?;
    Ok((identity, begun.return_to))
}

fn open(app: &App, kept: &str) -> Option<Begun> {
    let sealed = BASE64_URL_SAFE_NO_PAD.decode(kept).ok()?;
    let text = app.keys.open(OWNER, &sealed).ok()?;
    serde_json::from_slice(&text).ok()
}

fn redirect(app: &App, provider: &Provider) -> ApiResult<RedirectUrl> {
    let base = app.sign_in.public_url.as_deref().unwrap_or_default();
    let base = base.trim_end_matches('/');
    let url = format!("{base}/api/auth/oidc/{}/callback", provider.name);
    Ok(RedirectUrl::new(url).context("CLAWLINK_PUBLIC_URL is no URL")?)
}

fn away(provider: &Provider, error: anyhow::Error) -> ApiError {
    ApiError::unavailable(
        format!("{} cannot be reached; try again", provider.title),
        error,
    )
}
