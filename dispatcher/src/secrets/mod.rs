//! Keys of the installation, and secrets of workspaces: written through the API, sealed in
//! Postgres, used by their names in requests.
//!
//! A value is opened in two places only: for the worker that holds an execution's lease, and
//! to seal it with another key. It is never answered, logged, audited or put into an error.

mod allow;
mod hand_out;
mod http;
mod keys;
mod reference;
mod renew;
mod reseal;
mod seal;
mod store;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink_shared::id::WorkspaceId;
use rand::RngExt;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

pub(crate) use allow::Asker;
pub(crate) use hand_out::{Holder, Refusal, Wanted, choose, git_token, hand_out, permitted};
pub use keys::{Keys, hmac};
pub(crate) use reference::{
    Place, Reference, References, name_in, usual_for_agent, usual_for_repository,
};
pub(crate) use renew::renew;
pub(crate) use reseal::Stale;
pub use reseal::{Round, round, spawn_loops};
pub use seal::SealBroken;

/// Largest value, in bytes.
const MAX_VALUE: usize = 64 * 1024;
/// Most secrets of a workspace.
const MAX_SECRETS: i64 = 500;

/// What workspaces do with their secrets.
pub fn routes(app: &App) -> Routes {
    Routes::new(app)
        .get(
            "/api/secrets",
            Access::Needs(Permission::SecretRead),
            http::list,
            Doc::new("The workspace's secrets, without their values").gives::<http::List>(200),
        )
        .put(
            "/api/secrets/{name}",
            Access::Needs(Permission::SecretManage),
            http::put,
            Doc::new("Make a secret, or change its value or who may use it")
                .text("name")
                .query::<http::Scope>()
                .body::<http::Put>()
                .gives::<http::Shown>(200)
                .gives::<http::Shown>(201),
        )
        .delete(
            "/api/secrets/{name}",
            Access::Needs(Permission::SecretManage),
            http::delete,
            Doc::new("Delete a secret")
                .text("name")
                .query::<http::Scope>()
                .gives_nothing(204),
        )
}

/// What a secret's value is sealed for: none of these has a `:`.
fn owner(workspace: WorkspaceId, agent: Option<&str>, name: &str) -> Vec<u8> {
    format!("secret:{workspace}:{}:{name}", agent.unwrap_or_default()).into_bytes()
}

/// SHA-256, for tokens and keys that are random themselves.
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// 256 random bits as URL-safe text.
pub fn random_token() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
