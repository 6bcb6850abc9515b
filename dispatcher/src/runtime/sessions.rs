//! Client sessions: opened by a caller with a credential, or by anybody where the operator
//! allows it. They expire when they have been idle for [`IDLE`].

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, Uri};
use axum::{Extension, Json};
use clawlink_shared::id::WorkspaceId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::store::{self, Row};
use crate::app::App;
use crate::audit::{self, Actor, CLIENT_SESSION, Entry};
use crate::auth::principal::{KeyRole, Principal, Who};
use crate::error::{ApiError, ApiResult};
use crate::executions::timestamp;
use crate::http::extract::{self, Path, Query};
use crate::http::listen::Peer;
use crate::workspaces;
use crate::workspaces::role::{Permission, Role};

/// How long a session may be idle.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest names that clients give themselves, in characters.
const MAX_NAME: usize = 200;
/// The path at which a session begins, for which there cannot be one yet.
const OPENING: &str = "/api/runtime/sessions";

/// A session as clients see it.
#[derive(Serialize, ToSchema)]
#[schema(as = ClientSession)]
pub(super) struct Session {
    session_id: Uuid,
    user_id: Option<String>,
    created_at: String,
    last_activity: String,
    /// Such as `Permission.TASK_SUBMIT`.
    permissions: Vec<&'static str>,
}

/// What a client says about itself.
#[derive(Deserialize, Default, IntoParams, ToSchema)]
#[schema(as = NewClientSession)]
pub(super) struct NewSession {
    user_id: Option<String>,
    device_id: Option<String>,
}

/// The session that a request belongs to.
#[derive(Deserialize, IntoParams)]
pub(super) struct OfSession {
    pub(super) session_id: Option<Uuid>,
}

/// Permissions under the names of that generation, and ours that give them.
const PERMISSIONS: [(&str, Permission); 11] = [
    ("Permission.TASK_SUBMIT", Permission::ExecutionSubmit),
    ("Permission.TASK_CANCEL", Permission::ExecutionCancel),
    ("Permission.TASK_VIEW", Permission::ExecutionRead),
    ("Permission.AGENT_LIST", Permission::AgentRead),
    ("Permission.AGENT_EXECUTE", Permission::ExecutionSubmit),
    ("Permission.AGENT_CONFIGURE", Permission::AgentManage),
    ("Permission.SKILL_LIST", Permission::AgentRead),
    ("Permission.SKILL_EXECUTE", Permission::ExecutionSubmit),
    ("Permission.PROJECT_READ", Permission::ProjectRead),
    ("Permission.PROJECT_WRITE", Permission::ProjectWrite),
    ("Permission.PROJECT_DELETE", Permission::ProjectDelete),
];

impl Session {
    fn of(row: Row, role: Role) -> Self {
        let held = PERMISSIONS
            .into_iter()
            .filter(|(_, needs)| role.may(*needs));
        Self {
            session_id: row.id,
            user_id: row.user_id,
            created_at: timestamp(row.created_at),
            last_activity: timestamp(row.last_activity),
            permissions: held.map(|(name, _)| name).collect(),
        }
    }
}

/// `POST /api/runtime/sessions`.
pub(super) async fn open(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Query(query): Query<NewSession>,
    extract::Json(body): extract::Json<NewSession>,
) -> ApiResult<Json<Session>> {
    let user = body.user_id.or(query.user_id);
    let device = body.device_id.or(query.device_id);
    for (field, name) in [("user_id", &user), ("device_id", &device)] {
        extract::check_text(field, name.as_deref().unwrap_or_default(), 0..=MAX_NAME)?;
    }
    let id = match principal.who {
        Who::Client(id) => id,
        Who::Key(_) | Who::User(_) => Uuid::new_v4(),
    };
    let mut tx = app.db.begin().await?;
    let row = store::insert(
        &mut tx,
        principal.workspace,
        id,
        &principal.name(),
        user.as_deref(),
        device.as_deref(),
    )
    .await?
    .ok_or_else(|| ApiError::forbidden("this workspace is archived or suspended"))?;
    let actor = Actor::from(&principal);
    let thing = ("client_session", id.to_string());
    let entry = Entry::done(principal.workspace, &actor, "client_session.opened", thing);
    let details = json!({CLIENT_SESSION: id, "userId": user, "deviceId": device});
    audit::record(&mut tx, &entry.with(details)).await?;
    tx.commit().await?;
    Ok(Json(Session::of(row, principal.role)))
}

/// `GET /api/runtime/sessions/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<Uuid>,
) -> ApiResult<Json<Session>> {
    let row = find(&app, &principal, id).await?;
    Ok(Json(Session::of(row, principal.role)))
}

/// 404 unless the session, if one is named, is this caller's.
pub(super) async fn require(
    app: &App,
    principal: &Principal,
    session: Option<Uuid>,
) -> ApiResult<()> {
    match session {
        Some(id) => find(app, principal, id).await.map(drop),
        None => Ok(()),
    }
}

async fn find(app: &App, principal: &Principal, id: Uuid) -> ApiResult<Row> {
    let mut db = app.db.acquire().await?;
    let name = principal.name();
    store::touch(&mut db, principal.workspace, id, &name, IDLE)
        .await?
        .ok_or_else(|| {
            ApiError::not_found(
                "session_not_found",
                "there is no such session, or it was idle too long",
            )
        })
}

/// Who makes a request that has no credential: a client with a session, or one that opens
/// its session now, where the operator named a workspace and a role for such clients.
pub async fn anonymous(app: &App, request: &mut Request) -> ApiResult<Principal> {
    let refused = || {
        ApiError::unauthorized("send `Authorization: Bearer <key>`, or ask the operator for one")
    };
    let is_opening = request.method() == Method::POST && request.uri().path() == OPENING;
    let address = request.extensions().get().map(|Peer(address)| *address);
    let (workspace, role) = allowed(app).await?.ok_or_else(refused)?;
    if is_opening {
        // Each session has a limit of its own: who could open any number would have none.
        app.attempts.of_address(&app.bus, address).await?;
    }
    let session = session_of(app, request).await?;
    let principal = |id| Principal {
        workspace,
        who: Who::Client(id),
        sign_in: None,
        role: Role::Key(role),
        device: None,
        address,
    };
    match session {
        _ if is_opening => Ok(principal(Uuid::new_v4())),
        Some(id) => {
            let principal = principal(id);
            let found = find(app, &principal, id).await;
            found.map(|_| principal).map_err(|_| {
                ApiError::unauthorized("this session is unknown or was idle too long; open another")
            })
        }
        None => Err(refused()),
    }
}

/// Where clients without a credential act, and as what.
async fn allowed(app: &App) -> ApiResult<Option<(WorkspaceId, KeyRole)>> {
    let tuning = &app.tuning;
    let (Some(slug), Some(role)) = (&tuning.anonymous_workspace, tuning.anonymous_role) else {
        return Ok(None);
    };
    let mut db = app.db.acquire().await?;
    let workspace = workspaces::by_slug(&mut db, slug).await?;
    Ok(workspace.map(|workspace| (workspace, role)))
}

/// The session that a request names, in its query or else in its body, which is left as it was.
async fn session_of(app: &App, request: &mut Request) -> ApiResult<Option<Uuid>> {
    let in_query = in_query(request.uri());
    if in_query.is_some() || !matches!(*request.method(), Method::POST | Method::PATCH) {
        return Ok(in_query);
    }
    let bytes = extract::peek(app, request).await?;
    let body: Option<Value> = serde_json::from_slice(&bytes).ok();
    Ok(body.and_then(|body| body["session_id"].as_str()?.parse().ok()))
}

fn in_query(uri: &Uri) -> Option<Uuid> {
    let query = uri.query().unwrap_or_default();
    let named = |name: &&str| query.split('&').find_map(|pair| pair.strip_prefix(*name));
    let value = ["session_id=", "auth_session_id="].iter().find_map(named)?;
    value.parse().ok()
}

/// Forgets sessions that have been idle for too long.
pub async fn clean(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    store::delete_idle(&mut db, IDLE).await
}
