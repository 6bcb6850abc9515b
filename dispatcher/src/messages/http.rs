//! The client API of messages.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::approval::{MAX_MESSAGE_BYTES, MAX_MESSAGES};
use clawlink_shared::execution::State as ExecutionState;
use clawlink_shared::id::{ExecutionId, SessionId};
use clawlink_shared::problem::FieldFault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{is_listening, store};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::executions::next_turn::{self, Turn};
use crate::executions::{self, Record, live};
use crate::http::extract::{self, Path};
use crate::idempotency::{self, Keyed, Once};
use crate::policies::{self, Submission};

/// What a client is told to wait when too much waits at an agent, in seconds.
const RETRY_AFTER: u64 = 5;

/// What is said.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MessageBody {
    /// 1 to 32768 bytes.
    #[schema(required)]
    text: Option<String>,
    /// For a next turn: as in `POST /execute`.
    #[schema(value_type = Option<Object>)]
    coding_assistant_authentication: Option<Value>,
    /// For a next turn: `{accessToken}`.
    #[schema(value_type = Option<Object>)]
    github: Option<Value>,
}

/// Where it went.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SentMessage)]
pub(super) struct Sent {
    /// `running`: the agent gets it; `next_turn`: it is an execution of its own.
    delivered: &'static str,
    /// Of a message that the running agent gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<Uuid>,
    /// The running execution, or the new one.
    execution_id: ExecutionId,
    execution_uuid: Uuid,
    session_id: SessionId,
}

/// `POST /executions/{id}/messages`.
pub(super) async fn send(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    once: Once,
    headers: HeaderMap,
    extract::Json(body): extract::Json<Value>,
) -> ApiResult<(StatusCode, Json<Sent>)> {
    let message: MessageBody = MessageBody::deserialize(&body)
        .map_err(|error| ApiError::invalid(format!("the body is not as expected: {error}")))?;
    let text = message.text()?;
    let record = executions::visible(&app, &principal, &id).await?;
    let submission = Submission {
        agent: &[record.agent.as_str()],
        repository: None,
    };
    policies::admit(&app, &principal, &submission).await?;
    let as_turn = next_turn::once(&app, &headers, &body)?;
    if let Some(turn) = next_turn::earlier(&app, &principal, as_turn.as_ref()).await? {
        return Ok(accepted(Sent::next(turn)));
    }
    let once = once.of(&app, &body);
    if let Some(id) = to_running(&app, &principal, &record, once, text).await? {
        let sent = Sent {
            delivered: "running",
            message_id: Some(id),
            execution_id: record.id,
            execution_uuid: record.uuid,
            session_id: record.session,
        };
        return Ok(accepted(sent));
    }
    let mut request = json!({"userRequest": text, "websiteSessionId": record.session});
    for (name, value) in [
        (
            "codingAssistantAuthentication",
            &message.coding_assistant_authentication,
        ),
        ("github", &message.github),
    ] {
        if let Some(value) = value {
            request[name] = value.clone();
        }
    }
    let turn = Box::pin(next_turn::submit(&app, &principal, &request, as_turn)).await?;
    Ok(accepted(Sent::next(turn)))
}

fn accepted(sent: Sent) -> (StatusCode, Json<Sent>) {
    (StatusCode::ACCEPTED, Json(sent))
}

impl Sent {
    fn next(turn: Turn) -> Self {
        Self {
            delivered: "next_turn",
            message_id: None,
            execution_id: turn.id,
            execution_uuid: turn.uuid,
            session_id: turn.session,
        }
    }
}

impl MessageBody {
    fn text(&self) -> ApiResult<&str> {
        let text = self.text.as_deref().unwrap_or_default();
        if !text.trim().is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\0') {
            return Ok(text);
        }
        Err(ApiError::invalid_fields(vec![FieldFault {
            field: "text".to_owned(),
            message: format!("must be text of 1 to {MAX_MESSAGE_BYTES} bytes without NUL"),
        }]))
    }
}

/// Puts a message before the execution's agent, if that runs and listens; its id.
async fn to_running(
    app: &App,
    principal: &Principal,
    record: &Record,
    once: Option<Keyed>,
    text: &str,
) -> ApiResult<Option<Uuid>> {
    let workspace = principal.workspace;
    let mut tx = app.db.begin().await?;
    if let Some(id) = idempotency::earlier(&mut tx, principal, once.as_ref()).await? {
        // Keys of other creations have other bodies.
        return Ok(id.parse().ok());
    }
    let held = live::lock(&mut tx, workspace, record.id).await?;
    let is_taking = |held: &live::Locked| {
        matches!(
            held.state,
            ExecutionState::Running | ExecutionState::Waiting
        ) && !held.is_external
            && held.cancel.is_none()
            && AgentKind::from_spelling(&record.agent).is_some_and(is_listening)
    };
    let Some(mut held) = held.filter(is_taking) else {
        return Ok(None);
    };
    if store::count_open(&mut tx, workspace, record.id).await? >= MAX_MESSAGES as i64 {
        let detail = format!("{MAX_MESSAGES} messages wait for this agent already");
        return Err(ApiError::busy(detail, RETRY_AFTER));
    }
    let id = Uuid::new_v4();
    let number = live::number_order(&mut tx, &mut held).await?;
    let name = principal.name();
    store::insert(&mut tx, workspace, record.id, (id, text), &name, number).await?;
    idempotency::remember(&mut tx, principal, once, "message", &id.to_string()).await?;
    let actor = Actor::from(principal);
    let thing = ("execution", record.id.to_string());
    let entry = Entry::done(workspace, &actor, "message.sent", thing);
    audit::record(&mut tx, &entry.with(json!({"messageId": id}))).await?;
    tx.commit().await?;
    app.bus.publish_control(record.id);
    Ok(Some(id))
}
