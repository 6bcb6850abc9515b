//! Typed identifiers: a session id cannot be passed where an execution id is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Declares a newtype around an integer or UUID with the same text form as its inside.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(inner: $inner) -> Self {
                Self(inner)
            }
        }

        impl FromStr for $name {
            type Err = <$inner as FromStr>::Err;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// A tenant; every row that a client can see belongs to one.
    WorkspaceId(i64)
}
id! {
    /// One run of one agent. The integer is what URLs and events carry.
    ExecutionId(i64)
}
id! {
    /// The resumable thing: conversation and working tree.
    SessionId(Uuid)
}
id! {
    /// Made by a worker for one `claim`; repeating it returns the same lease.
    ClaimId(Uuid)
}
id! {
    /// A workspace's API key, without its secret.
    ApiKeyId(i64)
}

id! {
    /// A person who signs in.
    UserId(Uuid)
}
id! {
    /// A project of a workspace.
    ProjectId(i64)
}
id! {
    /// What is wanted in a project.
    TaskId(i64)
}
id! {
    /// A stored definition of an agent.
    AgentId(i64)
}
id! {
    /// A device that a person works on.
    DeviceId(Uuid)
}

impl SessionId {
    /// A fresh random id. It begins with the time: ids of one day are neighbours in an index,
    /// whose pages a random id would touch all over.
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// The directory of this session below an installation's session root,
    /// and the prefix of its objects in S3: `session-{uuid}`.
    pub fn folder(self) -> String {
        format!("session-{}", self.0)
    }
}
