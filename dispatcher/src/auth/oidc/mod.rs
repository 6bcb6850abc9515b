//! Signing in elsewhere: any OpenID Connect provider, Google, GitHub.
//!
//! One flow for all: authorization code with PKCE, a nonce, and a state that only the browser
//! which began can finish, because what belongs to it is sealed in a cookie; no replica
//! remembers anything. An account elsewhere is known by the provider's own id of it. The first
//! time it is joined with the account that has the same address, if the provider says that
//! the address was verified; a password that somebody set there without proving the address
//! ends with that, or whoever registered first could lie in wait.

mod fetch;
mod flow;
mod http;
mod join;
mod provider;

pub use provider::Providers;

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};

/// The routes of this part.
pub(super) fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/auth/providers",
            Access::Public,
            http::providers,
            Doc::new("Where people may sign in beside a password").gives::<http::List>(200),
        )
        .get(
            "/api/auth/oidc/{provider}/login",
            Access::Public,
            http::login,
            Doc::new("Go to a provider to sign in")
                .text("provider")
                .query::<http::Begin>()
                .gives_nothing(303),
        )
        .get(
            "/api/auth/oidc/{provider}/callback",
            Access::Public,
            http::callback,
            Doc::new("Come back from a provider, signed in")
                .text("provider")
                .query::<http::Back>()
                .gives::<super::wire::SignedIn>(200)
                .gives_nothing(303)
                .refuses(&[401, 403]),
        )
}
