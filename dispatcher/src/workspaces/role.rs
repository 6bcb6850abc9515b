//! What each role may do: one table, no exceptions elsewhere.
//!
//! Members have a role in an order, each including those before it; API keys have roles of
//! their own. Policies can only narrow what stands here. API.md prints this table, and a test
//! holds both together.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a person may do in a workspace. The order is the rank.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    /// Looks.
    Viewer,
    /// Works: submits, writes, cancels.
    Developer,
    /// Runs the workspace: people, keys, secrets, policies.
    Manager,
    /// May give it away or delete it.
    Owner,
}

/// What an API key may do in its workspace.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum KeyRole {
    /// Everything but what only an owner may.
    Admin,
    /// Submit, read, cancel, write, delete sessions.
    Developer,
    /// Read.
    Readonly,
    /// Submit, read, cancel, and move tasks on.
    Ci,
}

/// Either kind of role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Of a person.
    Member(MemberRole),
    /// Of a key.
    Key(KeyRole),
}

/// Declares the permissions with their names and who has them.
macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $least:ident, [$($key:ident),*];)*) => {
        /// One thing that may be allowed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Permission {
            $($(#[$doc])* $variant,)*
        }

        impl Permission {
            /// All of them, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name in JSON and documents.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Whether it changes nothing.
            pub fn is_read(self) -> bool {
                self.as_str().ends_with(":read")
            }

            /// The least member role and the key roles that have it.
            fn holders(self) -> (MemberRole, &'static [KeyRole]) {
                match self {
                    $(Self::$variant => (MemberRole::$least, &[$(KeyRole::$key),*]),)*
                }
            }
        }
    };
}

permissions! {
    /// See the workspace.
    WorkspaceRead = "workspace:read": Viewer, [Admin, Developer, Readonly, Ci];
    /// Rename and archive it, change its settings.
    WorkspaceUpdate = "workspace:update": Manager, [Admin];
    /// Delete it with everything in it.
    WorkspaceDelete = "workspace:delete": Owner, [];
    /// See who is a member.
    MemberRead = "member:read": Viewer, [Admin, Developer, Readonly];
    /// Invite, change roles up to one's own, remove.
    MemberManage = "member:manage": Manager, [Admin];
    /// See API keys, without their secrets.
    KeyRead = "key:read": Manager, [Admin];
    /// Make and revoke API keys.
    KeyManage = "key:manage": Manager, [Admin];
    /// See devices.
    DeviceRead = "device:read": Viewer, [Admin];
    /// Raise and lower the trust in devices.
    DeviceTrust = "device:trust": Manager, [Admin];
    /// See policies.
    PolicyRead = "policy:read": Developer, [Admin, Developer];
    /// Make and remove policies.
    PolicyManage = "policy:manage": Manager, [Admin];
    /// See projects.
    ProjectRead = "project:read": Viewer, [Admin, Developer, Readonly, Ci];
    /// Make and change projects.
    ProjectWrite = "project:write": Developer, [Admin, Developer];
    /// Delete projects.
    ProjectDelete = "project:delete": Manager, [Admin];
    /// See tasks and the workspace's event stream.
    TaskRead = "task:read": Viewer, [Admin, Developer, Readonly, Ci];
    /// Make and change tasks.
    TaskWrite = "task:write": Developer, [Admin, Developer, Ci];
    /// Delete tasks.
    TaskDelete = "task:delete": Developer, [Admin, Developer];
    /// See executions and their events.
    ExecutionRead = "execution:read": Viewer, [Admin, Developer, Readonly, Ci];
    /// Submit executions.
    ExecutionSubmit = "execution:submit": Developer, [Admin, Developer, Ci];
    /// Cancel executions.
    ExecutionCancel = "execution:cancel": Developer, [Admin, Developer, Ci];
    /// Answer an agent's requests for approval.
    ExecutionApprove = "execution:approve": Developer, [Admin, Developer];
    /// Run `shell`, whose prompt is code.
    ShellRun = "shell:run": Developer, [Admin, Developer, Ci];
    /// See sessions.
    SessionRead = "session:read": Viewer, [Admin, Developer, Readonly, Ci];
    /// Delete sessions.
    SessionDelete = "session:delete": Developer, [Admin, Developer];
    /// See agents and skills.
    AgentRead = "agent:read": Viewer, [Admin, Developer, Readonly, Ci];
    /// Make, change and deactivate agents and skills.
    AgentManage = "agent:manage": Manager, [Admin];
    /// See the names of secrets.
    SecretRead = "secret:read": Developer, [Admin, Developer];
    /// Let an execution use a secret by its name.
    SecretUse = "secret:use": Developer, [Admin, Developer, Ci];
    /// Write and delete secrets.
    SecretManage = "secret:manage": Manager, [Admin];
    /// Set what the workspace may spend.
    LimitManage = "limit:manage": Manager, [Admin];
    /// Read and export the audit log.
    AuditRead = "audit:read": Manager, [Admin];
}

impl Role {
    /// Every role, members first.
    pub const ALL: [Self; 8] = [
        Self::Member(MemberRole::Viewer),
        Self::Member(MemberRole::Developer),
        Self::Member(MemberRole::Manager),
        Self::Member(MemberRole::Owner),
        Self::Key(KeyRole::Admin),
        Self::Key(KeyRole::Developer),
        Self::Key(KeyRole::Readonly),
        Self::Key(KeyRole::Ci),
    ];

    /// Whether the table gives it this permission.
    pub fn may(self, permission: Permission) -> bool {
        let (least, keys) = permission.holders();
        match self {
            Self::Member(role) => role >= least,
            Self::Key(role) => keys.contains(&role),
        }
    }

    /// Whether it may do all that the other may: nobody gives a role that theirs does not cover.
    pub fn covers(self, other: Self) -> bool {
        Permission::ALL
            .iter()
            .all(|permission| self.may(*permission) || !other.may(*permission))
    }

    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member(role) => role.as_str(),
            Self::Key(role) => role.as_str(),
        }
    }
}

impl MemberRole {
    /// From the least to the highest.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Developer, Self::Manager, Self::Owner];

    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::Manager => "manager",
            Self::Owner => "owner",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl KeyRole {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Developer, Self::Readonly, Self::Ci];

    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Developer => "developer",
            Self::Readonly => "readonly",
            Self::Ci => "ci",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    /// As people read it: `developer`, `ci key`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(role) => f.write_str(role.as_str()),
            Self::Key(role) => write!(f, "{} key", role.as_str()),
        }
    }
}

/// The table as API.md prints it.
pub fn markdown() -> String {
    let mut text = String::from("| permission |");
    for role in Role::ALL {
        text.push_str(&format!(" {role} |"));
    }
    text.push_str("\n|---|");
    text.push_str(&":-:|".repeat(Role::ALL.len()));
    for permission in Permission::ALL {
        text.push_str(&format!("\n| `{}` |", permission.as_str()));
        for role in Role::ALL {
            text.push_str(if role.may(*permission) {
                " ✓ |"
            } else {
                "   |"
            });
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_member_may_all_that_a_lower_one_may() {
        for permission in Permission::ALL {
            for pair in MemberRole::ALL.windows(2) {
                let [lower, higher] = [pair[0], pair[1]].map(Role::Member);
                assert!(!lower.may(*permission) || higher.may(*permission));
            }
            assert!(Role::Member(MemberRole::Owner).may(*permission));
        }
    }

    #[test]
    fn only_owners_cover_owners() {
        let owner = Role::Member(MemberRole::Owner);
        let manager = Role::Member(MemberRole::Manager);
        for role in Role::ALL {
            assert!(role.covers(role) && owner.covers(role));
            assert_eq!(role.covers(owner), role == owner, "{role}");
        }
        assert!(manager.covers(Role::Key(KeyRole::Admin)));
        assert!(Role::Key(KeyRole::Admin).covers(manager));
        assert!(!Role::Member(MemberRole::Developer).covers(manager));
    }

    #[test]
    fn readers_change_nothing() {
        for permission in Permission::ALL {
            if !permission.as_str().ends_with(":read") {
                assert!(!Role::Member(MemberRole::Viewer).may(*permission));
                assert!(!Role::Key(KeyRole::Readonly).may(*permission));
            }
        }
    }
}
