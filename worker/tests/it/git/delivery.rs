//! The git phases as a stream tells them.

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::id::SessionId;
use clawlink_shared::secret::Secret;
use clawlink_worker::events::{Draft, EventSink};
use clawlink_worker::push::{Deliver, Delivered, Obtain, deliver, obtain_repository};
use clawlink_worker::redact::Redactor;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BRANCH, Bench, author};

fn seen(drafts: &mut Receiver<Draft>) -> Vec<serde_json::Value> {
    std::iter::from_fn(|| drafts.try_recv().ok())
        .map(|draft| {
            let mut value: serde_json::Value = serde_json::from_str(draft.fields.get()).unwrap();
            value["type"] = draft.kind.as_str().into();
            value
        })
        .collect()
}

fn stages(events: &[serde_json::Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| event["stage"].as_str())
        .collect()
}

async fn obtain(bench: &Bench) -> Vec<serde_json::Value> {
    let (sink, mut drafts) = EventSink::channel();
    let obtain = Obtain {
        repository: bench.repository.clone(),
        work: bench.work(),
        working_branch: Some(BRANCH.to_owned()),
        max_bytes: super::GIB,
        max_files: 1000,
    };
    obtain_repository(
        bench.access.clone(),
        obtain,
        &sink,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    seen(&mut drafts)
}

#[tokio::test]
async fn a_branch_that_the_host_has_is_gone_on_with() {
    let bench = Bench::new(&[("a", "1")]).await;
    let theirs = [("theirs", "1")];
    bench
        .host
        .commit("app", BRANCH, &theirs, "By somebody else")
        .await
        .unwrap();
    let events = obtain(&bench).await;
    assert!(
        events.iter().all(|event| event["type"] != "branch_created"),
        "{events:?}"
    );
    assert!(
        events.iter().any(|event| {
            let text = event["message"].as_str().unwrap_or_default();
            text.contains(BRANCH) && text.contains("goes on")
        }),
        "{events:?}"
    );
    bench.write("mine", "1");
    let (delivered, _) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed, "{delivered:?}");
    assert_eq!(
        bench.tree().await,
        ["100644 a", "100644 mine", "100644 theirs"]
    );
    let history = bench.host.history("app", BRANCH).await.unwrap();
    assert_eq!(history[1..], ["By somebody else", "First commit"]);
}

pub(super) async fn deliver_from(
    bench: &Bench,
    lease: Result<(), Failure>,
) -> (Delivered, Vec<serde_json::Value>) {
    let (sink, mut drafts) = EventSink::channel();
    let what = Deliver {
        work: bench.work(),
        tmp: bench.dir.path().join("scratch"),
        branch: BRANCH.to_owned(),
        base: None,
        prompt: format!("\n  Add a greeting {}\nand more", "very ".repeat(40)),
        author: author(),
        execution: Uuid::nil(),
        session: SessionId(Uuid::nil()),
        redactor: Redactor::new([&Secret::new(bench.host.token())]),
    };
    let cancel = CancellationToken::new();
    let delivered = deliver(bench.access.clone(), what, &sink, &cancel, async || {
        lease.clone()
    })
    .await;
    (delivered, seen(&mut drafts))
}

#[tokio::test]
async fn a_turn_is_told_from_clone_to_push() {
    let mut bench = Bench::new(&[("a", "1")]).await;
    bench.repository.branch = Some("missing".to_owned());
    let events = obtain(&bench).await;
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        (kinds[0], *kinds.last().unwrap()),
        ("message", "branch_created")
    );
    assert!(
        events.iter().any(|event| event["message"]
            == "Branch missing does not exist; using the default branch main.")
    );
    let done = events
        .iter()
        .find(|event| event["data"]["type"] == "completed")
        .unwrap();
    assert_eq!(done["data"]["targetPath"], bench.work().to_str().unwrap());
    let created = events.last().unwrap();
    assert_eq!(
        (
            created["branchName"].as_str(),
            created["baseBranch"].as_str()
        ),
        (Some(BRANCH), Some("main"))
    );

    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert_eq!(delivered, Delivered::default());
    assert_eq!(
        stages(&events),
        ["analyzing", "nothing_to_commit", "completed"]
    );
    assert!(
        bench
            .host
            .log()
            .iter()
            .all(|asked| !asked.what.contains("receive-pack"))
    );

    bench.write("hello", "1");
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert_eq!(
        stages(&events),
        [
            "analyzing",
            "creating_branch",
            "generating_message",
            "committing",
            "committed",
            "pushing",
            "pushed",
            "completed"
        ]
    );
    assert!(delivered.pushed && delivered.failure.is_none());
    assert_eq!(
        delivered.commit_hash,
        bench.host.tip("app", BRANCH).await.unwrap()
    );
    let committed = events
        .iter()
        .find(|event| event["stage"] == "committed")
        .unwrap();
    assert_eq!(
        committed["commitHash"].as_str(),
        delivered.commit_hash.as_deref()
    );
    let message = bench.host.message("app", BRANCH).await.unwrap();
    assert_eq!(
        committed["commitMessage"].as_str().unwrap().trim(),
        message.trim()
    );
    let lines: Vec<&str> = message.trim().lines().collect();
    assert!(lines[0].starts_with("Add a greeting very") && lines[0].chars().count() <= 72);
    let nil = Uuid::nil();
    assert_eq!(
        lines[2..],
        [
            format!("Clawlink-Execution: {nil}"),
            format!("Clawlink-Session: {nil}")
        ]
    );
}

#[tokio::test]
async fn a_failed_push_keeps_the_commit_for_the_next_turn() {
    let bench = Bench::new(&[("a", "1")]).await;
    obtain(&bench).await;
    bench.write("hello", "1");
    bench.host.protect("app", "frozen until Monday").unwrap();
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert_eq!(
        stages(&events)[4..],
        ["committed", "pushing", "push_failed", "completed"]
    );
    let failure = delivered.failure.unwrap();
    assert_eq!(failure.code, ErrorCode::PushFailed);
    assert!(failure.message.contains("frozen until Monday"));
    assert!(!delivered.pushed && delivered.commit_hash.is_some());
    let told = events
        .iter()
        .find(|event| event["stage"] == "push_failed")
        .unwrap();
    assert_eq!(told["error"].as_str().unwrap(), failure.message);

    bench.host.unprotect("app").unwrap();
    let (later, events) = deliver_from(&bench, Ok(())).await;
    assert_eq!(
        stages(&events),
        ["analyzing", "committed", "pushing", "pushed", "completed"]
    );
    assert_eq!(later.commit_hash, delivered.commit_hash);
    assert_eq!(
        later.commit_hash,
        bench.host.tip("app", BRANCH).await.unwrap()
    );
}

#[tokio::test]
async fn nothing_is_pushed_without_a_confirmed_lease() {
    let bench = Bench::new(&[("a", "1")]).await;
    obtain(&bench).await;
    bench.write("hello", "1");
    let lost = Failure::new(ErrorCode::WorkerLost, "the lease is lost");
    let (delivered, _) = deliver_from(&bench, Err(lost.clone())).await;
    assert_eq!(delivered.failure, Some(lost));
    assert_eq!(bench.host.tip("app", BRANCH).await.unwrap(), None);
    assert!(
        bench
            .host
            .log()
            .iter()
            .all(|asked| !asked.what.contains("receive-pack"))
    );
}
