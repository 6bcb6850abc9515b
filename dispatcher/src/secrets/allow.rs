//! Names of secrets, and who may use one. Pure.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::AgentId;
use serde::{Deserialize, Serialize};

use crate::auth::principal::{Principal, Trust};
use crate::workspaces::role::{KeyRole, MemberRole, Role};

/// Longest name, in bytes.
const MAX_NAME: usize = 128;

/// Whether a secret may have this name: a letter, a digit or `_`, then also `.` and `-`.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && !name.contains("..")
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Whether this is the name of a role of members or keys.
pub(super) fn is_role(name: &str) -> bool {
    MemberRole::from_name(name).is_some() || KeyRole::from_name(name).is_some()
}

/// Who wants to use secrets: kept with an execution, because its worker asks later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asker {
    /// `user:…`, `key:7`.
    pub(crate) name: String,
    /// With whose right.
    pub(crate) role: AskerRole,
    /// For which agent: its kind, after its number if it is a stored one.
    pub(crate) agents: Vec<String>,
    /// How far the device was trusted that the request showed.
    #[serde(default = "trust_of_earlier_releases")]
    pub(crate) trust: Option<Trust>,
}

/// They did not say, but had checked it when they accepted the request.
fn trust_of_earlier_releases() -> Option<Trust> {
    Some(Trust::Trusted)
}

impl Asker {
    /// A caller who wants to run an agent.
    pub(crate) fn new(principal: &Principal, kind: AgentKind, stored: Option<AgentId>) -> Self {
        let stored = stored.map(|id| id.to_string());
        Self {
            name: principal.name(),
            role: principal.role.into(),
            agents: stored.into_iter().chain([kind.to_string()]).collect(),
            trust: principal.device.map(|(_, trust)| trust),
        }
    }

    /// A caller who wants something done at once, by no agent.
    pub(super) fn without_agent(principal: &Principal) -> Self {
        Self {
            name: principal.name(),
            role: principal.role.into(),
            agents: Vec::new(),
            trust: principal.device.map(|(_, trust)| trust),
        }
    }
}

/// A [`Role`] as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AskerRole {
    /// Of a person.
    Member(MemberRole),
    /// Of a key.
    Key(KeyRole),
}

impl From<Role> for AskerRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Member(role) => Self::Member(role),
            Role::Key(role) => Self::Key(role),
        }
    }
}

impl From<AskerRole> for Role {
    fn from(role: AskerRole) -> Self {
        match role {
            AskerRole::Member(role) => Self::Member(role),
            AskerRole::Key(role) => Self::Key(role),
        }
    }
}

/// Why a secret that exists may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Role,
    Agent,
}

/// Checks a secret's lists; an absent one allows all. A member's higher role includes a listed
/// lower one; keys must be listed.
pub(super) fn check(
    asker: &Asker,
    roles: Option<&[String]>,
    agents: Option<&[String]>,
) -> Result<(), Denied> {
    let is_listed = |roles: &[String]| match asker.role {
        AskerRole::Member(own) => roles
            .iter()
            .filter_map(|name| MemberRole::from_name(name))
            .any(|listed| own >= listed),
        AskerRole::Key(own) => roles.iter().any(|name| name == own.as_str()),
    };
    if !roles.is_none_or(is_listed) {
        return Err(Denied::Role);
    }
    if !agents.is_none_or(|agents| agents.iter().any(|name| asker.agents.contains(name))) {
        return Err(Denied::Agent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_paths_and_variables() {
        for good in [
            "A",
            "_x",
            "GITHUB_TOKEN",
            "GIT_TOKEN_git.example.com",
            "3-d",
        ] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(129);
        for bad in [
            "", ".", "..", "-a", "a..b", "a b", "a/b", "ä", "a\0", "a:b", &long,
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_asker_of_an_earlier_release_is_read() {
        let earlier = r#"{"name":"key:1","role":{"key":"ci"},"agents":["shell"]}"#;
        let asker: Asker = serde_json::from_str(earlier).expect("readable");
        assert_eq!(asker.trust, Some(Trust::Trusted));
        let without = Asker {
            trust: None,
            ..asker
        };
        let stored = serde_json::to_string(&without).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Asker>(&stored).expect("readable"),
            without
        );
    }

    #[test]
    fn lists_narrow() {
        let asker = |role, agent: AgentKind| Asker {
            name: "key:1".to_owned(),
            role,
            agents: vec!["7".to_owned(), agent.to_string()],
            trust: None,
        };
        let lists = |names: &[&str]| -> Vec<String> { names.iter().map(|&s| s.into()).collect() };
        let owner = asker(AskerRole::Member(MemberRole::Owner), AgentKind::Claude);
        let viewer = asker(AskerRole::Member(MemberRole::Viewer), AgentKind::Claude);
        let ci = asker(AskerRole::Key(KeyRole::Ci), AgentKind::Shell);
        let admin = asker(AskerRole::Key(KeyRole::Admin), AgentKind::Shell);
        for everyone in [&owner, &ci] {
            assert_eq!(check(everyone, None, None), Ok(()));
            assert_eq!(check(everyone, Some(&[]), None), Err(Denied::Role));
            assert_eq!(check(everyone, None, Some(&[])), Err(Denied::Agent));
        }
        let roles = lists(&["manager", "ci"]);
        assert_eq!(check(&owner, Some(&roles), None), Ok(()));
        assert_eq!(check(&viewer, Some(&roles), None), Err(Denied::Role));
        assert_eq!(check(&ci, Some(&roles), None), Ok(()));
        assert_eq!(check(&admin, Some(&roles), None), Err(Denied::Role));
        let agents = lists(&["shell"]);
        assert_eq!(check(&ci, None, Some(&agents)), Ok(()));
        assert_eq!(check(&owner, None, Some(&agents)), Err(Denied::Agent));
        assert_eq!(check(&owner, None, Some(&lists(&["7"]))), Ok(()));
    }
}
