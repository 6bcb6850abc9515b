//! What an execution that ends, or loses its worker, must not leave behind: open questions are
//! withdrawn, and what people said to an agent that did not take it becomes the session's next
//! turn. All in the transaction of the end, under the execution's row lock.

use clawlink_shared::event::EventType;
use clawlink_shared::execution::State;
use clawlink_shared::id::ExecutionId;
use serde_json::json;
use sqlx::PgConnection;

use super::follow_up::{self, FollowUp};
use super::publish;
use super::store::events::{Appended, NewEvent, append};
use super::store::finish::{self, End};
use super::store::locked::Locked;
use crate::app::App;
use crate::db::Open;
use crate::{approvals, messages, outbox};

/// What is to be published once the end is committed.
#[derive(Debug, Default)]
pub(super) struct WoundUp {
    told: Option<Appended>,
    next: Option<FollowUp>,
}

impl WoundUp {
    /// Publishes it, and then what was appended after it.
    pub(super) fn publish(self, app: &App, execution: ExecutionId, then: Appended) {
        let all = match self.told {
            Some(told) => told.and(Some(then)),
            None => then,
        };
        publish(app, execution, all);
        if let Some(next) = self.next {
            publish(app, next.id, next.appended);
            outbox::poke(app);
        }
    }
}

/// Ends a locked execution of which no worker reports the end; commits, and tells everybody.
pub(super) async fn end(
    app: &App,
    mut tx: Open,
    mut held: Locked,
    end: &End,
) -> anyhow::Result<()> {
    let execution = held.log.execution;
    let wound_up = before_end(app, &mut tx, &mut held, end).await?;
    let appended = finish::end(&mut tx, &held, end).await?;
    tx.commit().await?;
    wound_up.publish(app, execution, appended);
    app.bus.publish_control(execution);
    outbox::poke(app);
    outbox::poke_slow(app);
    let state = end.state().as_str();
    metrics::counter!("clawlink_executions_ended_total", "state" => state).increment(1);
    Ok(())
}

/// Before the end of a locked execution.
pub(super) async fn before_end(
    app: &App,
    db: &mut PgConnection,
    held: &mut Locked,
    end: &End,
) -> anyhow::Result<WoundUp> {
    let mut events = withdrawn(db, held).await?;
    let mut next = None;
    let left = match held.orders {
        0 => Vec::new(),
        _ => messages::open(db, held).await?,
    };
    if !left.is_empty() {
        let text = match end {
            End::Cancelled { .. } => {
                messages::drop_open(db, held).await?;
                "What was said last did not reach the agent: the execution was cancelled."
                    .to_owned()
            }
            End::Completed | End::Failed { .. } => {
                next = follow_up::make(app, db, held, &left).await?;
                match &next {
                    Some(made) => {
                        messages::moved(db, held, made.id).await?;
                        format!(
                            "The agent ended before it took what was said last: that is \
                             execution {} now, the session's next turn.",
                            made.id
                        )
                    }
                    None => {
                        messages::drop_open(db, held).await?;
                        "What was said last did not reach the agent, and the stored request \
                         cannot be read any more: say it in a new request."
                            .to_owned()
                    }
                }
            }
        };
        let fields = json!({ "message": text });
        events.push(NewEvent::own(EventType::Message, &fields)?);
    }
    Ok(WoundUp {
        told: tell(db, held, &events).await?,
        next,
    })
}

/// Before a locked execution goes back to `pending`: whoever gets it next hears everything that
/// was said anew, because its agent begins where the session was saved.
pub(super) async fn before_requeue(
    db: &mut PgConnection,
    held: &mut Locked,
) -> anyhow::Result<WoundUp> {
    let events = withdrawn(db, held).await?;
    if held.orders > 0 {
        messages::reopen(db, held).await?;
    }
    Ok(WoundUp {
        told: tell(db, held, &events).await?,
        next: None,
    })
}

async fn withdrawn(db: &mut PgConnection, held: &Locked) -> anyhow::Result<Vec<NewEvent>> {
    match held.state {
        State::Waiting => approvals::withdraw_all(db, held).await,
        _ => Ok(Vec::new()),
    }
}

async fn tell(
    db: &mut PgConnection,
    held: &mut Locked,
    events: &[NewEvent],
) -> anyhow::Result<Option<Appended>> {
    if events.is_empty() {
        return Ok(None);
    }
    Ok(Some(append(db, &mut held.log, events).await?))
}
