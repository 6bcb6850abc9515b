//! What a credential gives right now: read from the database, remembered for a moment.
//!
//! A remembered right is at most [`REMEMBERED`] old. Whoever changes a role, a membership, a
//! key, a person or a workspace's status calls [`forget`] after the commit: here it takes
//! effect at once, at other replicas as soon as Redis tells them, without Redis when the
//! memory ends. What grants nothing is never remembered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clawlink_shared::id::{ApiKeyId, UserId, WorkspaceId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use super::principal::{Principal, Who};
use super::store::users::{Rights, Status};
use super::store::{keys, users};
use crate::app::App;
use crate::bus::RightsOf;

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Answers remembered at one time; when it is full, all are forgotten.
const MAX_REMEMBERED: usize = 20_000;
/// Changes of rights that a stream may be behind; beyond it, it asks anew.
const BACKLOG: usize = 256;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    SignIn(UserId, Uuid, Option<WorkspaceId>),
    KeyHash([u8; 32]),
    Key(ApiKeyId),
}

#[derive(Debug, Clone)]
enum Answer {
    SignIn(Rights),
    Key(Principal, Status),
}

/// Answers of the last seconds.
#[derive(Debug)]
pub struct Memory {
    remembered: Mutex<Remembered>,
    /// Told of what was forgotten, once it is.
    told: broadcast::Sender<RightsOf>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            remembered: Mutex::default(),
            told: broadcast::Sender::new(BACKLOG),
        }
    }
}

#[derive(Debug, Default)]
struct Remembered {
    answers: HashMap<Question, (Instant, Answer)>,
    /// Counts what was forgotten: an answer that was read before that is not remembered.
    forgotten: u64,
}

impl Memory {
    /// The answer, or how much was forgotten before the database is asked.
    fn recall(&self, question: &Question) -> Result<Answer, u64> {
        let memory = self.lock();
        match memory.answers.get(question) {
            Some((at, answer)) if at.elapsed() < REMEMBERED => Ok(answer.clone()),
            _ => Err(memory.forgotten),
        }
    }

    fn remember(&self, question: Question, answer: Answer, forgotten: u64) {
        let mut memory = self.lock();
        if memory.forgotten != forgotten {
            return;
        }
        if memory.answers.len() >= MAX_REMEMBERED {
            memory.answers.clear();
        }
        memory.answers.insert(question, (Instant::now(), answer));
    }

    fn forget(&self, of: RightsOf) {
        let mut memory = self.lock();
        memory.forgotten += 1;
        memory
            .answers
            .retain(|question, (_, answer)| !concerns(of, question, answer));
        drop(memory);
        // Nobody may be listening.
        let _ = self.told.send(of);
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        let memory = self.remembered.lock();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what is forgotten here: who asks then gets a new answer.
    pub(super) fn follow(&self) -> broadcast::Receiver<RightsOf> {
        self.told.subscribe()
    }
}

/// Whether an answer is about them.
fn concerns(of: RightsOf, question: &Question, answer: &Answer) -> bool {
    match (of, question, answer) {
        (RightsOf::Everyone, ..) => true,
        (RightsOf::User(user), Question::SignIn(other, ..), _) => user == *other,
        (RightsOf::Workspace(workspace), Question::SignIn(_, _, other), _) => {
            Some(workspace) == *other
        }
        (RightsOf::Workspace(workspace), _, Answer::Key(principal, _)) => {
            workspace == principal.workspace
        }
        (RightsOf::Key(key), _, Answer::Key(principal, _)) => principal.who == Who::Key(key),
        _ => false,
    }
}

/// Makes changed rights take effect. To be called after the commit.
pub fn forget(app: &App, of: RightsOf) {
    forget_here(app, of);
    app.bus.publish_rights(of);
}

/// Policies narrow rights and are forgotten with those of their workspace: before these, because
/// then streams ask.
fn forget_here(app: &App, of: RightsOf) {
    match of {
        RightsOf::Workspace(workspace) => app.policies.forget(Some(workspace)),
        RightsOf::Everyone => app.policies.forget(None),
        RightsOf::User(_) | RightsOf::Key(_) => {}
    }
    app.rights.forget(of);
}

/// What a sign-in gives, in a workspace if one is named; `None` if nothing.
pub(super) async fn of_sign_in(
    app: &App,
    user: UserId,
    sign_in: Uuid,
    workspace: Option<WorkspaceId>,
) -> anyhow::Result<Option<Rights>> {
    let question = Question::SignIn(user, sign_in, workspace);
    let forgotten = match app.rights.recall(&question) {
        Ok(Answer::SignIn(rights)) => return Ok(Some(rights)),
        Ok(Answer::Key(..)) => unreachable!("a sign-in is not a key"),
        Err(forgotten) => forgotten,
    };
    let mut db = app.db.acquire().await?;
    let rights = users::rights(&mut db, user, sign_in, workspace).await?;
    // Who becomes a member must not wait until a refusal is forgotten.
    if let Some(rights) = rights.filter(|it| workspace.is_none() || it.member.is_some()) {
        let answer = Answer::SignIn(rights);
        app.rights.remember(question, answer, forgotten);
    }
    Ok(rights)
}

/// The holder of the key with this hash.
pub(super) async fn of_key_hash(
    app: &App,
    hash: [u8; 32],
) -> anyhow::Result<Option<(Principal, Status)>> {
    of_key(app, Question::KeyHash(hash)).await
}

/// The holder of the key with this id, for tokens that were made from it.
pub(super) async fn of_key_id(
    app: &App,
    id: ApiKeyId,
) -> anyhow::Result<Option<(Principal, Status)>> {
    of_key(app, Question::Key(id)).await
}

async fn of_key(app: &App, question: Question) -> anyhow::Result<Option<(Principal, Status)>> {
    let forgotten = match app.rights.recall(&question) {
        Ok(Answer::Key(principal, status)) => return Ok(Some((principal, status))),
        Ok(Answer::SignIn(_)) => unreachable!("a key is not a sign-in"),
        Err(forgotten) => forgotten,
    };
    let mut db = app.db.acquire().await?;
    let found = match question {
        Question::KeyHash(hash) => keys::principal_by_hash(&mut db, &hash).await?,
        Question::Key(id) => keys::principal(&mut db, id).await?,
        Question::SignIn(..) => None,
    };
    if let Some((principal, status)) = &found {
        let answer = Answer::Key(principal.clone(), *status);
        app.rights.remember(question, answer, forgotten);
    }
    Ok(found)
}

/// Forgets what other replicas say has changed, until draining.
pub(super) async fn listen(app: App) {
    let mut hints = app.bus.follow_rights();
    loop {
        let hint = tokio::select! {
            hint = hints.recv() => hint,
            () = app.shutdown.soft().cancelled() => return,
        };
        match hint {
            Ok(of) => forget_here(&app, of),
            Err(RecvError::Lagged(_)) => forget_here(&app, RightsOf::Everyone),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer::SignIn(Rights {
            is_platform_admin: false,
            member: None,
        })
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let memory = Memory::default();
        let user = UserId(Uuid::new_v4());
        let question = Question::SignIn(user, Uuid::new_v4(), None);
        let forgotten = memory.recall(&question).expect_err("nothing known");
        memory.forget(RightsOf::User(user));
        memory.remember(question, answer(), forgotten);
        let forgotten = memory.recall(&question).expect_err("read too early");
        memory.remember(question, answer(), forgotten);
        assert!(memory.recall(&question).is_ok());
        memory.forget(RightsOf::Workspace(WorkspaceId(1)));
        assert!(memory.recall(&question).is_ok());
        memory.forget(RightsOf::User(user));
        assert!(memory.recall(&question).is_err());
    }

    #[test]
    fn it_is_bounded() {
        let memory = Memory::default();
        let user = UserId(Uuid::new_v4());
        for _ in 0..=MAX_REMEMBERED {
            let question = Question::SignIn(user, Uuid::new_v4(), None);
            memory.remember(question, answer(), 0);
        }
        let held = memory
            .remembered
            .lock()
            .expect("not poisoned")
            .answers
            .len();
        assert!(held <= MAX_REMEMBERED);
    }
}
