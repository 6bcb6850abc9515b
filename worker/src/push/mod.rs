//! The two git phases of an execution, told as events: obtaining the repository before the
//! agent runs, and delivering its work afterwards.
//!
//! A push is never begun without a freshly confirmed lease, and once begun it is finished.

mod told;

use std::path::PathBuf;

use clawlink_shared::control::{CommitAuthor, Failure};
use clawlink_shared::event::EventType;
use clawlink_shared::execution::{ErrorCode, Repository};
use clawlink_shared::id::SessionId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::told::{BranchCreated, Data, PullProgress, Stage, Stages, reporter};
use crate::events::EventSink;
use crate::redact::Redactor;
use crate::workspace::git::{
    self, CatchUpRequest, CloneRequest, CommitOutcome, CommitRequest, GitAccess, PushRequest,
    Pushed, SESSION_TRAILER, Submodules, SubmodulesRequest,
};

/// The longest first line of a commit message, in characters.
const MAX_SUBJECT: usize = 72;

/// What to obtain.
#[derive(Debug, Clone)]
pub struct Obtain {
    /// From the stored request.
    pub repository: Repository,
    /// The working tree to make.
    pub work: PathBuf,
    /// The branch to create, or to go on with if the host has it; absent if nothing will be committed.
    pub working_branch: Option<String>,
    /// Bound of the pack and of the working tree.
    pub max_bytes: u64,
    /// Bound of the files in the working tree.
    pub max_files: u64,
}

/// Clones, and creates the working branch unless the git host has it. Emits `message`,
/// `github_pull_progress` and, for a new branch, `branch_created`.
pub async fn obtain_repository(
    access: GitAccess,
    obtain: Obtain,
    events: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let url = obtain.repository.url.clone();
    events.message(format!("Pulling repository: {url}")).await;
    let (sink, cancel) = (events.clone(), cancel.clone());
    let (cloned, obtain) = blocking(move || {
        let request = CloneRequest {
            repository: &obtain.repository,
            working_branch: obtain.working_branch.as_deref(),
            into: &obtain.work,
            max_bytes: obtain.max_bytes,
            max_files: obtain.max_files,
        };
        let cloned = git::clone(&access, request, &cancel, &mut reporter(&sink))?;
        if let Some(branch) = &obtain.working_branch {
            git::start_branch(&obtain.work, branch)?;
        }
        Ok((cloned, obtain))
    })
    .await?;
    for note in &cloned.notes {
        events.message(note.as_str()).await;
    }
    let done = PullProgress {
        message: Some(format!("Repository is ready on branch {}", cloned.branch)),
        target_path: Some(obtain.work),
        ..PullProgress::of("completed")
    };
    events
        .emit(EventType::GithubPullProgress, &Data { data: done })
        .await;
    let is_new = |branch: &String| cloned.commit.is_none() || *branch != cloned.branch;
    if let Some(branch) = obtain.working_branch.filter(is_new) {
        let created = BranchCreated {
            message: format!("Created branch {branch} from {}", cloned.branch),
            branch_name: branch,
            base_branch: cloned.branch,
        };
        events.emit(EventType::BranchCreated, &created).await;
    }
    Ok(())
}

/// Goes on from what a turn of this session pushed before its worker was lost; emits a `message`
/// if there is something. `bounds` are the bytes and files that the session may hold. A failure
/// leaves the session as it is.
pub async fn catch_up(
    access: GitAccess,
    deliver: Deliver,
    bounds: (u64, u64),
    events: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), Failure> {
    let cancel = cancel.clone();
    let count = blocking(move || {
        let request = CatchUpRequest {
            work: &deliver.work,
            tmp: &deliver.tmp,
            branch: &deliver.branch,
            session: deliver.session,
            redactor: &deliver.redactor,
            max_bytes: bounds.0,
            max_files: bounds.1,
        };
        git::catch_up(&access, request, &cancel)
    })
    .await?;
    if count > 0 {
        let commits = if count == 1 { "commit" } else { "commits" };
        let text = format!(
            "The branch has {count} {commits} of this session from a turn whose worker was lost; \
             going on from there"
        );
        events.message(text).await;
    }
    Ok(())
}

/// What to deliver.
#[derive(Debug, Clone)]
pub struct Deliver {
    /// The working tree.
    pub work: PathBuf,
    /// A directory outside of the agent's reach.
    pub tmp: PathBuf,
    /// The session's branch.
    pub branch: String,
    /// The branch that the session began from, if the request names one.
    pub base: Option<String>,
    /// What was asked; its first line becomes the commit's subject.
    pub prompt: String,
    /// Author and committer.
    pub author: CommitAuthor,
    /// The execution's UUID, for a trailer.
    pub execution: Uuid,
    /// The session, for a trailer.
    pub session: SessionId,
    /// Knows the secrets that must not leave with a commit.
    pub redactor: Redactor,
}

/// What became of the work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The branch, if it has a commit of this session.
    pub branch: Option<String>,
    /// Its tip, 40 hex digits.
    pub commit_hash: Option<String>,
    /// Whether the git host has that tip.
    pub pushed: bool,
    /// Why not, always `push_failed` or what `confirm_lease` answered.
    pub failure: Option<Failure>,
}

/// Commits what is left and pushes what the remote lacks, also from earlier turns. Emits
/// `commit_progress` and `message`. `confirm_lease` is asked directly before each push: of changed
/// submodules, and of the branch.
pub async fn deliver(
    access: GitAccess,
    deliver: Deliver,
    events: &EventSink,
    cancel: &CancellationToken,
    confirm_lease: impl AsyncFn() -> Result<(), Failure>,
) -> Delivered {
    let stages = Stages {
        events,
        branch: &deliver.branch,
    };
    let mut delivered = Delivered::default();
    let outcome = deliver_in_stages(
        &access,
        &deliver,
        &stages,
        cancel,
        confirm_lease,
        &mut delivered,
    );
    if let Err(failure) = outcome.await {
        let stage = Stage {
            error: Some(&failure.message),
            commit_hash: delivered.commit_hash.as_deref(),
            ..stages.stage(
                "push_failed",
                "The work could not be pushed; it stays in the session",
            )
        };
        stages.emit(stage).await;
        delivered.failure = Some(failure);
    }
    stages.say("completed", "Done with commit and push").await;
    delivered
}

async fn deliver_in_stages(
    access: &GitAccess,
    deliver: &Deliver,
    stages: &Stages<'_>,
    cancel: &CancellationToken,
    confirm_lease: impl AsyncFn() -> Result<(), Failure>,
    delivered: &mut Delivered,
) -> Result<(), Failure> {
    stages.say("analyzing", "Looking for changes").await;
    let prompt = deliver.redactor.redact_text(&deliver.prompt);
    let message = commit_message(&prompt, deliver.execution, deliver.session);
    let mut submodules = Submodules::default();
    if git::may_have_submodules(&deliver.work) {
        confirm_lease().await?;
        submodules = push_submodules(access, deliver, &message, cancel).await?;
    }
    for note in &submodules.notes {
        stages.events.message(note.as_str()).await;
    }
    let (begin, begun) = oneshot::channel();
    let commit = commit(
        access.clone(),
        deliver.clone(),
        submodules,
        message.clone(),
        cancel.clone(),
        begin,
    );
    // Nothing begins when there is nothing to commit, or when finding out fails.
    let tell = async {
        if begun.await.is_ok() {
            tell_of_commit(stages).await;
        }
    };
    let (outcome, ()) = tokio::join!(commit, tell);
    let outcome = outcome?;
    for note in &outcome.notes {
        stages.events.message(note.as_str()).await;
    }
    let Some(tip) = outcome.tip.filter(|_| outcome.unpushed) else {
        stages
            .say("nothing_to_commit", "There is nothing to commit")
            .await;
        return Ok(());
    };
    delivered.branch = Some(deliver.branch.clone());
    delivered.commit_hash = Some(tip.clone());
    let committed = Stage {
        commit_message: outcome.committed.then_some(message.as_str()),
        commit_hash: Some(&tip),
        ..stages.stage(
            "committed",
            match outcome.committed {
                true => "Committed the changes",
                false => "The branch has commits that are not pushed yet",
            },
        )
    };
    stages.emit(committed).await;
    confirm_lease().await?;
    stages.say("pushing", "Pushing the branch").await;
    push(access.clone(), deliver.clone(), cancel.clone()).await?;
    delivered.pushed = true;
    let pushed = Stage {
        commit_hash: Some(&tip),
        ..stages.stage("pushed", "Pushed the branch")
    };
    stages.emit(pushed).await;
    Ok(())
}

async fn tell_of_commit(stages: &Stages<'_>) {
    stages
        .say("creating_branch", "Using the session's branch")
        .await;
    stages
        .say("generating_message", "Writing the commit message")
        .await;
    stages.say("committing", "Committing the changes").await;
}

async fn push_submodules(
    access: &GitAccess,
    deliver: &Deliver,
    message: &str,
    cancel: &CancellationToken,
) -> Result<Submodules, Failure> {
    let (access, deliver, cancel) = (access.clone(), deliver.clone(), cancel.clone());
    let message = message.to_owned();
    blocking(move || {
        let request = SubmodulesRequest {
            work: &deliver.work,
            tmp: &deliver.tmp,
            branch: &deliver.branch,
            base: deliver.base.as_deref(),
            message: &message,
            author: &deliver.author,
            redactor: &deliver.redactor,
        };
        git::deliver_submodules(&access, request, &cancel)
    })
    .await
}

async fn commit(
    access: GitAccess,
    deliver: Deliver,
    submodules: Submodules,
    message: String,
    cancel: CancellationToken,
    begin: oneshot::Sender<()>,
) -> Result<CommitOutcome, Failure> {
    blocking(move || {
        let commit = CommitRequest {
            work: &deliver.work,
            tmp: &deliver.tmp,
            branch: &deliver.branch,
            message: &message,
            author: &deliver.author,
            redactor: &deliver.redactor,
            submodules: &submodules,
        };
        git::commit_all(&access, commit, &cancel, || {
            let _nobody_listens = begin.send(());
        })
    })
    .await
}

async fn push(
    access: GitAccess,
    deliver: Deliver,
    cancel: CancellationToken,
) -> Result<Pushed, Failure> {
    blocking(move || {
        let push = PushRequest {
            work: &deliver.work,
            tmp: &deliver.tmp,
            branch: &deliver.branch,
            redactor: &deliver.redactor,
        };
        git::push(&access, push, &cancel)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Failure::new(
            ErrorCode::InternalError,
            format!("run git: {error}"),
        ))
    })
}

/// The request's first line, cut to [`MAX_SUBJECT`] characters, and the trailers.
fn commit_message(prompt: &str, execution: Uuid, session: SessionId) -> String {
    let line = prompt.lines().map(str::trim).find(|line| !line.is_empty());
    let line: String = line
        .unwrap_or("Apply the requested changes")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let subject = match line.chars().count() {
        0..=MAX_SUBJECT => line,
        _ => {
            let cut: String = line.chars().take(MAX_SUBJECT - 1).collect();
            format!("{}…", cut.trim_end())
        }
    };
    format!("{subject}\n\nClawlink-Execution: {execution}\n{SESSION_TRAILER}: {session}\n")
}
