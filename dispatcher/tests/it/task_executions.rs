//! Executions of tasks: submitted by the portal's call, run by workers or by somebody outside,
//! and followed by their tasks.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::TestApp;
use super::client::refusal;
use super::jobs::Job;
use super::sweep::{lapse, sweep_now};
use super::wait::eventually;
use super::worker::Worker;

/// A project whose tasks are scripts, and calls with the developer's key.
struct Board {
    test: TestApp,
    project: i64,
}

impl Board {
    async fn start() -> Self {
        Self::of(TestApp::start().await).await
    }

    async fn of(test: TestApp) -> Self {
        let mut board = Self { test, project: 0 };
        let project = json!({"key": "app", "name": "App", "defaultAgent": "shell"});
        board.project = board.made("/api/projects", project).await;
        board
    }

    fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.test.http.request(method, self.test.url(path));
        request.bearer_auth(self.test.key.expose())
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.call(method, path).json(body).send().await.unwrap();
        let status = answer.status();
        let answer = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    async fn made(&self, path: &str, body: Value) -> i64 {
        self.json(Method::POST, path, &body).await["id"]
            .as_i64()
            .unwrap()
    }

    async fn task(&self) -> i64 {
        let task = json!({"projectId": self.project, "title": "say", "description": "echo hello"});
        self.made("/api/tasks", task).await
    }

    /// Runs a task; answers the execution's number.
    async fn run(&self, task: i64) -> i64 {
        self.made("/api/runtime/executions", json!({"taskId": task}))
            .await
    }

    async fn get(&self, execution: i64) -> Value {
        let path = format!("/api/runtime/executions/{execution}");
        self.json(Method::GET, &path, &json!({})).await
    }

    async fn report(&self, execution: i64, body: Value) -> Value {
        let path = format!("/api/runtime/executions/{execution}/state");
        self.json(Method::PATCH, &path, &body).await
    }

    async fn task_becomes(&self, task: i64, status: &str) -> Value {
        let path = format!("/api/tasks/{task}");
        eventually(&format!("task {task} is {status}"), || async {
            let shown = self.json(Method::GET, &path, &json!({})).await;
            (shown["status"] == status).then_some(shown)
        })
        .await
    }

    async fn job(&self, execution: i64) -> Job {
        let path = format!("/executions/{execution}");
        let shown = self.json(Method::GET, &path, &json!({})).await;
        Job {
            id: execution,
            session: shown["sessionId"].as_str().unwrap().to_owned(),
        }
    }
}

#[tokio::test]
async fn a_task_follows_what_a_worker_does_for_it() {
    let board = Board::start().await;
    let task = board.task().await;
    let execution = board.run(task).await;
    let shown = board.get(execution).await;
    assert_eq!(
        (&shown["status"], &shown["taskId"], &shown["agentId"]),
        (&json!("pending"), &json!(task), &Value::Null)
    );

    let held = Worker::new(&board.test.dispatcher).run().await;
    assert_eq!(held.id(), execution);
    board.task_becomes(task, "in_progress").await;
    assert_eq!(board.get(execution).await["status"], "running");
    let report = json!({"outcome": "completed", "lastN": 0, "result": "done",
        "branch": "clawlink/say-1", "commitHash": "0".repeat(40), "pushed": true});
    held.must("complete", &report).await;
    board.task_becomes(task, "in_review").await;
    let shown = board.get(execution).await;
    assert_eq!(
        (&shown["status"], &shown["result"], &shown["branch"]),
        (
            &json!("completed"),
            &json!("done"),
            &json!("clawlink/say-1")
        )
    );
    let path = format!("/api/runtime/tasks/{task}/executions");
    let list = board.json(Method::GET, &path, &json!({})).await;
    assert_eq!(list[0]["id"], execution);
}

#[tokio::test]
async fn a_failure_blocks_the_task_with_its_reason() {
    let board = Board::start().await;
    let task = board.task().await;
    board.run(task).await;
    let held = Worker::new(&board.test.dispatcher).run().await;
    let failure = json!({"outcome": "failed", "lastN": 0,
        "error": {"code": "agent_error", "message": "the script ended with 1"}});
    held.must("complete", &failure).await;
    let shown = board.task_becomes(task, "blocked").await;
    assert_eq!(shown["blockedReason"], "the script ended with 1");
}

#[tokio::test]
async fn somebody_outside_runs_an_execution_and_no_worker_gets_it() {
    let board = Board::start().await;
    let task = board.task().await;
    let new = json!({"taskId": task.to_string(), "agentId": null, "clawId": 7,
        "sessionId": "their-own", "payload": "do it"});
    let execution = board.made("/api/runtime/executions", new).await;
    let running = board.report(execution, json!({"status": "running"})).await;
    assert_eq!(
        (
            &running["status"],
            &running["clawId"],
            &running["sessionId"]
        ),
        (&json!("running"), &json!("7"), &json!("their-own"))
    );
    board.test.queued().await;
    let worker = Worker::new(&board.test.dispatcher);
    assert!(worker.claim_now().await.is_none(), "it is external now");
    board.task_becomes(task, "in_progress").await;

    let ended = json!({"status": "failed", "errorMessage": "no tests"});
    let ended = board.report(execution, ended).await;
    assert_eq!(
        (&ended["status"], &ended["errorMessage"], &ended["payload"]),
        (&json!("failed"), &json!("no tests"), &json!("do it"))
    );
    board.task_becomes(task, "blocked").await;
    let types = board.test.types(&board.job(execution).await).await;
    assert_eq!(
        types,
        [
            "connected",
            "queued",
            "state_changed",
            "state_changed",
            "error"
        ]
    );
    let path = format!("/api/runtime/executions/{execution}/state");
    let again = board.call(Method::PATCH, &path);
    let (status, problem) = refusal(again.json(&json!({"status": "completed"}))).await;
    assert_eq!((status, &problem["error"]), (409, &json!("already_ended")));
}

#[tokio::test]
async fn what_a_worker_holds_only_the_worker_reports() {
    let board = Board::start().await;
    let task = board.task().await;
    let execution = board.run(task).await;
    let held = Worker::new(&board.test.dispatcher).run().await;
    let path = format!("/api/runtime/executions/{execution}/state");
    let report = board.call(Method::PATCH, &path);
    let (status, problem) = refusal(report.json(&json!({"status": "completed"}))).await;
    assert_eq!((status, &problem["error"]), (409, &json!("held_by_worker")));
    held.complete(0).await;
}

#[tokio::test]
async fn a_claim_and_a_report_exclude_each_other() {
    let board = Board::start().await;
    let task = board.task().await;
    let worker = Worker::new(&board.test.dispatcher);
    for _ in 0..20 {
        let execution = board.run(task).await;
        let path = format!("/api/runtime/executions/{execution}/state");
        let report = board.call(Method::PATCH, &path);
        let (report, held) = tokio::join!(
            report.json(&json!({"status": "running"})).send(),
            worker.claim_now()
        );
        let is_external = report.unwrap().status() == 200;
        // A claim that looked before the execution was queued found nothing.
        assert!(!(is_external && held.is_some()), "two run {execution}");
        match held {
            Some(held) => {
                held.ack().await;
                held.state("running").await;
                held.complete(0).await;
            }
            None if is_external => {
                board
                    .report(execution, json!({"status": "completed"}))
                    .await;
            }
            None => panic!("nobody runs {execution}"),
        }
        let types = board.test.types(&board.job(execution).await).await;
        assert_eq!(types.last().unwrap(), "completed");
    }
}

#[tokio::test]
async fn cancelling_ends_an_external_execution_at_once() {
    let board = Board::start().await;
    let task = board.task().await;
    let execution = board.run(task).await;
    board.report(execution, json!({"status": "running"})).await;
    let path = format!("/api/runtime/executions/{execution}/cancel");
    let shown = board.json(Method::POST, &path, &json!({})).await;
    assert_eq!(shown["status"], "cancelled");
    assert!(shown["completedAt"].is_string(), "{shown}");
}

#[tokio::test]
async fn a_cancelled_one_reads_so_while_its_worker_winds_up() {
    let board = Board::start().await;
    let execution = board.run(board.task().await).await;
    let _held = Worker::new(&board.test.dispatcher).run().await;
    let path = format!("/api/runtime/executions/{execution}/cancel");
    let shown = board.json(Method::POST, &path, &json!({})).await;
    assert_eq!(shown["status"], "cancelled");
    assert_eq!(shown["completedAt"], Value::Null);
}

#[tokio::test]
async fn unknown_tasks_and_agents_are_not_run() {
    let board = Board::start().await;
    let task = board.task().await;
    for (body, code) in [
        (json!({"taskId": 999_999}), "task_not_found"),
        (
            json!({"taskId": task, "agentId": 999_999}),
            "agent_not_found",
        ),
        (json!({"taskId": "none"}), "invalid_request"),
        (json!({}), "invalid_request"),
        (
            json!({"taskId": task, "agentId": "no-such-kind"}),
            "invalid_request",
        ),
    ] {
        let call = board.call(Method::POST, "/api/runtime/executions");
        let (status, problem) = refusal(call.json(&body)).await;
        assert_eq!(problem["error"], code, "{body}: {status}");
    }
    let listed = board
        .json(Method::GET, "/api/runtime/executions", &json!({}))
        .await;
    assert_eq!(listed, json!([]), "nothing was left behind");
}

#[tokio::test]
async fn a_later_turn_is_not_taken_before_an_earlier_one() {
    let board = Board::start().await;
    let first = board.test.submit().await;
    let second = board.test.resume(&first).await;
    let path = format!("/api/runtime/executions/{}/state", second.id);
    let report = board.call(Method::PATCH, &path);
    let (status, problem) = refusal(report.json(&json!({"status": "running"}))).await;
    assert_eq!((status, &problem["error"]), (409, &json!("session_busy")));
    board.report(first.id, json!({"status": "completed"})).await;
    let taken = board.report(second.id, json!({"status": "running"})).await;
    assert_eq!(taken["status"], "running");
}

/// A workspace in which one execution may run.
async fn narrow() -> Board {
    let test = TestApp::start_with(|settings| settings.tuning.running_cap = 1).await;
    Board::of(test).await
}

#[tokio::test]
async fn what_runs_outside_takes_no_workers_place() {
    let board = narrow().await;
    let outside = board.run(board.task().await).await;
    board.report(outside, json!({"status": "running"})).await;
    let job = board.test.submit().await;
    let shown = board.test.show(&job).await;
    assert_ne!(shown["queue"]["waitReason"], "workspace_at_cap", "{shown}");
    board.test.queued().await;
    let held = Worker::new(&board.test.dispatcher).claim_now().await;
    assert_eq!(held.expect("there is a place").id(), job.id);
}

#[tokio::test]
async fn what_a_lost_worker_left_can_be_run_outside_while_another_has_its_place() {
    let board = narrow().await;
    let execution = board.run(board.task().await).await;
    let lost = Worker::new(&board.test.dispatcher).claim().await;
    assert_eq!(lost.id(), execution);
    lost.ack().await;
    lapse(&board.test, &lost).await;
    assert_eq!(sweep_now(&board.test).await, 1);
    let other =
        json!({"codingAssistantProvider": "claude", "codingAssistantAuthentication": "a key"});
    board.test.submit_with(other).await;
    let worker = Worker::new(&board.test.dispatcher);
    let held = worker.claim_as(Uuid::new_v4(), &["claude"], 20).await;
    assert!(held.is_some());
    let running = board.report(execution, json!({"status": "running"})).await;
    assert_eq!(running["status"], "running");
}

#[tokio::test]
async fn what_somebody_outside_lost_is_a_workers_alone() {
    let board = Board::start().await;
    let job = json!({"onWorkerLost": "resume"});
    let job = board.test.submit_with(job).await;
    board.report(job.id, json!({"status": "running"})).await;
    let silent = "update executions set lease_expires_at = now() - interval '1 s' where id = $1";
    let silent = sqlx::query(silent).bind(job.id);
    silent.execute(board.test.db()).await.unwrap();
    assert_eq!(sweep_now(&board.test).await, 1);
    let held = Worker::new(&board.test.dispatcher).run().await;
    assert_eq!(held.id(), job.id);
    let path = format!("/api/runtime/executions/{}/state", job.id);
    let report = board.call(Method::PATCH, &path);
    let (status, problem) = refusal(report.json(&json!({"status": "completed"}))).await;
    assert_eq!((status, &problem["error"]), (409, &json!("held_by_worker")));
}
