//! A question arrives: rules answer it at once, or it waits for people.

use clawlink_shared::approval::{
    DENIED_BY_RULE, Decision, MAX_OPEN_QUESTIONS, QuestionKind, Requested, TOO_MANY_QUESTIONS,
};
use clawlink_shared::event::EventType;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use uuid::Uuid;

use super::rules::{self, Judged};
use super::store::{self, New};
use super::{Answer, resolved};
use crate::app::App;
use crate::executions::live::{self, Locked, NewEvent};
use crate::executions::timestamp;

/// What became of a question.
#[derive(Debug)]
pub(crate) struct Asked {
    /// `approval_requested`, with the time until which it waits.
    pub(crate) event: NewEvent,
    /// `approval_resolved`, if it was answered at once.
    pub(crate) resolved: Option<NewEvent>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    approval_id: Uuid,
    kind: QuestionKind,
    tool: &'a str,
    input: &'a RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    expires_at: String,
}

/// Writes down a question of a locked execution and what the rules say to it; `None` if it was
/// asked before. The caller appends the events and moves the execution.
pub(crate) async fn ask(
    app: &App,
    db: &mut PgConnection,
    held: &mut Locked,
    requested: &Requested,
) -> anyhow::Result<Option<Asked>> {
    let settings = store::rules::settings(db, held.workspace).await?;
    let expires_at = held.now + settings.timeout(&app.tuning);
    let fields = Fields {
        approval_id: requested.approval_id,
        kind: requested.kind,
        tool: &requested.tool,
        input: &requested.input,
        partial: requested.partial,
        expires_at: timestamp(expires_at),
    };
    let event = NewEvent::own(EventType::ApprovalRequested, &fields)?;
    let open = store::count_open(db, held.workspace, held.log.execution).await?;
    let new = New {
        workspace: held.workspace,
        execution: held.log.execution,
        session: held.log.session,
        attempt: held.attempt,
        agent: held.agent,
        requested,
        expires_at,
    };
    if !store::insert(db, &new).await? {
        return Ok(None);
    }
    let asked = rules::Asked {
        agent: held.agent,
        kind: requested.kind,
        tool: &requested.tool,
        // What cannot be read is not whole.
        input: serde_json::from_str(requested.input.get()).unwrap_or(Value::Null),
        is_partial: requested.partial,
    };
    let (by, policy, is_allowed, why) = if open >= MAX_OPEN_QUESTIONS as i64 {
        ("limit", None, false, TOO_MANY_QUESTIONS)
    } else {
        match judge(db, held, &asked).await? {
            Judged::Ask => {
                return Ok(Some(Asked {
                    event,
                    resolved: None,
                }));
            }
            Judged::BySession => ("session", None, true, ""),
            Judged::ByRule { rule, allow } => ("policy", Some(rule), allow, DENIED_BY_RULE),
        }
    };
    let (state, decision) = match is_allowed {
        true => ("allowed", Decision::Allow),
        false => ("denied", Decision::Deny),
    };
    let name = policy.map_or_else(|| by.to_owned(), |policy| format!("policy:{policy}"));
    let answer = Answer {
        state,
        decision,
        message: (!is_allowed).then_some(why),
        by: &name,
    };
    let number = live::number_order(db, held).await?;
    let id = requested.approval_id;
    store::settle(db, held.workspace, held.log.execution, id, &answer, number).await?;
    Ok(Some(Asked {
        event,
        resolved: Some(resolved(id, decision.as_str(), by, policy)?),
    }))
}

async fn judge(
    db: &mut PgConnection,
    held: &Locked,
    asked: &rules::Asked<'_>,
) -> anyhow::Result<Judged> {
    let rules = store::rules::all(db, held.workspace).await?;
    let is_granted = match rules::grant_of(asked) {
        Some(grant) => {
            let session = held.log.session;
            let what = (held.agent, asked.tool, &grant[..]);
            store::is_granted(db, held.workspace, session, what).await?
        }
        None => false,
    };
    Ok(rules::judge(&rules, is_granted, asked))
}
