//! A pull request for what a task's last execution pushed, when somebody asks for it later.

use clawlink_shared::control::PullRequest;
use clawlink_shared::id::{ProjectId, TaskId};
use serde_json::json;

use super::super::store::portal::{self, Filter};
use crate::app::App;
use crate::audit::{self, Actor, Entry};
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::feed;
use crate::github::{self, Base, NewPull};
use crate::policies::{self, Resource};
use crate::projects;
use crate::secrets;
use crate::tasks::{self, Step};

/// Executions of a task that are looked through for one that pushed.
const LOOKED_AT: i64 = 50;

/// What the pull request is to say, where it is not what the task says.
pub(super) struct Asked {
    pub(super) title: Option<String>,
    pub(super) body: Option<String>,
    pub(super) base: Option<String>,
    pub(super) draft: bool,
}

/// Opens it, or finds the open one; answers it with its branch. The task goes to its review.
/// 409 `nothing_pushed` if no execution of the task pushed, 409 `no_repository` or `no_git_token`
/// if the workspace lacks one, 409 `pull_request_refused` with GitHub's reason.
pub(super) async fn open(
    app: &App,
    principal: &Principal,
    id: TaskId,
    asked: Asked,
) -> ApiResult<(PullRequest, String)> {
    let workspace = principal.workspace;
    let mut db = app.db.acquire().await?;
    let task = tasks::find(&mut db, workspace, id)
        .await?
        .ok_or_else(tasks::no_such_task)?;
    let project = projects::find(&mut db, workspace, ProjectId(task.project_id))
        .await?
        .ok_or_else(projects::no_such_project)?;
    let filter = Filter {
        task: Some(id),
        limit: LOOKED_AT,
        ..Filter::default()
    };
    let executions = portal::list(&mut db, workspace, &filter).await?;
    drop(db);
    let rules = policies::rules(app, principal).await?;
    let shown = executions.into_iter();
    let mut shown = shown.filter(|one| rules.shows(principal, one.session));
    let pushed = shown.find_map(|one| one.branch);
    let branch = pushed.ok_or_else(|| {
        ApiError::conflict("nothing_pushed", "no execution of this task has pushed yet")
    })?;
    let url = project.repo_url.ok_or_else(|| {
        ApiError::conflict("no_repository", "this task's project has no repository")
    })?;
    policies::require(app, principal, &Resource::Repository(&url)).await?;
    let token = secrets::git_token(app, principal, &url).await?;
    let token = token.ok_or_else(|| {
        ApiError::conflict(
            "no_git_token",
            "store a token for the git host first: PUT /api/secrets/GITHUB_TOKEN",
        )
    })?;
    let title = format!("{} {}", task.key, task.title);
    let new = NewPull {
        title: asked.title.as_deref().unwrap_or(&title),
        body: asked
            .body
            .as_deref()
            .or(task.description.as_deref())
            .unwrap_or_default(),
        head: &branch,
        base: match (&asked.base, &project.default_branch) {
            (Some(base), _) => Base::Exactly(base),
            (None, Some(base)) => Base::Preferably(base),
            (None, None) => Base::Default,
        },
        draft: asked.draft,
    };
    let pull = github::open_pull(app, &token, &url, &new)
        .await
        .map_err(|error| ApiError::conflict("pull_request_refused", error.to_string()))?;
    record(app, principal, id, &pull).await?;
    Ok((pull, branch))
}

async fn record(app: &App, principal: &Principal, id: TaskId, pull: &PullRequest) -> ApiResult<()> {
    let workspace = principal.workspace;
    let actor = Actor::from(principal);
    let mut tx = app.db.begin().await?;
    let resource = ("pull_request", pull.url.clone());
    let entry = Entry::done(workspace, &actor, "pull_request.opened", resource);
    audit::record(&mut tx, &entry.with(json!({"task": id}))).await?;
    let step = Step::Pushed {
        pr_url: Some(&pull.url),
        pr_number: i32::try_from(pull.number).ok(),
    };
    tasks::follow(&mut tx, workspace, &actor, id, step).await?;
    tx.commit().await?;
    feed::poke(app, workspace);
    Ok(())
}
