//! Policies on single agents, skills, repositories, sessions and secrets. A policy narrows what roles
//! give on what it matches, and can do nothing else: the route table's permission is checked
//! before, and more policies never allow more.
//!
//! A session that a policy hides is not there: 404. What else a policy refuses is 403 and
//! stands in the audit log.

mod decide;
mod http;
mod pattern;
mod rules;
mod store;

use clawlink_shared::id::{SessionId, WorkspaceId};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::app::App;
use crate::audit::{self, Actor, Entry, Outcome};
use crate::auth::principal::{Principal, Trust};
use crate::error::{ApiError, ApiResult};
use crate::executions::accept::no_such_session;
use crate::http::routes::Routes;
use crate::workspaces::role::Role;

pub use decide::{Decision, Denial, Kind, Policy, Reason, Resource, Subject, decide};
pub(crate) use pattern::matches;
pub use rules::{Cache, Rules};

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
}

/// What somebody wants to submit.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The agent by all its names.
    pub agent: &'a [&'a str],
    /// The repository that it works in.
    pub repository: Option<&'a str>,
}

/// 403 for a submission that a policy denies; the denial is recorded.
pub async fn admit(app: &App, principal: &Principal, submission: &Submission<'_>) -> ApiResult<()> {
    let rules = rules::of(app, principal.workspace).await?;
    if rules.list.is_empty() {
        return Ok(());
    }
    enforce(app, &rules, principal, &Resource::Agent(submission.agent)).await?;
    match submission.repository {
        Some(url) => enforce(app, &rules, principal, &Resource::Repository(url)).await,
        None => Ok(()),
    }
}

/// 403 if a policy denies this resource; the denial is recorded.
pub async fn require(app: &App, principal: &Principal, resource: &Resource<'_>) -> ApiResult<()> {
    let rules = rules::of(app, principal.workspace).await?;
    enforce(app, &rules, principal, resource).await
}

/// 404 if a policy hides the session.
pub async fn require_session(
    app: &App,
    principal: &Principal,
    session: SessionId,
) -> ApiResult<()> {
    let rules = rules::of(app, principal.workspace).await?;
    match rules.shows(principal, session) {
        true => Ok(()),
        false => Err(no_such_session()),
    }
}

/// The rules of the caller's workspace, for lists that leave out hidden sessions.
pub async fn rules(app: &App, principal: &Principal) -> ApiResult<std::sync::Arc<Rules>> {
    rules::of(app, principal.workspace).await
}

/// Rules as they stand in Postgres at this moment, for somebody whose request was admitted earlier.
#[derive(Debug)]
pub(crate) struct Recheck {
    list: Vec<Policy>,
    subject: Subject,
}

impl Recheck {
    /// `name` and `role` are those under which the request was admitted.
    pub(crate) async fn of(
        db: &mut PgConnection,
        workspace: WorkspaceId,
        name: &str,
        role: Role,
        trust: Option<Trust>,
    ) -> anyhow::Result<Self> {
        let rows = store::list(db, workspace, None).await?;
        let subject = Subject {
            name: name.to_owned(),
            role: decide::role_name(role),
            trust,
        };
        let list = rows.into_iter().map(|row| row.policy).collect();
        Ok(Self { list, subject })
    }

    /// The first policy that objects by now.
    pub(crate) fn denial(&self, resource: &Resource<'_>) -> Option<Denial> {
        match decide(
            &self.list,
            &self.subject,
            resource,
            OffsetDateTime::now_utc(),
        ) {
            Decision::Allowed => None,
            Decision::Denied(denial) => Some(denial),
        }
    }
}

async fn enforce(
    app: &App,
    rules: &Rules,
    principal: &Principal,
    resource: &Resource<'_>,
) -> ApiResult<()> {
    let subject = Subject::from(principal);
    let decision = decide(&rules.list, &subject, resource, OffsetDateTime::now_utc());
    let Decision::Denied(denial) = decision else {
        return Ok(());
    };
    let (kind, name) = (resource.kind(), resource.name());
    let actor = Actor::from(principal);
    let mut entry = Entry::done(
        principal.workspace,
        &actor,
        "policy.denied",
        (kind.as_str(), name.clone()),
    )
    .with(json!({"policyId": denial.policy, "reason": denial.reason.to_string()}));
    entry.outcome = Outcome::Denied;
    let mut db = app.db.acquire().await?;
    audit::record(&mut db, &entry).await?;
    Err(ApiError::forbidden(format!(
        "policy {} denies the {} {name}: {}",
        denial.policy,
        kind.as_str(),
        denial.reason
    )))
}
