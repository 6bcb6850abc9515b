//! A workspace's policies, remembered for a few seconds: they are asked for at every
//! submission and change rarely.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clawlink_shared::id::{SessionId, WorkspaceId};
use time::OffsetDateTime;

use super::decide::{Decision, Policy, Resource, Subject, decide};
use super::store;
use crate::app::App;
use crate::auth::principal::Principal;
use crate::error::ApiResult;

/// How long a change may go unseen that no hint told of.
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
pub struct Cache(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    rules: HashMap<WorkspaceId, (Instant, Arc<Rules>)>,
    /// Counts what was forgotten: rules that were read before that are not remembered.
    forgotten: u64,
}

impl Cache {
    /// The rules, or how much was forgotten before the database is asked.
    fn get(&self, workspace: WorkspaceId) -> Result<Arc<Rules>, u64> {
        let memory = self.lock();
        match memory.rules.get(&workspace) {
            Some((since, rules)) if since.elapsed() < FRESH => Ok(rules.clone()),
            _ => Err(memory.forgotten),
        }
    }

    fn put(&self, workspace: WorkspaceId, (since, forgotten): (Instant, u64), rules: Arc<Rules>) {
        let mut memory = self.lock();
        if memory.forgotten != forgotten {
            return;
        }
        if memory.rules.len() >= MAX_WORKSPACES {
            memory.rules.clear();
        }
        memory.rules.insert(workspace, (since, rules));
    }

    /// Forgets one workspace, or all.
    pub(crate) fn forget(&self, workspace: Option<WorkspaceId>) {
        let mut memory = self.lock();
        memory.forgotten += 1;
        match workspace {
            Some(workspace) => drop(memory.rules.remove(&workspace)),
            None => memory.rules.clear(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rules of a workspace, at most a few seconds old.
pub(super) async fn of(app: &App, workspace: WorkspaceId) -> ApiResult<Arc<Rules>> {
    let forgotten = match app.policies.get(workspace) {
        Ok(rules) => return Ok(rules),
        Err(forgotten) => forgotten,
    };
    let since = Instant::now();
    let mut db = app.db.acquire().await?;
    let rows = store::list(&mut db, workspace, None).await?;
    let list = rows.into_iter().map(|row| row.policy).collect();
    let rules = Arc::new(Rules { list });
    app.policies
        .put(workspace, (since, forgotten), rules.clone());
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_were_read_before_a_change_are_not_remembered_after_it() {
        let cache = Cache::default();
        let (workspace, now) = (WorkspaceId(1), Instant::now());
        let rules = || Arc::new(Rules { list: Vec::new() });
        let forgotten = cache.get(workspace).expect_err("nothing known");
        cache.forget(Some(workspace));
        cache.put(workspace, (now, forgotten), rules());
        let forgotten = cache.get(workspace).expect_err("read too early");
        cache.put(workspace, (now, forgotten), rules());
        assert!(cache.get(workspace).is_ok());
        cache.forget(None);
        assert!(cache.get(workspace).is_err());
    }
}
