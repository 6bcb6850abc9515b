//! Who calls, and whether they may: people who sign in, API keys, and the tokens of both.
//!
//! A person signs in and gets a *web token*; with it a *workspace token* for one workspace.
//! Rights are read from the database at every request, remembered for seconds at most, so
//! that a removed member, a lowered role or a sign-out takes effect at once. Neither answers
//! nor times tell whether an account exists, except that an e-mail address is taken.

pub mod admit;
pub mod api_key;
pub mod disable;
mod hold;
mod http;
pub mod limits;
pub mod oidc;
pub mod password;
pub mod person;
pub mod principal;
mod refresh;
pub mod reset;
mod rights;
pub mod settings;
mod store;
mod takeover;
pub mod token;
mod watch;
mod wire;

use std::time::Duration;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

pub(crate) use hold::{hold_account, renewed};
pub use rights::{Memory, forget};
pub use watch::OfSession;

/// How often what is over is thrown away.
const CLEAN: Duration = Duration::from_secs(60 * 60);

/// The routes of this feature.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .post(
            "/api/auth/web/register",
            Access::Public,
            http::register,
            Doc::new("Make an account and sign in")
                .body::<wire::Register>()
                .gives::<wire::SignedIn>(201)
                .refuses(&[403]),
        )
        .post(
            "/api/auth/web/login",
            Access::Public,
            http::login,
            Doc::new("Sign in")
                .body::<wire::Login>()
                .gives::<wire::SignedIn>(200)
                .refuses(&[401]),
        )
        .post(
            "/api/auth/refresh",
            Access::Public,
            http::refresh,
            Doc::new("Exchange a refresh token for a web token and the next refresh token")
                .body::<wire::Refresh>()
                .gives::<wire::SignedIn>(200)
                .refuses(&[401]),
        )
        .post(
            "/api/auth/token",
            Access::Public,
            http::key_token,
            Doc::new("A workspace token for the holder of an API key")
                .body::<wire::KeyToken>()
                .gives::<wire::Token>(200)
                .refuses(&[401, 403]),
        )
        .post(
            "/api/auth/register",
            Access::Needs(Permission::KeyManage),
            http::register_key,
            Doc::new("An API key for somebody who is named by an e-mail address")
                .body::<wire::RegisterKey>()
                .gives::<wire::RegisteredKey>(201)
                .refuses(&[404]),
        )
        .get(
            "/api/auth/me",
            Access::Person,
            http::me,
            Doc::new("Who is signed in").gives::<wire::Me>(200),
        )
        .get(
            "/api/auth/my-tenants",
            Access::Person,
            http::my_tenants,
            Doc::new("The workspaces of the person, with the role in each")
                .gives::<wire::Tenants>(200),
        )
        .post(
            "/api/auth/tenant-token",
            Access::Person,
            http::tenant_token,
            Doc::new("A workspace token")
                .body::<wire::TenantToken>()
                .gives::<wire::Token>(200),
        )
        .post(
            "/api/tenants/{id}/switch",
            Access::Person,
            http::switch,
            Doc::new("A workspace token").gives::<wire::Token>(200),
        )
        .post(
            "/api/auth/password",
            Access::Person,
            http::change_password,
            Doc::new("Change the password; ends all other sign-ins")
                .body::<wire::ChangePassword>()
                .gives::<wire::SignedIn>(200),
        )
        .post(
            "/api/auth/logout",
            Access::Person,
            http::logout,
            Doc::new("End this sign-in with all its tokens").gives_nothing(204),
        )
        .post(
            "/api/auth/logout/everywhere",
            Access::Person,
            http::logout_everywhere,
            Doc::new("End all sign-ins of the person").gives_nothing(204),
        )
        .post(
            "/api/auth/reset",
            Access::Public,
            http::reset,
            Doc::new("Set a password with a token that the operator gave")
                .body::<wire::Reset>()
                .gives_nothing(204)
                .refuses(&[401]),
        )
        .merge(oidc::routes(app))
}

/// Starts what runs beside requests.
pub fn spawn_loops(app: &App) {
    app.shutdown.tracker().spawn(rights::listen(app.clone()));
    app.shutdown.tracker().spawn(clean_loop(app.clone()));
}

/// Throws away sign-ins and tokens that give nothing any more.
pub async fn clean(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    store::sign_ins::clean(&mut db, Duration::from_secs(token::WEB_SECONDS)).await
}

async fn clean_loop(app: App) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CLEAN) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
        if let Err(error) = clean(&app).await {
            tracing::warn!(error = format!("{error:#}"), "old sign-ins not thrown away");
        }
    }
}
