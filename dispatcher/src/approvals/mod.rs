//! Approvals: agents ask, rules answer, else people do, else the clock.
//!
//! A question is a row that only a waiting execution has open. Whoever decides it locks the
//! execution first, so the first answer wins, and in the same transaction the answer becomes an
//! order to the worker and an event for everybody. What must never happen: an agent that goes
//! on because nobody said no, unless that is what the workspace asked for.

mod ask;
mod command;
mod decide;
mod expire;
mod http;
mod policy_http;
mod rules;
mod store;

use clawlink_shared::approval::Decision;
use clawlink_shared::control::Order;
use clawlink_shared::event::EventType;
use clawlink_shared::id::ExecutionId;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::app::App;
use crate::executions::live::{Locked, NewEvent};
use crate::feed;
use crate::http::doc::Doc;
use crate::http::routes::{Access, Routes};
use crate::workspaces::role::Permission;

pub(crate) use ask::ask;
pub use expire::expire;

/// Who withdraws a question: its agent, which does not wait any more.
const BY_AGENT: &str = "agent";
/// The end of the run, or the loss of its worker.
const BY_END: &str = "end";

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    let read = Access::Needs(Permission::ExecutionRead);
    Routes::new(app)
        .get(
            "/executions/{id}/approvals",
            read,
            http::of_execution,
            Doc::new("What an execution's agent asked, and what was answered")
                .text("id")
                .query::<http::OpenQuery>()
                .gives::<http::Approvals>(200),
        )
        .post(
            "/executions/{id}/approvals/{approvalId}",
            Access::Needs(Permission::ExecutionApprove),
            http::answer,
            Doc::new("Answer an agent's question; the first answer wins")
                .text("id")
                .uuid("approvalId")
                .body::<http::AnswerBody>()
                .gives::<http::Shown>(200),
        )
        .get(
            "/api/approvals",
            read,
            http::open,
            Doc::new("Open questions of the workspace's agents, oldest first")
                .query::<http::OpenQuery>()
                .gives::<http::Approvals>(200),
        )
        .merge(policy_http::routes(app))
}

/// Starts this feature's loop; any replica may run it at any time.
pub fn spawn_loops(app: &App) {
    app.shutdown
        .tracker()
        .spawn(expire::expire_loop(app.clone()));
}

/// Whether a question of this locked execution is open.
pub(crate) async fn is_asking(db: &mut PgConnection, held: &Locked) -> anyhow::Result<bool> {
    store::is_asking(db, held.workspace, held.log.execution).await
}

/// Withdraws a question of a locked execution; the event that says so, if it was open.
pub(crate) async fn withdraw(
    db: &mut PgConnection,
    held: &Locked,
    id: Uuid,
) -> anyhow::Result<Option<NewEvent>> {
    let only = Some(id);
    let ids = store::withdraw(db, held.workspace, held.log.execution, only, BY_AGENT).await?;
    ids.first().map(|id| withdrawn(*id, BY_AGENT)).transpose()
}

/// Withdraws all open questions of a locked execution; the events that say so.
pub(crate) async fn withdraw_all(
    db: &mut PgConnection,
    held: &Locked,
) -> anyhow::Result<Vec<NewEvent>> {
    let ids = store::withdraw(db, held.workspace, held.log.execution, None, BY_END).await?;
    ids.into_iter().map(|id| withdrawn(id, BY_END)).collect()
}

/// Answers after this number to the questions of one of an execution's workers.
pub(crate) async fn orders(
    db: &mut PgConnection,
    execution: ExecutionId,
    attempt: i32,
    after: i64,
) -> anyhow::Result<Vec<(i64, Order)>> {
    store::orders(db, execution, attempt, after).await
}

/// Tells the workspace's feed of new open questions, as the last deed of the transaction.
pub(crate) async fn announce(
    db: &mut PgConnection,
    held: &Locked,
    asked: &[Uuid],
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Told {
        approval_id: Uuid,
        execution_id: ExecutionId,
    }
    for id in asked {
        let told = Told {
            approval_id: *id,
            execution_id: held.log.execution,
        };
        feed::append(db, held.workspace, "approval.requested", &told).await?;
    }
    Ok(())
}

fn withdrawn(id: Uuid, by: &str) -> anyhow::Result<NewEvent> {
    resolved(id, "withdrawn", by, None)
}

/// The `approval_resolved` event.
fn resolved(
    approval_id: Uuid,
    decision: &str,
    by: &str,
    policy_id: Option<i64>,
) -> anyhow::Result<NewEvent> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields<'a> {
        approval_id: Uuid,
        decision: &'a str,
        by: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy_id: Option<i64>,
    }
    let fields = Fields {
        approval_id,
        decision,
        by,
        policy_id,
    };
    NewEvent::own(EventType::ApprovalResolved, &fields)
}

/// What an answer is.
#[derive(Debug)]
struct Answer<'a> {
    /// `allowed`, `denied` or `expired`.
    state: &'static str,
    decision: Decision,
    /// For the agent to read.
    message: Option<&'a str>,
    /// Who: `user:…`, `key:7`, `policy:3`, `session`, `timeout`.
    by: &'a str,
}
