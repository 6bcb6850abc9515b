//! Providers: where they are, how they say who somebody is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use openidconnect::core::{CoreClient, CoreProviderMetadata, CoreTokenResponse};
use openidconnect::{
    AsyncHttpClient, AuthType, AuthUrl, ClientId, ClientSecret, EndpointNotSet, EndpointSet,
    IssuerUrl, JsonWebKeySet, Nonce, OAuth2TokenResponse, RedirectUrl, TokenResponse, TokenUrl,
};
use serde::Deserialize;
use serde_json::Value;

use super::fetch::Http;
use crate::auth::settings::{Registered, SignInSettings};
use crate::config::GithubSettings;

/// How long what a provider says about itself is believed.
const DISCOVERED: Duration = Duration::from_secs(600);

/// A client of a provider that was found.
pub(super) type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
>;

/// All that are configured, by name.
pub struct Providers {
    pub(super) by_name: BTreeMap<&'static str, Provider>,
    pub(super) http: Http,
}

/// One of them.
pub(super) struct Provider {
    pub(super) name: &'static str,
    /// As people know it.
    pub(super) title: String,
    registered: Registered,
    kind: Kind,
    found: Mutex<Option<(Instant, Found)>>,
}

enum Kind {
    /// Says by discovery where everything is, and signs who somebody is.
    OpenId { issuer: String },
    /// GitHub speaks OAuth 2 only: fixed places, and its API says who somebody is.
    Github { site: String, api: String },
}

/// Where a provider is.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) client: Client,
    user_info: Option<String>,
}

/// Who somebody is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// The provider's own id of the account.
    pub(super) subject: String,
    /// Only if the provider says that it was verified.
    pub(super) email: Option<String>,
    /// What the account is called there.
    pub(super) login: Option<String>,
    /// The person's name.
    pub(super) name: Option<String>,
}

impl Providers {
    /// Those that the settings name.
    pub fn new(settings: &SignInSettings, github: &GithubSettings) -> anyhow::Result<Self> {
        let mut by_name = BTreeMap::new();
        let mut add = |name, title: &str, registered: Option<Registered>, kind| {
            if let Some(registered) = registered {
                let provider = Provider {
                    name,
                    title: title.to_owned(),
                    registered,
                    kind,
                    found: Mutex::default(),
                };
                by_name.insert(name, provider);
            }
        };
        let issuer = settings.google_issuer.clone();
        add(
            "google",
            "Google",
            settings.google(),
            Kind::OpenId { issuer },
        );
        let kind = Kind::Github {
            site: settings.github_site.trim_end_matches('/').to_owned(),
            api: github.github_api.trim_end_matches('/').to_owned(),
        };
        add("github", "GitHub", settings.github(), kind);
        if let Some(issuer) = settings.oidc_issuer.clone() {
            let registered = settings.oidc();
            ensure!(
                registered.is_some(),
                "CLAWLINK_OIDC_ISSUER needs CLAWLINK_OIDC_CLIENT_ID and CLAWLINK_OIDC_CLIENT_SECRET"
            );
            add(
                "oidc",
                &settings.oidc_title,
                registered,
                Kind::OpenId { issuer },
            );
        }
        ensure!(
            by_name.is_empty() || settings.public_url.is_some(),
            "signing in elsewhere needs CLAWLINK_PUBLIC_URL, to which providers send people back"
        );
        let http = Http::new().context("make a client for providers")?;
        Ok(Self { by_name, http })
    }
}

impl Provider {
    /// The scopes that say who somebody is.
    pub(super) fn scopes(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::OpenId { .. } => &["email", "profile"],
            Kind::Github { .. } => &["read:user", "user:email"],
        }
    }

    /// Where it is; asked again after a while, because keys are changed.
    pub(super) async fn find(&self, http: &Http, redirect: RedirectUrl) -> anyhow::Result<Found> {
        if let Some((at, found)) = &*self.found.lock().expect("nothing panics while it is held")
            && at.elapsed() < DISCOVERED
        {
            return Ok(found.clone());
        }
        let id = ClientId::new(self.registered.id.clone());
        let secret = ClientSecret::new(self.registered.secret.expose().to_owned());
        let found = match &self.kind {
            Kind::Github { site, api } => {
                let client =
                    CoreClient::new(id, IssuerUrl::new(site.clone())?, JsonWebKeySet::default())
                        .disable_openid_scope()
                        .set_auth_type(AuthType::RequestBody)
                        .set_auth_uri(AuthUrl::new(format!("{site}/login/oauth/authorize"))?)
                        .set_token_uri(TokenUrl::new(format!("{site}/login/oauth/access_token"))?);
                Found {
                    client: client.set_client_secret(secret).set_redirect_uri(redirect),
                    user_info: Some(format!("{api}/user")),
                }
            }
            Kind::OpenId { issuer } => {
                let said =
                    CoreProviderMetadata::discover_async(IssuerUrl::new(issuer.clone())?, http)
                        .await
                        .context("discover the provider")?;
                let token = said
                    .token_endpoint()
                    .context("the provider gives no tokens")?;
                let client = CoreClient::new(id, said.issuer().clone(), said.jwks().clone())
                    .set_auth_uri(said.authorization_endpoint().clone())
                    .set_token_uri(token.clone());
                Found {
                    client: client.set_client_secret(secret).set_redirect_uri(redirect),
                    user_info: said.userinfo_endpoint().map(|url| url.url().to_string()),
                }
            }
        };
        let mut kept = self.found.lock().expect("nothing panics while it is held");
        *kept = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    /// Who the tokens speak of.
    pub(super) async fn identity(
        &self,
        http: &Http,
        found: &Found,
        tokens: &CoreTokenResponse,
        nonce: &Nonce,
    ) -> anyhow::Result<Identity> {
        let access = tokens.access_token().secret();
        let url = found.user_info.as_deref();
        match &self.kind {
            Kind::Github { .. } => github(http, url.context("GitHub has an API")?, access).await,
            Kind::OpenId { .. } => {
                let signed = tokens.id_token().context("the provider gave no id token")?;
                let claims = signed
                    .claims(&found.client.id_token_verifier(), nonce)
                    .context("check the id token")?;
                let mut identity = Identity {
                    subject: claims.subject().to_string(),
                    email: claims
                        .email()
                        .filter(|_| claims.email_verified() == Some(true))
                        .map(|email| email.to_string()),
                    login: claims.preferred_username().map(|name| name.to_string()),
                    name: None,
                };
                if let (None, Some(url)) = (&identity.email, url) {
                    let more: UserInfo = get(http, url, access).await?;
                    // What is said of somebody else must not be taken.
                    ensure!(
                        more.sub == identity.subject,
                        "the provider speaks of two people"
                    );
                    identity.email = more.email.filter(|_| is_true(&more.email_verified));
                    identity.login = identity.login.or(more.preferred_username);
                    identity.name = more.name;
                }
                Ok(identity)
            }
        }
    }
}

/// What OpenID providers say when asked.
#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    email: Option<String>,
    #[serde(default)]
    email_verified: Value,
    preferred_username: Option<String>,
    name: Option<String>,
}

/// Some say it as text.
fn is_true(value: &Value) -> bool {
    value == &Value::Bool(true) || value.as_str() == Some("true")
}

#[derive(Deserialize)]
struct GithubUser {
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct GithubEmail {
    email: String,
    primary: bool,
    verified: bool,
}

async fn github(http: &Http, user: &str, access: &str) -> anyhow::Result<Identity> {
    let who: GithubUser = get(http, user, access).await?;
    let addresses: Vec<GithubEmail> = get(http, &format!("{user}/emails"), access).await?;
    let own = addresses
        .into_iter()
        .find(|one| one.primary && one.verified);
    Ok(Identity {
        subject: who.id.to_string(),
        email: own.map(|own| own.email),
        login: Some(who.login),
        name: who.name,
    })
}

async fn get<T: serde::de::DeserializeOwned>(
    http: &Http,
    url: &str,
    access: &str,
) -> anyhow::Result<T> {
    let request = openidconnect::http::Request::get(url)
        .header("authorization", format!("Bearer {access}"))
        .header("accept", "application/json")
        .body(Vec::new())?;
    let answer = http.call(request).await?;
    if !answer.status().is_success() {
        bail!(
            "the provider answered {} when asked who it is",
            answer.status()
        );
    }
    serde_json::from_slice(answer.body()).context("read who it is")
}
