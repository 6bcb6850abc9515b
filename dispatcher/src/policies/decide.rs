//! The evaluation: pure, so that its one law can be tested. Every policy that matches must
//! agree; there is no policy that gives.

use std::fmt;

use clawlink_shared::id::SessionId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::pattern;
use crate::auth::principal::{Principal, Trust};
use crate::workspaces::role::{KeyRole, MemberRole, Role};

/// What a policy can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PolicyResourceKind)]
pub enum Kind {
    /// An agent's kind, or a stored agent.
    Agent,
    /// A skill.
    Skill,
    /// A repository.
    Repository,
    /// A session.
    Session,
    /// A secret.
    Secret,
}

/// One policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub kind: Kind,
    /// Which of those, in normal form; `*` stands for any run of characters.
    pub pattern: String,
    /// If these or `allowed_users` name anybody, all others are refused.
    pub allowed_roles: Vec<String>,
    /// Refused, also if allowed.
    pub denied_roles: Vec<String>,
    /// By name: `user:…`, `key:7`.
    pub allowed_users: Vec<String>,
    /// Refused, also if allowed.
    pub denied_users: Vec<String>,
    /// The least trust in the caller's device.
    pub minimum_trust: Option<Trust>,
    /// From then on it narrows nothing.
    pub expires_at: Option<OffsetDateTime>,
}

/// Who wants something.
#[derive(Debug, Clone)]
pub struct Subject {
    /// `user:…`, `key:7`.
    pub name: String,
    /// The role as policies spell it.
    pub role: String,
    /// Of the device that was proved; `None` without one, which is less than untrusted.
    pub trust: Option<Trust>,
}

impl From<&Principal> for Subject {
    fn from(principal: &Principal) -> Self {
        Self {
            name: principal.name(),
            role: role_name(principal.role),
            trust: principal.device.map(|(_, trust)| trust),
        }
    }
}

/// What somebody wants to use.
#[derive(Debug, Clone, Copy)]
pub enum Resource<'a> {
    /// An agent by all its names: kind, number, name. A policy on one of them counts.
    Agent(&'a [&'a str]),
    /// A skill by all its names.
    Skill(&'a [&'a str]),
    /// A repository by its URL.
    Repository(&'a str),
    /// A session.
    Session(SessionId),
    /// A secret by its name.
    Secret(&'a str),
}

/// What policies say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// None objects.
    Allowed,
    /// The first that objects.
    Denied(Denial),
}

/// An objection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Whose.
    pub policy: i64,
    /// Why.
    pub reason: Reason,
}

/// Why a policy objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The role is denied.
    DeniedRole,
    /// The caller is denied.
    DeniedUser,
    /// Others are allowed.
    NotAllowed,
    /// The device is trusted less than this, or there is none.
    Device(Trust),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeniedRole => f.write_str("your role is denied"),
            Self::DeniedUser => f.write_str("you are denied"),
            Self::NotAllowed => f.write_str("only others are allowed"),
            Self::Device(trust) => write!(f, "it wants a device that is {}", trust.as_str()),
        }
    }
}

/// Asks every policy.
pub fn decide(
    policies: &[Policy],
    subject: &Subject,
    resource: &Resource<'_>,
    now: OffsetDateTime,
) -> Decision {
    let names = resource.names();
    let denial = policies
        .iter()
        .filter(|policy| policy.kind == resource.kind())
        .filter(|policy| policy.expires_at.is_none_or(|end| now < end))
        .filter(|policy| {
            names
                .iter()
                .any(|name| pattern::matches(&policy.pattern, name))
        })
        .find_map(|policy| {
            let reason = policy.objection(subject)?;
            let policy = policy.id;
            Some(Denial { policy, reason })
        });
    denial.map_or(Decision::Allowed, Decision::Denied)
}

impl Policy {
    fn objection(&self, subject: &Subject) -> Option<Reason> {
        if self.denied_users.contains(&subject.name) {
            return Some(Reason::DeniedUser);
        }
        if self.denied_roles.contains(&subject.role) {
            return Some(Reason::DeniedRole);
        }
        let is_open = self.allowed_users.is_empty() && self.allowed_roles.is_empty();
        let is_listed = self.allowed_users.contains(&subject.name)
            || self.allowed_roles.contains(&subject.role);
        if !is_open && !is_listed {
            return Some(Reason::NotAllowed);
        }
        let minimum = self.minimum_trust?;
        (subject.trust < Some(minimum)).then_some(Reason::Device(minimum))
    }
}

impl Kind {
    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Skill => "skill",
            Self::Repository => "repository",
            Self::Session => "session",
            Self::Secret => "secret",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Agent,
            Self::Skill,
            Self::Repository,
            Self::Session,
            Self::Secret,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == name)
    }
}

impl Resource<'_> {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Agent(_) => Kind::Agent,
            Self::Skill(_) => Kind::Skill,
            Self::Repository(_) => Kind::Repository,
            Self::Session(_) => Kind::Session,
            Self::Secret(_) => Kind::Secret,
        }
    }

    /// Its names in normal form.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Agent(names) => names.iter().map(|name| pattern::agent(name)).collect(),
            Self::Skill(names) => names.iter().map(|name| name.to_lowercase()).collect(),
            Self::Repository(url) => vec![pattern::repository(url)],
            Self::Session(id) => vec![id.to_string()],
            Self::Secret(name) => vec![(*name).to_owned()],
        }
    }

    /// Its first name.
    pub fn name(&self) -> String {
        self.names().into_iter().next().unwrap_or_default()
    }
}

/// A role as policies spell it: keys have a prefix, since `developer` is also a member's.
pub(super) fn role_name(role: Role) -> String {
    match role {
        Role::Member(role) => role.as_str().to_owned(),
        Role::Key(role) => format!("key:{}", role.as_str()),
    }
}

/// Whether some role is spelled so.
pub(super) fn is_role(text: &str) -> bool {
    match text.strip_prefix("key:") {
        Some(name) => KeyRole::from_name(name).is_some(),
        None => MemberRole::from_name(text).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Duration;

    use super::*;

    const NAMES: [&str; 3] = ["user:a", "user:b", "key:7"];
    const ROLES: [&str; 3] = ["developer", "owner", "key:ci"];
    const PATTERNS: [&str; 4] = ["*", "claude", "sh*", "shell"];
    const TRUSTS: [Option<Trust>; 4] = [
        None,
        Some(Trust::Untrusted),
        Some(Trust::Verified),
        Some(Trust::Trusted),
    ];

    fn now() -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH
    }

    fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(prop::sample::select(names).prop_map(str::to_owned), 0..3)
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let end = prop::sample::select(&[None, Some(-1), Some(1)][..]);
        (
            prop::sample::select(&[Kind::Agent, Kind::Skill][..]),
            prop::sample::select(&PATTERNS[..]),
            (some_of(&ROLES), some_of(&ROLES)),
            (some_of(&NAMES), some_of(&NAMES)),
            prop::sample::select(&TRUSTS[..]),
            end,
        )
            .prop_map(|(kind, pattern, roles, users, minimum_trust, end)| Policy {
                id: 1,
                kind,
                pattern: pattern.to_owned(),
                allowed_roles: roles.0,
                denied_roles: roles.1,
                allowed_users: users.0,
                denied_users: users.1,
                minimum_trust,
                expires_at: end.map(|seconds| now() + Duration::seconds(seconds)),
            })
    }

    fn any_subject() -> impl Strategy<Value = Subject> {
        (
            prop::sample::select(&NAMES[..]),
            prop::sample::select(&ROLES[..]),
            prop::sample::select(&TRUSTS[..]),
        )
            .prop_map(|(name, role, trust)| Subject {
                name: name.to_owned(),
                role: role.to_owned(),
                trust,
            })
    }

    proptest! {
        /// A policy more never allows what was denied, and what denies alone denies among all.
        #[test]
        fn policies_only_narrow(
            list in prop::collection::vec(any_policy(), 0..6),
            subject in any_subject(),
            agent in prop::sample::select(&["claude", "shell"][..]),
        ) {
            let names = [agent];
            let resource = Resource::Agent(&names);
            let ask = |list: &[Policy]| decide(list, &subject, &resource, now());
            prop_assert_eq!(ask(&[]), Decision::Allowed);
            let mut denied = false;
            for end in 0..=list.len() {
                let is_denied = ask(&list[..end]) != Decision::Allowed;
                prop_assert!(is_denied || !denied);
                denied = is_denied;
            }
            let anyone = list.iter().any(|one| ask(std::slice::from_ref(one)) != Decision::Allowed);
            prop_assert_eq!(anyone, denied);
        }

        /// Who is denied by name or role gets nowhere, also if allowed; nor who shows too little.
        #[test]
        fn a_denial_holds(mut policy in any_policy(), subject in any_subject(), by in 0..3) {
            policy.kind = Kind::Agent;
            policy.pattern = "*".to_owned();
            policy.expires_at = None;
            policy.allowed_users.push(subject.name.clone());
            policy.allowed_roles.push(subject.role.clone());
            match by {
                0 => policy.denied_users.push(subject.name.clone()),
                1 => policy.denied_roles.push(subject.role.clone()),
                _ => policy.minimum_trust = Some(Trust::Trusted),
            }
            let is_enough = by == 2
                && subject.trust == Some(Trust::Trusted)
                && !policy.denied_users.contains(&subject.name)
                && !policy.denied_roles.contains(&subject.role);
            let decision = decide(&[policy], &subject, &Resource::Agent(&["claude"]), now());
            prop_assert_eq!(decision == Decision::Allowed, is_enough);
        }
    }
}
