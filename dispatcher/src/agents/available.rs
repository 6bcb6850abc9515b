//! Which kinds can run here: what live workers offer, with versions, and what is missing.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::{Extension, Json};
use clawlink_shared::agent::AgentKind;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;
use crate::executions::presence::{self, Offer};
use crate::secrets::{self, Asker, Place, Wanted};

/// A kind that can be asked for. Older clients read `agent_type`, newer ones `type`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AvailableAgent)]
pub(super) struct Available {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The same as `type`.
    #[serde(rename = "agent_type")]
    agent_type: &'static str,
    name: &'static str,
    description: &'static str,
    /// Whether a worker that lives offers it.
    available: bool,
    /// Whether a request that names no credential would run: `reason` says why not.
    ready: bool,
    /// `no_worker_offers_agent`, `no_credential`, or null.
    reason: Option<&'static str>,
    /// Workers that offer it.
    workers: u64,
    /// Of them waiting for work.
    idle_workers: u64,
    /// What these workers have, in the programs' own words.
    versions: BTreeSet<String>,
    /// Versions that clawlink was tested with.
    tested_versions: &'static [&'static str],
    /// Whether images may come with its prompt.
    takes_images: bool,
    credential: Credential,
}

/// What a kind needs to be paid with.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AvailableAgentCredential)]
struct Credential {
    /// Whether it cannot run without one.
    required: bool,
    /// Whether the workspace has one of `secrets` that the caller may use.
    stored: bool,
    /// Names of secrets that are looked for, the best first.
    secrets: &'static [&'static str],
}

/// What workers offer; without Redis nobody knows.
#[derive(Debug, Default)]
pub struct Offered {
    offers: HashMap<AgentKind, Offer>,
    versions: std::collections::BTreeMap<AgentKind, BTreeSet<String>>,
}

impl Offered {
    /// Asks what is offered now.
    pub async fn now(app: &App) -> Self {
        let (offers, versions) =
            tokio::join!(presence::offers(&app.bus), presence::versions(&app.bus));
        Self {
            offers: offers.unwrap_or_default(),
            versions: versions.unwrap_or_default(),
        }
    }

    /// How many workers offer a kind.
    pub fn of(&self, kind: AgentKind) -> Offer {
        self.offers.get(&kind).copied().unwrap_or_default()
    }

    /// Which versions of it they have.
    pub fn versions(&self, kind: AgentKind) -> BTreeSet<String> {
        // A worker may have gone between the two questions.
        let versions = self.versions.get(&kind).cloned().unwrap_or_default();
        if self.of(kind).alive > 0 {
            versions
        } else {
            BTreeSet::new()
        }
    }
}

/// A kind's name and what it is, for people, and the versions that it was tested with.
pub fn about(kind: AgentKind) -> (&'static str, &'static str, &'static [&'static str]) {
    match kind {
        AgentKind::Claude => (
            "Claude Code",
            "Anthropic's coding agent",
            &["2.1.328 (Claude Code)"],
        ),
        AgentKind::Codex => ("Codex", "OpenAI's coding agent", &["codex-cli 0.169.0"]),
        AgentKind::Opencode => ("opencode", "A coding agent for many models", &["1.18.33"]),
        AgentKind::Gemini => ("Gemini CLI", "Google's coding agent", &["0.61.0"]),
        AgentKind::Auggie => ("Auggie", "Augment's coding agent", &["0.36.0"]),
        AgentKind::Openhands => ("OpenHands", "A coding agent for many models", &["1.16.0"]),
        AgentKind::Goose => ("goose", "A coding agent for many models", &[]),
        AgentKind::Ollama => ("Ollama", "A model on an Ollama server, in opencode", &[]),
        AgentKind::Openai => ("OpenAI", "A model behind OpenAI's API, in opencode", &[]),
        AgentKind::Openrouter => (
            "OpenRouter",
            "A model that OpenRouter routes to, in opencode",
            &[],
        ),
        AgentKind::Acp => (
            "ACP",
            "A command of the workspace's own that speaks the Agent Client Protocol",
            &[],
        ),
        AgentKind::Http => (
            "HTTP",
            "An address that takes the request and streams events",
            &[],
        ),
        AgentKind::Shell => ("Shell", "The request as a bash script", &[]),
    }
}

/// `GET /api/agents/available`.
pub(super) async fn available(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> ApiResult<Json<Vec<Available>>> {
    let offered = Offered::now(&app).await;
    let mut list = Vec::new();
    for kind in AgentKind::ALL {
        let stored = has_credential(&app, &principal, kind).await?;
        list.push(one(kind, &offered, stored));
    }
    Ok(Json(list))
}

fn one(kind: AgentKind, offered: &Offered, stored: bool) -> Available {
    let offer = offered.of(kind);
    let reason = if offer.alive == 0 {
        Some("no_worker_offers_agent")
    } else if kind.needs_credential() && !stored {
        Some("no_credential")
    } else {
        None
    };
    let (name, description, tested_versions) = about(kind);
    Available {
        kind: kind.as_str(),
        agent_type: kind.as_str(),
        name,
        description,
        available: offer.alive > 0,
        ready: reason.is_none(),
        reason,
        workers: offer.alive,
        idle_workers: offer.idle,
        versions: offered.versions(kind),
        tested_versions,
        takes_images: kind.takes_images(),
        credential: Credential {
            required: kind.needs_credential(),
            stored,
            secrets: secrets::usual_for_agent(kind),
        },
    }
}

/// Whether the workspace has a secret for this kind that the caller may use.
async fn has_credential(app: &App, principal: &Principal, kind: AgentKind) -> ApiResult<bool> {
    let names = secrets::usual_for_agent(kind);
    if names.is_empty() {
        return Ok(false);
    }
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let wanted = Wanted {
        named: Vec::new(),
        usual: vec![(Place::Agent, names)],
    };
    let asker = Asker::new(principal, kind, None);
    let mut db = app.db.acquire().await?;
    let references = secrets::choose(&mut db, principal, asker, wanted).await?;
    Ok(references.is_some_and(|references| references.have_agent()))
}
