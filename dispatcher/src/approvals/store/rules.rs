//! Rules and settings of workspaces in Postgres.

use std::time::Duration;

use anyhow::Context;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::approval::Decision;
use clawlink_shared::id::WorkspaceId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::approvals::rules::{Rule, Verdict};
use crate::config::{Fallback, Tuning};

/// A rule with what people want to know of it.
#[derive(Debug)]
pub(in crate::approvals) struct Row {
    pub(in crate::approvals) rule: Rule,
    pub(in crate::approvals) description: String,
    pub(in crate::approvals) created_by: String,
    pub(in crate::approvals) created_at: OffsetDateTime,
}

/// What a rule is to say; its `id` is not looked at.
#[derive(Debug)]
pub(in crate::approvals) struct New {
    pub(in crate::approvals) rule: Rule,
    pub(in crate::approvals) description: String,
}

/// How a workspace's questions wait; `None`: as the installation is set.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::approvals) struct Settings {
    pub(in crate::approvals) timeout_seconds: Option<i32>,
    pub(in crate::approvals) on_timeout: Option<Fallback>,
}

impl Settings {
    /// How long a question waits.
    pub(in crate::approvals) fn timeout(&self, tuning: &Tuning) -> Duration {
        let seconds = self.timeout_seconds.and_then(|it| u64::try_from(it).ok());
        seconds.map_or(tuning.approval, Duration::from_secs)
    }

    /// What an unanswered one becomes.
    pub(in crate::approvals) fn fallback(&self, tuning: &Tuning) -> Decision {
        match self.on_timeout.unwrap_or(tuning.approval_default) {
            Fallback::Allow => Decision::Allow,
            Fallback::Deny => Decision::Deny,
        }
    }
}

/// The workspace's settings.
pub(in crate::approvals) async fn settings(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Settings> {
    let row = sqlx::query!(
        "select timeout_seconds, on_timeout from approval_settings where workspace_id = $1",
        workspace.0,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else {
        return Ok(Settings::default());
    };
    Ok(Settings {
        timeout_seconds: row.timeout_seconds,
        on_timeout: row.on_timeout.as_deref().and_then(Fallback::from_name),
    })
}

/// Changes them.
pub(in crate::approvals) async fn set(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    settings: &Settings,
    by: &str,
) -> anyhow::Result<()> {
    sqlx::query!(
        "insert into approval_settings (workspace_id, timeout_seconds, on_timeout, updated_by)
         values ($1, $2, $3, $4)
         on conflict (workspace_id) do update set timeout_seconds = $2, on_timeout = $3,
            updated_by = $4, updated_at = now()",
        workspace.0,
        settings.timeout_seconds,
        settings.on_timeout.map(Fallback::as_str),
        by,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// All rules, in order of their numbers.
pub(in crate::approvals) async fn all(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<Vec<Rule>> {
    let rows = list(db, workspace, None).await?;
    Ok(rows.into_iter().map(|row| row.rule).collect())
}

/// The same with what people want to know; with `only`, just that one.
pub(in crate::approvals) async fn list(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    only: Option<i64>,
) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query!(
        "select id, description, agent, tool, input, decision, created_by, created_at
         from approval_policies
         where workspace_id = $1 and ($2::bigint is null or id = $2) order by id",
        workspace.0,
        only,
    )
    .fetch_all(db)
    .await?;
    let rows = rows.into_iter().map(|row| {
        let agent = row.agent.as_deref().map(|name| {
            AgentKind::from_spelling(name)
                .with_context(|| format!("approval_policies.agent of {}", row.id))
        });
        let verdict = Verdict::from_name(&row.decision);
        Ok(Row {
            rule: Rule {
                id: row.id,
                agent: agent.transpose()?,
                tool: row.tool,
                input: row.input,
                verdict: verdict
                    .with_context(|| format!("approval_policies.decision of {}", row.id))?,
            },
            description: row.description,
            created_by: row.created_by,
            created_at: row.created_at,
        })
    });
    rows.collect()
}

/// How many rules there are.
pub(in crate::approvals) async fn count(
    db: &mut PgConnection,
    workspace: WorkspaceId,
) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar!(
        "select count(*) as \"count!\" from approval_policies where workspace_id = $1",
        workspace.0,
    )
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Adds a rule; its number.
pub(in crate::approvals) async fn insert(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    new: &New,
    by: &str,
) -> anyhow::Result<i64> {
    let rule = &new.rule;
    let id = sqlx::query_scalar!(
        "insert into approval_policies
            (workspace_id, description, agent, tool, input, decision, created_by)
         values ($1, $2, $3, $4, $5, $6, $7) returning id",
        workspace.0,
        new.description,
        rule.agent.map(AgentKind::as_str),
        rule.tool,
        rule.input,
        rule.verdict.as_str(),
        by,
    )
    .fetch_one(db)
    .await?;
    Ok(id)
}

/// Makes a rule say something else; false if there is none.
pub(in crate::approvals) async fn replace(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: i64,
    new: &New,
) -> anyhow::Result<bool> {
    let rule = &new.rule;
    let done = sqlx::query!(
        "update approval_policies
         set description = $3, agent = $4, tool = $5, input = $6, decision = $7
         where workspace_id = $1 and id = $2",
        workspace.0,
        id,
        new.description,
        rule.agent.map(AgentKind::as_str),
        rule.tool,
        rule.input,
        rule.verdict.as_str(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a rule; false if there is none.
pub(in crate::approvals) async fn delete(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    id: i64,
) -> anyhow::Result<bool> {
    let done = sqlx::query!(
        "delete from approval_policies where workspace_id = $1 and id = $2",
        workspace.0,
        id,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
