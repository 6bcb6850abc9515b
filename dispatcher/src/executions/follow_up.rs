//! A turn that nobody submits: what people said to a running agent which ended before it took
//! it. It runs as the turn before did, with the same settings and credentials, because it was
//! accepted as a part of that turn.

use anyhow::{Context, bail};
use clawlink_shared::execution::Spec;
use clawlink_shared::id::ExecutionId;
use clawlink_shared::prompt::PromptPart;
use serde::Deserialize;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use super::accept::first_events;
use super::store::accept::{self as rows, Link, NewExecution, Next, Written};
use super::store::events::Appended;
use super::store::locked::Locked;
use super::wait::{Outlook, WaitReason};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::messages::Left;
use crate::outbox::{self, Effect, Places};

/// A turn that was made.
#[derive(Debug)]
pub(super) struct FollowUp {
    /// Its number.
    pub(super) id: ExecutionId,
    /// Its first events, to be published.
    pub(super) appended: Appended,
}

/// Makes the next turn of a locked execution's session, before that one ends; `None` if what was
/// stored with that one cannot be read any more.
pub(super) async fn make(
    app: &App,
    db: &mut PgConnection,
    held: &Locked,
    left: &[Left],
) -> anyhow::Result<Option<FollowUp>> {
    let next = rows::next_after(db, held.log.execution).await?;
    let (mut spec, credentials) = match stored(app, &next) {
        Ok(stored) => stored,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::error!(error, execution = %held.log.execution, "no next turn can be made");
            return Ok(None);
        }
    };
    let texts: Vec<&str> = left.iter().map(|left| left.text.as_str()).collect();
    spec.prompt = vec![PromptPart::Text {
        text: texts.join("\n\n"),
    }];
    let by = left.last().map_or("", |left| left.sent_by.as_str());
    let id = next.id;
    let uuid = Uuid::now_v7();
    let outlook = Outlook {
        position: 0,
        wait_reason: Some(WaitReason::SessionBusy),
    };
    let note = format!(
        "This is what was said to execution {} before it ended.",
        held.log.execution
    );
    let session = held.log.session;
    let actor = Actor {
        name: by.to_owned(),
        address: None,
    };
    let submitted = ("execution", id.to_string());
    let entry = Entry::done(held.workspace, &actor, "execution.submitted", submitted);
    let entry = entry.with(json!({"agent": spec.agent.as_str(), "session": session}));
    let enqueue = Effect::Enqueue { execution: id };
    let new = NewExecution {
        id,
        uuid,
        workspace: held.workspace,
        session,
        resuming: true,
        session_budget: None,
        spec: &spec,
        priority: next.priority,
        on_worker_lost: held.on_worker_lost,
        submitted_by: by,
        wait_reason: outlook.wait_reason,
        sealed_credentials: &app.keys.seal_without_id(uuid.as_bytes(), &credentials),
        link: &Link {
            task: held.task,
            agent: next.agent,
            ..Link::default()
        },
        idempotency: None,
        events: &first_events(Some(session), spec.agent, &[note], outlook)?,
        enqueue: &outbox::Rows::of(std::slice::from_ref(&enqueue), &Places::default())?,
        entry: audit::Columns::from(&entry),
    };
    let appended = match rows::insert(db, &new).await? {
        Written::Now { appended, .. } => appended,
        Written::NoSession | Written::KeyUsed => bail!("the session is gone"),
    };
    metrics::counter!("clawlink_executions_accepted_total", "agent" => spec.agent.as_str())
        .increment(1);
    Ok(Some(FollowUp { id, appended }))
}

/// What was stored with the turn before.
fn stored(app: &App, next: &Next) -> anyhow::Result<(Spec, Vec<u8>)> {
    let spec = Spec::deserialize(&next.spec).context("read stored request")?;
    let credentials = match &next.sealed {
        Some(sealed) => app.keys.open(next.uuid.as_bytes(), sealed)?,
        None => b"{}".to_vec(),
    };
    Ok((spec, credentials))
}
