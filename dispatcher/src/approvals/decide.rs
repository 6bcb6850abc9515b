//! A question is decided, once: under the execution's row lock, together with the order to the
//! worker, the events, and the step back to `running` when it was the last one open.

use clawlink_shared::approval::Decision;
use clawlink_shared::execution::State;
use clawlink_shared::id::ExecutionId;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::{self, Row};
use super::{Answer, BY_END, resolved, rules};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::live::{self, Appended, Locked};
use crate::feed;

/// Answers a question in the name of the caller, who may see the execution. 404
/// `approval_not_found`; 409 `approval_decided` when somebody was faster.
pub(super) async fn decide(
    app: &App,
    principal: &Principal,
    execution: ExecutionId,
    id: Uuid,
    (decision, message): (Decision, Option<&str>),
) -> ApiResult<Row> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    let held = live::lock(&mut tx, workspace, execution).await?;
    let row = store::find(&mut tx, workspace, execution, id).await?;
    let (Some(mut held), Some(row)) = (held, row) else {
        return Err(ApiError::not_found(
            "approval_not_found",
            "this execution's agent asked no such question",
        ));
    };
    if row.state != "open" || !is_waiting(&held, &row) {
        return Err(already_decided(&row));
    }
    let by = principal.name();
    let answer = Answer {
        state: match decision.is_allowing() {
            true => "allowed",
            false => "denied",
        },
        decision,
        message,
        by: &by,
    };
    let told = settle(&mut tx, &mut held, id, &answer).await?;
    if decision == Decision::AllowForSession {
        remember(&mut tx, &held, &row, &by).await?;
    }
    let actor = Actor::from(principal);
    let action = match decision.is_allowing() {
        true => "approval.allowed",
        false => "approval.denied",
    };
    let thing = ("execution", execution.to_string());
    let details = json!({
        "approvalId": id, "tool": row.tool, "kind": row.kind, "decision": decision,
    });
    let entry = Entry::done(workspace, &actor, action, thing).with(details);
    audit::record(&mut tx, &entry).await?;
    let row = store::find(&mut tx, workspace, execution, id).await?;
    announce(&mut tx, &held, id, decision.as_str()).await?;
    tx.commit().await?;
    live::publish(app, execution, told);
    feed::poke(app, workspace);
    metrics::counter!("clawlink_approvals_total", "decision" => decision.as_str()).increment(1);
    row.ok_or_else(|| anyhow::anyhow!("a question is gone").into())
}

/// Writes down an answer to an open question of a locked execution and tells it. The caller
/// commits, then publishes.
pub(super) async fn settle(
    db: &mut PgConnection,
    held: &mut Locked,
    id: Uuid,
    answer: &Answer<'_>,
) -> anyhow::Result<Appended> {
    let execution = held.log.execution;
    let number = live::number_order(db, held).await?;
    let was_open = store::settle(db, held.workspace, execution, id, answer, number).await?;
    anyhow::ensure!(was_open, "a question of a locked execution changed");
    let event = resolved(id, answer.decision.as_str(), answer.by, None)?;
    let told = live::append(db, held, &[event]).await?;
    if held.state == State::Waiting && !super::is_asking(db, held).await? {
        let moved = live::go_on(db, held).await?;
        return Ok(told.and(Some(moved)));
    }
    Ok(told)
}

/// Tells the workspace's feed, as the last deed of the transaction.
pub(super) async fn announce(
    db: &mut PgConnection,
    held: &Locked,
    approval_id: Uuid,
    decision: &str,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Told<'a> {
        approval_id: Uuid,
        execution_id: ExecutionId,
        decision: &'a str,
    }
    let told = Told {
        approval_id,
        execution_id: held.log.execution,
        decision,
    };
    feed::append(db, held.workspace, "approval.resolved", &told).await
}

/// Whether the worker that asked waits for the answer.
pub(super) fn is_waiting(held: &Locked, row: &Row) -> bool {
    held.state == State::Waiting && held.attempt == row.attempt
}

async fn remember(db: &mut PgConnection, held: &Locked, row: &Row, by: &str) -> anyhow::Result<()> {
    let asked = rules::Asked {
        agent: held.agent,
        kind: row.kind,
        tool: &row.tool,
        input: serde_json::from_str(row.input.get()).unwrap_or_default(),
        is_partial: row.is_partial,
    };
    let Some(grant) = rules::grant_of(&asked) else {
        return Ok(());
    };
    let what = (held.agent, row.tool.as_str(), &grant[..]);
    store::grant(db, held.workspace, held.log.session, what, by).await
}

fn already_decided(row: &Row) -> ApiError {
    let by = row.decided_by.as_deref().unwrap_or(BY_END);
    let how = match row.state.as_str() {
        "open" => "withdrawn",
        state => state,
    };
    ApiError::conflict(
        "approval_decided",
        format!("this question is {how} already, by {by}"),
    )
}
