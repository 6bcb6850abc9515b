//! Who made a request.

use std::net::IpAddr;

use clawlink_shared::id::{ApiKeyId, DeviceId, UserId, WorkspaceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{ApiError, ApiResult};
use crate::workspaces::role::{Permission, Role};

pub use crate::workspaces::role::{KeyRole, MemberRole};

/// A caller who acts in a workspace; handlers take it as an extension.
#[derive(Debug, Clone)]
pub struct Principal {
    /// All it can see and change.
    pub workspace: WorkspaceId,
    /// Who it is.
    pub who: Who,
    /// The sign-in that a person came with.
    pub sign_in: Option<Uuid>,
    /// What it may do there.
    pub role: Role,
    /// The device that it showed, and how far that is trusted.
    pub device: Option<(DeviceId, Trust)>,
    /// Where the request came from, if known.
    pub address: Option<IpAddr>,
}

/// A caller who signed in but has chosen no workspace.
#[derive(Debug, Clone)]
pub struct Person {
    /// Who.
    pub user: UserId,
    /// The sign-in that they came with; it ends with signing out.
    pub sign_in: Uuid,
    /// Whether this person runs the installation.
    pub is_platform_admin: bool,
    /// Where the request came from, if known.
    pub address: Option<IpAddr>,
}

/// Kinds of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// Whoever holds this API key.
    Key(ApiKeyId),
    /// A person.
    User(UserId),
    /// A client session of the runtime API that belongs to no person.
    Client(Uuid),
}

/// How far a device is trusted. The order is the rank.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Every new device.
    Untrusted,
    /// Somebody checked that it is whose it says.
    Verified,
    /// Somebody vouches for it.
    Trusted,
}

impl Who {
    /// Its name in rows, logs and audit: `key:7`, `user:…`.
    pub fn name(&self) -> String {
        match self {
            Self::Key(id) => format!("key:{id}"),
            Self::User(id) => format!("user:{id}"),
            Self::Client(id) => format!("client:{id}"),
        }
    }
}

impl Principal {
    /// Its name in rows and logs.
    pub fn name(&self) -> String {
        self.who.name()
    }

    /// The person, if it is one.
    pub fn user(&self) -> Option<UserId> {
        match self.who {
            Who::User(user) => Some(user),
            Who::Key(_) | Who::Client(_) => None,
        }
    }

    /// 403 unless its role has this permission.
    pub fn require(&self, permission: Permission) -> ApiResult<()> {
        if self.role.may(permission) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "the role {} lacks {}; ask someone who may change roles",
            self.role,
            permission.as_str()
        )))
    }
}

impl Trust {
    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Verified => "verified",
            Self::Trusted => "trusted",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Untrusted, Self::Verified, Self::Trusted]
            .into_iter()
            .find(|trust| trust.as_str() == name)
    }
}
