//! Whole executions by the real worker binary, against a dispatcher that loses answers, goes
//! away, or takes the execution back.

use std::os::unix::fs::MetadataExt;

use clawlink_shared::execution::{ErrorCode, Outcome};
use clawlink_shared::secret::Secret;
use clawlink_worker::report::LOOK_PATIENCE;
use rustix::process::Signal;
use serde_json::json;

use crate::dispatcher::{Dispatcher, assignment};
use crate::wait::{PATIENCE, eventually};
use crate::worker_process::{Machine, Worker};

/// A script that says `started` and then waits until somebody ends it, or until its session is
/// swept: where a worker is killed, nobody else does.
pub(crate) const ENDLESS: &str = r#"echo started; while [ -e "$PWD" ]; do sleep 0.1; done"#;

pub(crate) fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[tokio::test]
async fn a_script_runs_from_claim_to_recorded_end() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit("echo one; echo two >&2; pwd; touch made");
    let (code, log) = machine.start(&dispatcher).ended().await;
    assert_eq!(code, Some(0));
    let told = dispatcher.told();
    let calls: Vec<_> = told
        .calls
        .iter()
        .filter(|call| !matches!(call.as_str(), "events" | "heartbeat" | "control"))
        .collect();
    assert_eq!(calls, ["claim", "ack", "state", "archive", "complete"]);
    assert_eq!(told.types()[0], "session_name");
    assert!(
        told.types()[1..]
            .iter()
            .all(|kind| ["assistant_message", "agent_text"].contains(kind))
    );
    assert!(told.text().contains("one") && told.text().contains("two"));
    assert_eq!(told.completes.len(), 1);
    let complete = &told.completes[0];
    assert_eq!(complete.outcome, Outcome::Completed);
    assert_eq!(complete.last_n, told.events.len() as u64);
    assert!(complete.result.as_ref().unwrap().contains("one"));
    assert!(complete.archive.is_some());
    assert!(told.repeated.is_empty());
    assert!(
        is_empty(&machine.workspace()),
        "the session was not removed"
    );
    assert!(!log.contains("ERROR"));
}

#[tokio::test]
async fn secrets_of_the_environment_are_masked_and_log_lines_name_the_run() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let mut assignment = assignment("echo key=$DEPLOY_KEY mode=$MODE $DATABASE_URL");
    for (name, value) in [
        ("DEPLOY_KEY", "hunter2hunter2"),
        ("MODE", "production"),
        ("DATABASE_URL", "postgres://app:hunter22@db/app"),
    ] {
        let env = &mut assignment.credentials.env;
        env.insert(name.to_owned(), Secret::new(value));
    }
    let (execution, session) = (assignment.execution.id, assignment.session.id);
    dispatcher.put(assignment);
    let mut command = machine.command(&dispatcher);
    command.env("CLAWLINK_LOG", "debug");
    let (code, log) = Worker::start(command).ended().await;
    assert_eq!(code, Some(0));
    let text = "key=*** mode=production postgres://app:***@db/app";
    assert_eq!(dispatcher.told().text(), text);
    assert!(!log.contains("hunter2"));
    let phases: Vec<&str> = log.lines().filter(|line| line.contains("phase=")).collect();
    assert!(!phases.is_empty());
    for line in phases {
        for named in [
            format!("execution.id={execution} "),
            format!("session.id={session} "),
            "attempt=1 ".to_owned(),
            "worker.id=".to_owned(),
        ] {
            assert!(line.contains(&named), "{named} is not in {line}");
        }
    }
}

#[tokio::test]
async fn a_session_resumes_on_an_empty_machine() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let session = dispatcher.submit("echo kept > file; mkdir -p $HOME/cache; touch $HOME/cache/x");
    machine.start(&dispatcher).ended().await;
    let mut second = assignment("cat file; ls $HOME");
    second.session.id = session;
    second.session.turn = 2;
    second.session.archive = Some(dispatcher.archive_source());
    second.session.archived_root = Some(machine.workspace().display().to_string());
    dispatcher.told().events.clear();
    dispatcher.put(second);
    let (code, _) = machine.start(&dispatcher).ended().await;
    assert_eq!(code, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[1].outcome, Outcome::Completed);
    assert_eq!(told.text(), "kept");
}

#[tokio::test]
async fn a_session_of_another_root_is_moved() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit("echo kept > kept.txt");
    machine.start(&dispatcher).ended().await;
    let mut second = assignment("cat kept.txt");
    second.session.archive = Some(dispatcher.archive_source());
    second.session.archived_root = Some("/elsewhere".to_owned());
    dispatcher.put(second);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[1].result.as_deref(), Some("kept"));
}

#[tokio::test]
async fn lost_answers_change_nothing() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    for call in ["claim", "ack", "state", "events", "archive", "complete"] {
        dispatcher.told().lose_answers.insert(call, 2);
    }
    dispatcher.submit("for i in $(seq 50); do echo line $i; done");
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.granted.len(), 1, "the claim id changed");
    assert!(!told.repeated.is_empty(), "no batch was repeated");
    // Every complete says the same; the dispatcher records the first.
    assert_eq!(told.completes.len(), 3);
    assert_eq!(told.events.len() as u64, told.completes[0].last_n);
    let lines: Vec<_> = (1..=50).map(|i| format!("line {i}")).collect();
    assert_eq!(told.text(), lines.join("\n"));
}

const NEIGHBOURS: usize = 100;

#[tokio::test]
async fn a_report_survives_its_worker() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher
        .told()
        .lose_answers
        .insert("complete", usize::MAX);
    dispatcher.submit("true");
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the first report", |told| !told.completes.is_empty())
        .await;
    worker.signal(Signal::KILL);
    worker.ended().await;
    let sent = {
        let mut told = dispatcher.told();
        told.lose_answers.clear();
        told.completes.len()
    };
    // Any number of living neighbours hides none.
    let neighbours = (0..NEIGHBOURS).map(|n| {
        let dir = machine.spool().join(format!("{n:032x}"));
        std::fs::create_dir(&dir).unwrap();
        let lock = std::fs::File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        lock
    });
    let _held: Vec<_> = neighbours.collect();
    let next = machine.start(&dispatcher);
    dispatcher
        .until("the next claim", |told| {
            told.claims.len() > 1 && told.completes.len() > sent
        })
        .await;
    next.signal(Signal::TERM);
    assert_eq!(next.ended().await.0, Some(0));
    assert_eq!(dispatcher.told().completes.len(), sent + 1);
    let left = std::fs::read_dir(machine.spool()).unwrap().flatten();
    assert_eq!(
        left.filter(|entry| entry.path().is_dir()).count(),
        NEIGHBOURS
    );
}

/// More than can be tried in the time that all of them have together.
const REPORTS: usize = 8;

#[tokio::test]
async fn earlier_reports_that_nobody_takes_hold_up_work_for_a_while_only() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let answers = usize::MAX;
    dispatcher.told().lose_answers.insert("complete", answers);
    dispatcher.submit("true");
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the report", |told| !told.completes.is_empty())
        .await;
    worker.signal(Signal::KILL);
    worker.ended().await;
    let spool = machine.spool();
    let owner = std::fs::metadata(&spool).unwrap();
    let mut entries = std::fs::read_dir(&spool).unwrap().flatten();
    let report = entries.find_map(|entry| {
        let path = entry.path().join("complete.json");
        path.exists().then_some(path)
    });
    let report = report.unwrap();
    for n in 1..REPORTS {
        let dir = spool.join(format!("{n:032x}"));
        std::fs::create_dir(&dir).unwrap();
        let copy = dir.join("complete.json");
        std::fs::copy(&report, &copy).unwrap();
        for path in [dir, copy] {
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
    let next = machine.start(&dispatcher);
    // Each alone is tried for five seconds.
    dispatcher
        .until("the next claim", |told| told.claims.len() > 1)
        .await;
    next.signal(Signal::TERM);
    assert_eq!(next.ended().await.0, Some(0));
    let left = std::fs::read_dir(&spool).unwrap().flatten();
    let left = left.filter(|entry| entry.path().join("complete.json").exists());
    assert_eq!(left.count(), REPORTS, "they wait for the next worker");
}

#[tokio::test]
async fn health_says_whether_a_worker_lives() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let health = async || {
        let mut command = machine.command(&dispatcher);
        let status = command.arg("health").status().await.unwrap();
        status.code()
    };
    assert_eq!(health().await, Some(1));
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("it asks for work", |told| !told.claims.is_empty())
        .await;
    assert_eq!(health().await, Some(0));
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.0, Some(0));
    assert_eq!(health().await, Some(1));
}

#[tokio::test]
async fn health_does_not_wait_for_a_disk_that_does_not_answer() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let dir = machine.spool().join("silent");
    std::fs::create_dir(&dir).unwrap();
    // Whoever opens it waits for somebody who writes.
    let made = std::process::Command::new("mkfifo")
        .arg(dir.join("lock"))
        .status();
    assert!(made.unwrap().success());
    let began = std::time::Instant::now();
    let mut command = machine.command(&dispatcher);
    let ended = tokio::time::timeout(PATIENCE, command.arg("health").status()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(1));
    let took = began.elapsed();
    assert!(
        took >= LOOK_PATIENCE && took < LOOK_PATIENCE * 2,
        "{took:?}"
    );
}

#[tokio::test]
async fn a_lost_lease_stops_the_agent_and_says_nothing() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.told().lease_ms = 600;
    dispatcher.submit(ENDLESS);
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    dispatcher.told().lease_lost = true;
    let (code, log) = worker.ended().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("the lease is over"));
    let told = dispatcher.told();
    assert_eq!(told.count("complete") + told.count("archive"), 0);
    assert!(is_empty(&machine.workspace()));
}

#[tokio::test]
async fn a_cancelled_run_is_archived_and_reported_as_cancelled() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.order(json!({"something_new": {"x": 1}}));
    dispatcher.submit(ENDLESS);
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    dispatcher.order(json!({"cancel": {"reason": "enough"}}));
    assert_eq!(worker.ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Cancelled);
    assert_eq!(told.completes[0].error, None);
    assert!(told.completes[0].archive.is_some());
}

#[tokio::test]
async fn an_idle_worker_drains_at_once() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("a claim waits", |told| !told.claims.is_empty())
        .await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.0, Some(0));
    assert_eq!(dispatcher.told().count("ack"), 0);
}

#[tokio::test]
async fn a_busy_worker_drains_by_interrupting_its_agent() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit(ENDLESS);
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.0, Some(0));
    let told = dispatcher.told();
    let complete = &told.completes[0];
    assert_eq!(complete.outcome, Outcome::Interrupted);
    assert_eq!(
        complete.error.as_ref().unwrap().code,
        ErrorCode::Interrupted
    );
    assert!(complete.archive.is_some());
}

#[tokio::test]
async fn a_draining_worker_lets_a_short_run_finish() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit("echo started; read -t 1 < <(sleep 5); echo finished");
    let mut command = machine.command(&dispatcher);
    command.env("CLAWLINK_DRAIN_TIMEOUT", "60");
    let worker = Worker::start(command);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Completed);
    assert!(told.text().ends_with("finished"));
}

#[tokio::test]
async fn a_run_ends_at_its_time_limit() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let mut endless = assignment(ENDLESS);
    endless.limits.timeout_seconds = 1;
    dispatcher.put(endless);
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Failed);
    assert_eq!(
        told.completes[0].error.as_ref().unwrap().code,
        ErrorCode::Timeout
    );
    assert!(told.completes[0].archive.is_some());
}

#[tokio::test]
async fn dispatchers_may_be_away_for_longer_than_the_lease() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.told().lease_ms = 300;
    let script = "for i in $(seq 20); do echo line $i; sleep 0.1; done; touch done";
    let session = dispatcher.submit(script);
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| !told.text().is_empty())
        .await;
    dispatcher.told().away = true;
    // The agent goes on for two seconds, the lease lasts less than one. As root, tests may
    // look into the session; else they are its owner.
    let done = machine.workspace().join(session.folder()).join("work/done");
    eventually("the agent's end while nobody hears it", || done.exists()).await;
    dispatcher.told().away = false;
    assert_eq!(worker.ended().await.0, Some(0));
    let told = dispatcher.told();
    assert_eq!(told.completes[0].outcome, Outcome::Completed);
    let lines: Vec<_> = (1..=20).map(|i| format!("line {i}")).collect();
    assert_eq!(told.text(), lines.join("\n"));
}

#[tokio::test]
async fn a_worker_without_dispatchers_gives_up_after_the_grace() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let mut endless = assignment(ENDLESS);
    endless.limits.outage_grace_seconds = 1;
    endless.lease.expires_in_ms = 300;
    dispatcher.told().lease_ms = 300;
    dispatcher.put(endless);
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    dispatcher.told().away = true;
    assert_eq!(worker.ended().await.0, Some(4));
    assert!(is_empty(&machine.workspace()));
}

#[tokio::test]
async fn a_cut_lifeline_ends_worker_and_agent() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit(ENDLESS);
    let mut command = machine.command(&dispatcher);
    command
        .arg("--lifeline")
        .stdin(std::process::Stdio::piped());
    let mut worker = Worker::start(command);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    worker.cut_lifeline();
    assert_eq!(worker.ended().await.0, Some(5));
}

#[tokio::test]
async fn what_a_crashed_worker_left_is_swept() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    dispatcher.submit(ENDLESS);
    let worker = machine.start(&dispatcher);
    dispatcher
        .until("the agent runs", |told| told.text().contains("started"))
        .await;
    worker.signal(Signal::KILL);
    worker.ended().await;
    assert!(!is_empty(&machine.workspace()));
    dispatcher.told().lose_answers.clear();
    dispatcher.told().events.clear();
    dispatcher.submit("true");
    assert_eq!(machine.start(&dispatcher).ended().await.0, Some(0));
    assert!(is_empty(&machine.workspace()));
}

#[tokio::test]
async fn a_refused_pool_token_is_said_and_tried_again() {
    let (dispatcher, machine) = (Dispatcher::start().await, Machine::new());
    let mut command = machine.command(&dispatcher);
    command.env("CLAWLINK_POOL_TOKEN", "wrong-token");
    let worker = Worker::start(command);
    dispatcher
        .until("two claims", |told| told.count("claim") > 1)
        .await;
    worker.signal(Signal::TERM);
    let (code, log) = worker.ended().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("check the pool token"));
    assert!(!log.contains("wrong-token"));
}
