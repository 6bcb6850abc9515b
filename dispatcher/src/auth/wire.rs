//! What clients send and get when they sign in.

use clawlink_shared::id::UserId;
use clawlink_shared::secret::Secret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::store::users::User;
use super::token::TenantId;
use crate::workspaces::Membership;

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Register {
    /// Kept in lower case.
    pub(super) email: String,
    /// Kept in lower case; letters, digits, `.`, `_` and `-`.
    pub(super) username: String,
    /// At least 8 characters.
    #[schema(value_type = String)]
    pub(super) password: Secret,
    /// Send the refresh token as a cookie instead.
    #[serde(default)]
    pub(super) cookie: bool,
}

/// Somebody who has an account.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Login {
    pub(super) email: String,
    #[schema(value_type = String)]
    pub(super) password: Secret,
    /// Send the refresh token as a cookie instead.
    #[serde(default)]
    pub(super) cookie: bool,
}

/// A refresh token; without one, the cookie's is taken.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refresh {
    #[schema(value_type = Option<String>)]
    pub(super) refresh_token: Option<Secret>,
}

/// A choice of workspace.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TenantToken {
    pub(super) tenant_id: TenantId,
}

/// An API key to be exchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyToken {
    #[schema(value_type = String)]
    pub(super) api_key: Secret,
    /// The key's workspace; the answer is 401 if it is another.
    pub(super) tenant_id: Option<TenantId>,
}

/// Somebody who gets a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegisterKey {
    pub(super) email: String,
    /// The caller's workspace.
    pub(super) tenant_id: Option<TenantId>,
}

/// A new password.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangePassword {
    #[schema(value_type = String)]
    pub(super) current_password: Secret,
    /// At least 8 characters.
    #[schema(value_type = String)]
    pub(super) new_password: Secret,
    /// Send the refresh token as a cookie instead.
    #[serde(default)]
    pub(super) cookie: bool,
}

/// A password for whoever has the token.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Reset {
    #[schema(value_type = String)]
    pub(super) token: Secret,
    /// At least 8 characters.
    #[schema(value_type = String)]
    pub(super) password: Secret,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserView {
    id: UserId,
    email: String,
    username: String,
    display_name: Option<String>,
    avatar_url: Option<String>,
    bio: Option<String>,
    is_platform_admin: bool,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            username: user.username,
            display_name: user.display_name,
            avatar_url: user.avatar_url,
            bio: user.bio,
            is_platform_admin: user.is_platform_admin,
        }
    }
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    pub(super) user: UserView,
}

/// A person who just signed in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SignedIn {
    /// A web token.
    #[schema(value_type = String)]
    pub(super) token: Secret,
    /// Seconds for which it is valid.
    pub(super) expires_in: u64,
    /// Gives the next web token, once; null if it went into the cookie.
    #[schema(value_type = Option<String>)]
    pub(super) refresh_token: Option<Secret>,
    /// Seconds for which that is valid.
    pub(super) refresh_expires_in: u64,
    pub(super) user: UserView,
}

/// A workspace token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Token {
    #[schema(value_type = String)]
    pub(super) token: Secret,
    /// Seconds for which it is valid.
    pub(super) expires_in: u64,
}

/// Workspaces of a person.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tenants {
    pub(super) tenants: Vec<Membership>,
}

/// A key that was made; it is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegisteredKey {
    pub(super) user: KeyHolder,
    #[schema(value_type = String)]
    pub(super) api_key: Secret,
    pub(super) note: &'static str,
}

/// Who was named.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyHolder {
    /// The same for the same address in a workspace; never an account's id.
    pub(super) id: UserId,
    pub(super) email: String,
}
