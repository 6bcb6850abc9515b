//! A workspace's policies, remembered for a few seconds: they are asked for at every
//! submission and change rarely.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clawlink_shared::id::{SessionId, WorkspaceId};
use time::OffsetDateTime;

use super::decide::{Decision, Policy, Resource, Subject, decide};
use super::store;
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;

/// How long another replica's change may go unseen.
const FRESH: Duration = Duration::from_secs(5);
/// Workspaces that are remembered; with more, all are forgotten.
const MAX_WORKSPACES: usize = 4096;

/// What holds in a workspace beside its roles.
#[derive(Debug)]
pub struct Rules {
    /// Policies in order of their numbers.
    pub(super) list: Vec<Policy>,
}

impl Rules {
    /// Whether no policy hides the session from the caller.
    pub fn shows(&self, principal: &Principal, session: SessionId) -> bool {
        self.allow(principal, &Resource::Session(session))
    }

    /// Whether no policy denies the resource to the caller. Not recorded.
    pub fn allow(&self, principal: &Principal, resource: &Resource<'_>) -> bool {
        if self.list.is_empty() {
            return true;
        }
        let subject = Subject::from(principal);
        let now = OffsetDateTime::now_utc();
        decide(&self.list, &subject, resource, now) == Decision::Allowed
    }
}

/// What this replica remembers.
#[derive(Debug, Default)]
pub struct Cache(Mutex<HashMap<WorkspaceId, (Instant, Arc<Rules>)>>);

impl Cache {
    fn get(&self, workspace: WorkspaceId) -> Option<Arc<Rules>> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, rules) = map.get(&workspace)?;
        (since.elapsed() < FRESH).then(|| rules.clone())
    }

    fn put(&self, workspace: WorkspaceId, since: Instant, rules: Arc<Rules>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_WORKSPACES {
            map.clear();
        }
        map.insert(workspace, (since, rules));
    }

    /// Forgets one workspace, or all.
    pub(crate) fn forget(&self, workspace: Option<WorkspaceId>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match workspace {
            Some(workspace) => drop(map.remove(&workspace)),
            None => map.clear(),
        }
    }
}

/// The rules of a workspace, at most a few seconds old.
pub(super) async fn of(app: &App, workspace: WorkspaceId) -> ApiResult<Arc<Rules>> {
    if let Some(rules) = app.policies.get(workspace) {
        return Ok(rules);
    }
    let since = Instant::now();
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, workspace, None).await?;
    let list = rows.into_iter().map(|row| row.policy).collect();
    let rules = Arc::new(Rules { list });
    app.policies.put(workspace, since, rules.clone());
    Ok(rules)
}
