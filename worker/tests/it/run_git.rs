//! Whole executions with a repository, against a real git host over HTTP.

use clawlink_fixtures::git_host::GitHost;
use clawlink_shared::control::Assignment;
use clawlink_shared::execution::{ErrorCode, Outcome, Repository};
use clawlink_shared::secret::Secret;

use crate::dispatcher::{Dispatcher, assignment};
use crate::worker_process::Machine;

pub(crate) const BRANCH: &str = "clawlink/a-test-0123abcd";

pub(crate) async fn host() -> GitHost {
    let host = GitHost::start().await.unwrap();
    host.create_repo(
        "app",
        &[("README.md", "hello\n"), ("src/main.txt", "main\n")],
    )
    .await
    .unwrap();
    host
}

pub(crate) fn with_repository(host: &GitHost, script: &str) -> Assignment {
    let mut assignment = assignment(script);
    assignment.request.repository = Some(Repository {
        url: host.url("app"),
        branch: None,
        directory: Some("src".to_owned()),
        depth: 1,
    });
    assignment.request.auto_commit = true;
    assignment.request.working_branch = Some(BRANCH.to_owned());
    assignment.credentials.git_token = Some(Secret::new(host.token()));
    assignment
}

#[tokio::test]
async fn a_repository_is_cloned_changed_and_pushed() {
    let (dispatcher, machine, host) = (Dispatcher::start().await, Machine::new(), host().await);
    dispatcher.put(with_repository(
        &host,
        "cat main.txt; echo changed > made.txt",
    ));
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let tip = {
        let told = dispatcher.told();
        let mut kinds = told.types();
        kinds.dedup();
        let first = |kind: &str| kinds.iter().position(|&found| found == kind).unwrap();
        assert_eq!(kinds[0], "session_name");
        assert!(first("github_pull_progress") < first("branch_created"));
        assert!(first("branch_created") < first("agent_text"));
        assert!(first("agent_text") < first("commit_progress"));
        let complete = &told.completes[0];
        assert_eq!(complete.outcome, Outcome::Completed);
        assert!(complete.pushed);
        assert_eq!(complete.branch.as_deref(), Some(BRANCH));
        complete.commit_hash.clone()
    };
    assert_eq!(host.tip("app", BRANCH).await.unwrap(), tip);
    let made = host.file("app", BRANCH, "src/made.txt").await.unwrap();
    assert_eq!(made, "changed\n");
}

#[tokio::test]
async fn a_failed_push_keeps_the_commit_which_a_later_turn_pushes() {
    let (dispatcher, machine, host) = (Dispatcher::start().await, Machine::new(), host().await);
    host.protect("app", "this branch is protected").unwrap();
    let first = with_repository(&host, "echo changed > made.txt");
    let (session, mut second) = (first.session.id, with_repository(&host, "true"));
    dispatcher.put(first);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let refused = dispatcher.told().completes[0].clone();
    let error = refused.error.unwrap();
    assert_eq!(error.code, ErrorCode::PushFailed);
    assert!(
        error.message.contains("this branch is protected"),
        "{}",
        error.message
    );
    assert!(!refused.pushed);

    host.unprotect("app").unwrap();
    second.session.id = session;
    second.session.turn = 2;
    second.session.archive = Some(dispatcher.archive_source());
    second.session.archived_root = Some(machine.workspace().display().to_string());
    dispatcher.told().events.clear();
    dispatcher.put(second);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let pushed = dispatcher.told().completes[1].clone();
    assert_eq!(pushed.outcome, Outcome::Completed);
    assert!(pushed.pushed);
    assert_eq!(pushed.commit_hash, refused.commit_hash);
    assert_eq!(host.tip("app", BRANCH).await.unwrap(), pushed.commit_hash);
}

#[tokio::test]
async fn a_refused_token_fails_before_the_agent_and_leaves_no_archive() {
    let (dispatcher, machine, host) = (Dispatcher::start().await, Machine::new(), host().await);
    let assignment = with_repository(&host, "echo never");
    host.expire_token();
    dispatcher.put(assignment);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    let complete = &told.completes[0];
    assert_eq!(
        complete.error.as_ref().unwrap().code,
        ErrorCode::RepoAuthFailed
    );
    assert!(complete.archive.is_none());
    assert_eq!(told.count("state"), 0);
}

#[tokio::test]
async fn a_failing_script_is_archived_and_not_pushed() {
    let (dispatcher, machine, host) = (Dispatcher::start().await, Machine::new(), host().await);
    dispatcher.put(with_repository(&host, "echo changed > made.txt; exit 1"));
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let complete = dispatcher.told().completes[0].clone();
    assert_eq!(complete.outcome, Outcome::Failed);
    assert!(complete.archive.is_some());
    assert_eq!(host.tip("app", BRANCH).await.unwrap(), None);
}
