//! The stored agent of a request: the one that the client names, or for a session that runs a
//! command or an address of the workspace's own the one of its last turn. It is looked up anew
//! for every turn, so that a changed or deactivated agent counts at once.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::problem::FieldFault;

use super::plan::Inherited;
use super::request::Request;
use super::store::accept::Link;
use crate::agents::{self, Runnable};
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::secrets::Place;

/// Completes a request from its stored agent: kind, definition, and the agent's own credential
/// where the request brings none; answers the agent if it is what runs. 404 if this workspace has
/// no such agent, 403 if it is deactivated, 400 if it cannot be run.
pub(super) async fn resolve(
    app: &App,
    principal: &Principal,
    request: &mut Request,
    session: Option<&Inherited>,
    link: &Link,
) -> ApiResult<Option<Runnable>> {
    let is_defined =
        |session: &&Inherited| matches!(session.agent, AgentKind::Acp | AgentKind::Http);
    let kept = session.filter(is_defined);
    let kept = kept.and_then(|session| session.stored_agent);
    let Some(id) = link.agent.or(kept) else {
        return Ok(None);
    };
    let mut db = app.db.acquire().await?;
    let stored = agents::runnable(&mut db, principal.workspace, id).await;
    drop(db);
    if link.agent.is_none() && request.agent == Some(AgentKind::Shell) {
        // A script may run between the turns of any conversation, whatever became of its agent;
        // where that keeps its state is needed all the same.
        request.definition = stored.ok().and_then(|stored| stored.definition);
        return Ok(None);
    }
    let stored = stored?;
    request.definition.clone_from(&stored.definition);
    if request.agent.is_some_and(|agent| agent != stored.kind) {
        return Err(ApiError::invalid_fields(vec![FieldFault {
            field: "codingAssistantProvider".into(),
            message: format!("differs from the stored agent's type, {}", stored.kind),
        }]));
    }
    request.agent = Some(stored.kind);
    let named = &request.named_secrets;
    let is_named = named
        .iter()
        .any(|reference| reference.place == Place::Agent);
    if request.credentials.agent.is_none() && !is_named {
        request.credentials.agent = stored.key(app)?;
    }
    Ok(Some(stored))
}
