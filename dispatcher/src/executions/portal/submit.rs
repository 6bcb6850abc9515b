//! A request for a task: what `POST /execute` would be sent to work on it.

use clawlink_shared::id::{AgentId, ProjectId, TaskId};
use serde_json::{Value, json};

use super::super::accept::{self, Accepted};
use super::super::request;
use super::super::store::accept::Link;
use crate::agents;
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;
use crate::{projects, tasks};

/// Longest name of a session, in characters.
const MAX_NAME: usize = request::MAX_SESSION_NAME;

/// What a client says beside the task.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The stored agent; else the task's kind of agent, else its project's, else the default.
    pub(crate) agent: Option<AgentId>,
    /// A kind of agent, where no stored one is named.
    pub(crate) agent_kind: Option<String>,
    /// What is wanted, if not what the task says.
    pub(crate) prompt: Option<String>,
    /// Echoed.
    pub(crate) payload: Option<String>,
    /// Echoed.
    pub(crate) claw_id: Option<String>,
    /// Echoed.
    pub(crate) client_session: Option<String>,
}

/// Submits an execution of a task: in its project's repository, on a branch of its own, pushed
/// at the end. 404 if this workspace has no such task or agent, 403 if the agent is deactivated.
pub(crate) async fn of_task(
    app: &App,
    principal: &Principal,
    task: TaskId,
    asked: Asked,
) -> ApiResult<Accepted> {
    let workspace = principal.workspace;
    let mut db = app.db.acquire().await?;
    let found = tasks::find(&mut db, workspace, task)
        .await?
        .ok_or_else(tasks::no_such_task)?;
    let project = projects::find(&mut db, workspace, ProjectId(found.project_id))
        .await?
        .ok_or_else(projects::no_such_project)?;
    let agent = match asked.agent {
        Some(id) => Some(
            agents::runnable(&mut db, workspace, id)
                .await?
                .kind
                .as_str()
                .to_owned(),
        ),
        None => asked
            .agent_kind
            .or(found.assigned_agent_type)
            .or(project.default_agent)
            .or_else(|| app.tuning.default_agent.clone()),
    };
    drop(db);
    let prompt = asked.prompt.unwrap_or_else(|| match &found.description {
        Some(text) if !text.is_empty() => format!("{}\n\n{text}", found.title),
        _ => found.title.clone(),
    });
    let name: String = format!("{} {}", found.key, found.title)
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect();
    let mut body = json!({
        "userRequest": prompt,
        "codingAssistantProvider": agent,
        "sessionName": name,
    });
    if let Some(url) = &project.repo_url {
        body["github"] = json!({"repoUrl": url, "branch": project.default_branch});
        body["autoCommit"] = Value::Bool(true);
    }
    if let Some(priority) = clawlink_shared::execution::Priority::from_i16(found.priority) {
        body["priority"] = json!(priority);
    }
    let request = request::parse(&body, &app.tuning)?;
    let link = Link {
        task: Some(task),
        agent: asked.agent,
        payload: asked.payload,
        claw_id: asked.claw_id,
        client_session: asked.client_session,
    };
    Box::pin(accept::accept(app, principal, request, None, true, &link)).await
}
