//! What can be asked for: kinds of agents with the workers that offer them, and skills.

use axum::extract::State;
use axum::{Extension, Json};
use clawlink_shared::agent::AgentKind;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::sessions::{self, OfSession};
use super::tasks::GENERAL_PURPOSE;
use crate::agents;
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;
use crate::http::extract::Query;

/// An agent in the words of that generation.
#[derive(Serialize, ToSchema)]
#[schema(as = RuntimeAgent)]
pub(super) struct Agent {
    agent_type: String,
    name: String,
    description: Option<String>,
    /// Whether a worker that lives offers it.
    available: bool,
    capabilities: Vec<String>,
    #[schema(value_type = Object)]
    metadata: Value,
}

/// A skill in the words of that generation.
#[derive(Serialize, ToSchema)]
#[schema(as = RuntimeSkill)]
pub(super) struct Skill {
    skill_id: String,
    name: String,
    description: Option<String>,
    required_permissions: Vec<&'static str>,
    #[schema(value_type = Object)]
    metadata: Value,
}

/// Skills that every coding agent has: id, name, description, what it needs.
const GENERAL_SKILLS: [(&str, &str, &str, &str); 3] = [
    (
        "code_generation",
        "Code generation",
        "Writes and changes code",
        "write",
    ),
    (
        "code_analysis",
        "Code analysis",
        "Reads code and says what it finds",
        "read",
    ),
    (
        "documentation",
        "Documentation",
        "Writes and changes documents",
        "write",
    ),
];

/// `GET /api/runtime/agents`.
pub(super) async fn agents(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<OfSession>,
) -> ApiResult<Json<Vec<Agent>>> {
    sessions::require(&app, &principal, query.session_id).await?;
    let offered = agents::Offered::now(&app).await;
    let alive = |kind: AgentKind| offered.of(kind).alive;
    let mut list = vec![Agent {
        agent_type: GENERAL_PURPOSE.to_owned(),
        name: "General purpose".to_owned(),
        description: Some("Whatever this installation runs where nothing is said".to_owned()),
        available: AgentKind::ALL.into_iter().any(|kind| alive(kind) > 0),
        capabilities: Vec::new(),
        metadata: json!({"workers": 0}),
    }];
    list.extend(AgentKind::ALL.into_iter().map(|kind| {
        let (name, description, _) = agents::about(kind);
        Agent {
            agent_type: kind.as_str().to_owned(),
            name: name.to_owned(),
            description: Some(description.to_owned()),
            available: alive(kind) > 0,
            capabilities: Vec::new(),
            metadata: json!({
                "workers": alive(kind),
                "versions": offered.versions(kind),
                "reason": unavailable(alive(kind)),
            }),
        }
    }));
    let mut db = app.db.acquire().await?;
    for stored in agents::active(&mut db, principal.workspace).await? {
        let kind = AgentKind::from_spelling(&stored.kind);
        list.push(Agent {
            available: kind.is_some_and(|kind| alive(kind) > 0),
            agent_type: stored.kind,
            name: stored.name,
            description: stored.description,
            capabilities: stored.capabilities,
            metadata: json!({
                "agentId": stored.id,
                "reason": match kind {
                    Some(kind) => unavailable(alive(kind)),
                    None => Some("unknown_type"),
                },
            }),
        });
    }
    Ok(Json(list))
}

/// Why a kind that so many workers offer cannot run.
fn unavailable(workers: u64) -> Option<&'static str> {
    (workers == 0).then_some("no_worker_offers_agent")
}

/// `GET /api/runtime/skills`.
pub(super) async fn skills(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<OfSession>,
) -> ApiResult<Json<Vec<Skill>>> {
    sessions::require(&app, &principal, query.session_id).await?;
    let general = GENERAL_SKILLS
        .into_iter()
        .map(|(id, name, description, needs)| Skill {
            skill_id: id.to_owned(),
            name: name.to_owned(),
            description: Some(description.to_owned()),
            required_permissions: vec![needs],
            metadata: json!({}),
        });
    let mut list: Vec<Skill> = general.collect();
    let mut db = app.db.acquire().await?;
    for stored in agents::skills_of(&mut db, principal.workspace).await? {
        list.push(Skill {
            skill_id: stored.id.to_string(),
            name: stored.name,
            description: stored.description,
            required_permissions: Vec::new(),
            metadata: json!({"agentId": stored.agent_id}),
        });
    }
    Ok(Json(list))
}
