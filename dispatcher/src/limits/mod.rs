//! Limits: how much money executions may cost, for a workspace's day (UTC), a session and one
//! execution. One session may have a budget of its own, within what the workspace allows each.
//!
//! A limit that is reached refuses new work, ends what waited when a worker takes it, and stops
//! what runs: the dispatcher decides at each report of usage, while the workspace's limits are
//! locked, so that of executions that race for the last dollar one at least sees both. What the
//! model is doing at that moment is still paid: by that much a limit may be passed. Costs that
//! nobody knows cannot be limited.

mod amount;
mod http;
mod store;

use clawlink_shared::id::{ExecutionId, SessionId, WorkspaceId};
use sqlx::PgConnection;

use crate::app::App;
use crate::error::ApiResult;
use crate::http::routes::Routes;
use crate::usage;
use crate::usage::money::Micros;

pub(crate) use amount::Amount;

/// This feature's routes.
pub fn routes(app: &App) -> Routes {
    http::routes(app)
}

/// What a workspace may spend; absent: any amount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// On one day (UTC).
    pub day: Option<Micros>,
    /// In all turns of one session.
    pub session: Option<Micros>,
    /// In one execution whose request says nothing.
    pub execution: Option<Micros>,
}

/// What one session and one execution in it may cost by themselves; absent: what the workspace
/// allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Own {
    /// In all turns of the session.
    pub session: Option<Micros>,
    /// In the execution, as its request says.
    pub execution: Option<Micros>,
}

/// A limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    kind: Kind,
    spent: Micros,
    limit: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Day,
    Session,
    OwnSession,
    Execution,
}

impl Reached {
    /// What happened and what to do, for people.
    pub fn message(&self) -> String {
        let Self { kind, spent, limit } = self;
        match kind {
            Kind::Day => format!(
                "the workspace has spent {spent} of {limit} today; raise the limit, or go on \
                 after midnight UTC"
            ),
            Kind::Session => format!(
                "the session has cost {spent} of {limit}; raise the workspace's limit of \
                 sessions, then resume it"
            ),
            Kind::OwnSession => format!(
                "the session has cost {spent} of {limit}; raise its own limit, then resume it"
            ),
            Kind::Execution => format!(
                "the execution has cost {spent} of {limit}; resume its session with a higher \
                 limit"
            ),
        }
    }
}

/// The limit that new work of the workspace would find reached: in this session, if it resumes
/// one, whose own budget is `own`.
pub async fn exhausted(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: Option<SessionId>,
    own: Option<Micros>,
) -> anyhow::Result<Option<Reached>> {
    let limits = store::find(db, workspace).await?.unwrap_or_default();
    if own.is_none() && limits == Limits::default() {
        return Ok(None);
    }
    let spent = usage::spent(db, workspace, session, None).await?;
    let reached = [
        (Kind::Day, spent.day, limits.day),
        (Kind::OwnSession, spent.session, own),
        (Kind::Session, spent.session, limits.session),
    ];
    Ok(first(&reached))
}

/// The same for an execution that runs, after its usage was recorded in this transaction. Waits for
/// others of the workspace that are being decided about.
pub async fn reached(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    session: SessionId,
    execution: ExecutionId,
    own: Own,
) -> anyhow::Result<Option<Reached>> {
    let limits = store::lock(db, workspace).await?.unwrap_or_default();
    if own == Own::default() && limits == Limits::default() {
        return Ok(None);
    }
    let spent = usage::spent(db, workspace, Some(session), Some(execution)).await?;
    let reached = [
        (
            Kind::Execution,
            spent.execution,
            own.execution.or(limits.execution),
        ),
        (Kind::OwnSession, spent.session, own.session),
        (Kind::Session, spent.session, limits.session),
        (Kind::Day, spent.day, limits.day),
    ];
    Ok(first(&reached))
}

fn first(all: &[(Kind, Micros, Option<Micros>)]) -> Option<Reached> {
    all.iter().find_map(|(kind, spent, limit)| {
        let limit = limit.filter(|limit| spent >= limit)?;
        Some(Reached {
            kind: *kind,
            spent: *spent,
            limit,
        })
    })
}

/// 403 `budget_exceeded` for new work of a workspace that has used its money up.
pub async fn admit(
    app: &App,
    workspace: WorkspaceId,
    session: Option<SessionId>,
    own: Option<Micros>,
) -> ApiResult<()> {
    let mut db = app.db.acquire().await?;
    match exhausted(&mut db, workspace, session, own).await? {
        Some(reached) => Err(http::refused(&reached)),
        None => Ok(()),
    }
}

/// 400 for a session's budget that is more than the workspace allows each session.
pub(crate) async fn require_allowed(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    budget: Option<Micros>,
) -> ApiResult<()> {
    let limits = store::find(db, workspace).await?.unwrap_or_default();
    match (budget, limits.session) {
        (Some(budget), Some(most)) if budget > most => Err(http::too_much(most)),
        _ => Ok(()),
    }
}
