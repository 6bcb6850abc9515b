//! The real `claude` asks, and people answer, or do not.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::shaky::{Shaky, last, work_of};
use super::world::{Submitted, Worker, event};
use crate::wait::eventually;

/// A tool that runs until there is a file `go`.
pub(super) const WAIT: &str =
    "[[bash:while ! test -e go; do python3 -c 'import time; time.sleep(0.05)'; done]]";

/// The agents here, and a model that each of them knows.
const CLAUDE: [&str; 2] = ["claude", "claude-sonnet-4-5"];
pub(super) const CODEX: [&str; 2] = ["codex", "gpt-5-codex"];

/// A request for claude, which asks before it does anything.
fn asking(world: &Shaky, prompt: &str, mode: &str) -> Value {
    asking_of(world, CLAUDE, prompt, mode)
}

/// The same for an agent and its model.
pub(super) fn asking_of(
    world: &Shaky,
    [agent, model]: [&str; 2],
    prompt: &str,
    mode: &str,
) -> Value {
    let mut request = world.on_repository("app", agent, prompt);
    request["github"]["repoUrl"] = json!(format!("{}/app.git", world.git_gate.url()));
    request["providerOptions"] = json!({"permissionMode": mode, "model": model});
    request
}

impl Shaky {
    /// The next open question of an execution.
    pub(super) async fn question(&self, run: &Submitted) -> Value {
        let path = format!("/executions/{}/approvals", run.execution);
        eventually("the agent asks", async || {
            let answer = self.app.get(&path).send().await.ok()?;
            let body: Value = answer.json().await.ok()?;
            let list = body["approvals"].as_array()?;
            list.iter().find(|one| one["state"] == "open").cloned()
        })
        .await
    }

    pub(super) async fn answer(&self, run: &Submitted, question: &Value, body: Value) {
        let id = question["approvalId"].as_str().unwrap();
        let path = format!("/executions/{}/approvals/{id}", run.execution);
        let answer = self.app.post(&path).json(&body).send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, 200, "{}", answer.text().await.unwrap());
    }

    /// Says something to the agent; what the route answers.
    pub(super) async fn say(&self, run: &Submitted, text: &str) -> Value {
        let path = format!("/executions/{}/messages", run.execution);
        let call = self.app.post(&path).json(&json!({ "text": text }));
        let answer = call.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json().await.unwrap()
    }

    /// Waits for an event of this type.
    pub(super) async fn tells(&self, run: &Submitted, kind: &str) {
        let path = format!("/executions/{}/events?limit=1000", run.execution);
        eventually(&format!("there is {kind}"), async || {
            let call = self.app.get(&path).header("accept", "application/json");
            let body: Value = call.send().await.ok()?.json().await.ok()?;
            let mut events = body["events"].as_array()?.iter();
            let is_there = events.any(|one| one["type"] == kind);
            is_there.then_some(())
        })
        .await;
    }

    /// How many turns the session of a run has.
    pub(super) async fn turns(&self, run: &Submitted) -> usize {
        let call = self.app.get(&format!("/sessions/{}", run.session)).send();
        let session: Value = call.await.unwrap().json().await.unwrap();
        session["executions"].as_array().expect("its turns").len()
    }

    /// Everything that the model was sent last.
    pub(super) fn last_request(&self) -> String {
        let messages = self.model.messages();
        messages.last().expect("a call").body.to_string()
    }

    pub(super) async fn completed(&self, run: &Submitted, worker: Worker) -> Vec<Value> {
        let events = self.end_of(run).await;
        assert_eq!(last(&events)["type"], "completed", "{events:#?}");
        assert_eq!(worker.exit_code().await, Some(0));
        events
    }
}

/// Whether the run's commit holds the file that the model wrote.
pub(super) async fn has_hello(world: &Shaky, events: &[Value]) -> bool {
    let branch = event(events, "branch_created")["branchName"]
        .as_str()
        .unwrap();
    world.git.file("app", branch, "hello.txt").await.is_ok()
}

#[tokio::test]
async fn allowed_and_denied_with_a_message_that_reaches_the_model() {
    let world = Shaky::start().await;
    for decision in ["allow", "deny"] {
        let worker = world.worker();
        let run = world
            .submit(asking(&world, "[[write]] a file", "default"))
            .await;
        let question = world.question(&run).await;
        assert_eq!(
            (&question["tool"], &question["kind"]),
            (&json!("Write"), &json!("tool"))
        );
        assert_eq!(world.execution(run.execution).await["status"], "waiting");
        let body = json!({"decision": decision, "message": "not in this directory"});
        world.answer(&run, &question, body).await;
        let events = world.completed(&run, worker).await;
        let is_allowed = decision == "allow";
        assert_eq!(event(&events, "agent_tool_result")["ok"], is_allowed);
        assert_eq!(
            world.last_request().contains("not in this directory"),
            !is_allowed
        );
        assert_eq!(has_hello(&world, &events).await, is_allowed);
        let kinds: Vec<&str> = events
            .iter()
            .filter_map(|one| one["type"].as_str())
            .collect();
        let at = |kind: &str| kinds.iter().position(|one| *one == kind).unwrap();
        assert!(
            at("agent_tool_call") < at("approval_requested"),
            "{kinds:?}"
        );
        assert!(at("approval_requested") < at("approval_resolved"));
        assert!(at("approval_resolved") < at("agent_tool_result"));
    }
}

#[tokio::test]
async fn what_a_rule_allows_nobody_is_asked() {
    let world = Shaky::start().await;
    let admin = world.app.admin().await;
    let rule = json!({"tool": "Bash", "input": "touch *", "decision": "allow"});
    let path = "/api/approval-policies";
    assert_eq!(
        world.app.call_as(&admin, Method::POST, path, rule).await.0,
        201
    );
    let worker = world.worker();
    let run = world
        .submit(asking(&world, "[[bash:touch made]] now", "default"))
        .await;
    let events = world.completed(&run, worker).await;
    assert_eq!(event(&events, "approval_resolved")["by"], "policy");
    assert!(events.iter().all(|one| one["to"] != "waiting"));
    assert_eq!(event(&events, "agent_tool_result")["ok"], true);
}

#[tokio::test]
async fn unanswered_in_time_the_agent_reads_so() {
    let world = Shaky::start_with(|settings| {
        settings.tuning.approval = Duration::from_millis(500);
    })
    .await;
    let worker = world.worker();
    let run = world
        .submit(asking(&world, "[[write]] a file", "default"))
        .await;
    let events = world.completed(&run, worker).await;
    let resolved = event(&events, "approval_resolved");
    assert_eq!(
        (&resolved["by"], &resolved["decision"]),
        (&json!("timeout"), &json!("deny"))
    );
    assert!(world.last_request().contains("Nobody answered in time"));
    assert!(!has_hello(&world, &events).await);
}

/// A plan is approved, and carried out step by step with this tool.
pub(super) async fn plan_is_carried_out(agent: [&str; 2], tool: &str) {
    let world = Shaky::start().await;
    let worker = world.worker();
    let run = world
        .submit(asking_of(&world, agent, "[[plan]] a file", "plan"))
        .await;
    let plan = world.question(&run).await;
    assert_eq!(plan["kind"], "plan");
    let text = plan["input"]["plan"].as_str().unwrap();
    assert!(text.contains("hello.txt"), "{plan}");
    assert!(!work_of(&worker, &run).join("hello.txt").exists());
    let allow = json!({"decision": "allow"});
    world.answer(&run, &plan, allow.clone()).await;
    let step = world.question(&run).await;
    assert_eq!(step["tool"], tool, "steps are asked one by one");
    world.answer(&run, &step, allow).await;
    let events = world.completed(&run, worker).await;
    assert!(has_hello(&world, &events).await);
}

/// A plan is sent back with words, and the next one refused without.
pub(super) async fn plan_is_sent_back_and_refused(agent: [&str; 2]) {
    let world = Shaky::start().await;
    let worker = world.worker();
    let run = world
        .submit(asking_of(&world, agent, "[[plan]] a file", "plan"))
        .await;
    let plan = world.question(&run).await;
    let back = json!({"decision": "deny", "message": "use another name"});
    world.answer(&run, &plan, back).await;
    let revised = world.question(&run).await;
    assert_eq!(revised["kind"], "plan");
    assert!(world.last_request().contains("use another name"));
    world
        .answer(&run, &revised, json!({"decision": "deny"}))
        .await;
    let events = world.completed(&run, worker).await;
    let result = last(&events)["result"].as_str().unwrap();
    assert!(
        result.contains("hello.txt"),
        "the plan is the result: {result}"
    );
    assert!(!has_hello(&world, &events).await);
}

#[tokio::test]
async fn a_plan_is_approved_and_carried_out() {
    plan_is_carried_out(CLAUDE, "Write").await;
}

#[tokio::test]
async fn a_plan_is_sent_back_and_then_refused() {
    plan_is_sent_back_and_refused(CLAUDE).await;
}

#[tokio::test]
async fn a_plan_that_nobody_judges_in_time_is_the_result() {
    let world = Shaky::start_with(|settings| {
        settings.tuning.approval = Duration::from_millis(500);
    })
    .await;
    for agent in [CLAUDE, CODEX] {
        let worker = world.worker();
        let run = world
            .submit(asking_of(&world, agent, "[[plan]] a file", "plan"))
            .await;
        let events = world.completed(&run, worker).await;
        assert_eq!(event(&events, "approval_resolved")["by"], "timeout");
        let result = last(&events)["result"].as_str().unwrap();
        assert!(result.contains("hello.txt"), "{result}");
        assert!(!has_hello(&world, &events).await);
    }
}

#[tokio::test]
async fn a_message_in_mid_run_is_heard_by_the_model() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let mut request = asking(&world, WAIT, "bypassPermissions");
    request["autoCommit"] = json!(false);
    let run = world.submit(request).await;
    eventually("the tool runs", async || {
        (!world.model.messages().is_empty() && work_of(&worker, &run).is_dir()).then_some(())
    })
    .await;
    world.state(run.execution, "running").await;
    let sent = world.say(&run, "[[echo:heard]] please").await;
    assert_eq!(sent["delivered"], "running");
    world.tells(&run, "user_message").await;
    std::fs::write(work_of(&worker, &run).join("go"), "").unwrap();
    let events = world.completed(&run, worker).await;
    assert_eq!(
        event(&events, "user_message")["messageId"],
        sent["messageId"]
    );
    // The CLI hands it on beside the tool's result.
    let last = world.last_request();
    assert!(last.contains("[[echo:heard]] please"), "{last}");
    assert_eq!(world.turns(&run).await, 1);
}

#[tokio::test]
async fn cancelled_while_it_waits() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let run = world
        .submit(asking(&world, "[[write]] a file", "default"))
        .await;
    let question = world.question(&run).await;
    let path = format!("/executions/{}/cancel", run.execution);
    assert_eq!(world.app.post(&path).send().await.unwrap().status(), 202);
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["type"], "cancelled");
    let resolved = event(&events, "approval_resolved");
    assert_eq!(resolved["approvalId"], question["approvalId"]);
    assert_eq!(resolved["decision"], "withdrawn");
    assert_eq!(worker.exit_code().await, Some(0));
    let mut next = asking(&world, "[[text]] go on", "default");
    next["websiteSessionId"] = json!(run.session);
    let (_, events) = world.completes(next).await;
    assert!(
        last(&events)["result"]
            .as_str()
            .unwrap()
            .contains("2 marked user turns")
    );
}

#[tokio::test]
async fn worker_killed_while_it_waits() {
    let world = Shaky::start().await;
    for on_loss in ["fail", "resume"] {
        let worker = world.worker();
        let mut request = asking(&world, "[[write]] a file", "default");
        request["onWorkerLost"] = json!(on_loss);
        let run = world.submit(request).await;
        let first = world.question(&run).await;
        worker.kill().await;
        if on_loss == "fail" {
            let events = world.is_lost(&run).await;
            assert_eq!(event(&events, "approval_resolved")["decision"], "withdrawn");
            continue;
        }
        world.state(run.execution, "pending").await;
        let worker = world.worker();
        let again = world.question(&run).await;
        assert_ne!(again["approvalId"], first["approvalId"]);
        world
            .answer(&run, &again, json!({"decision": "allow"}))
            .await;
        let events = world.completed(&run, worker).await;
        assert!(has_hello(&world, &events).await);
    }
}

#[tokio::test]
async fn worker_told_to_stop_while_it_waits() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let run = world
        .submit(asking(&world, "[[write]] a file", "default"))
        .await;
    world.question(&run).await;
    worker.signal(Signal::TERM);
    let events = world.end_of(&run).await;
    assert_eq!(last(&events)["code"], "interrupted");
    assert_eq!(event(&events, "approval_resolved")["decision"], "withdrawn");
    assert_eq!(worker.exit_code().await, Some(0));
}

#[tokio::test]
async fn dispatcher_killed_while_it_waits_and_the_client_gone_too() {
    let world = Shaky::start().await;
    let process = world.app.dispatcher_process().await;
    world.dispatcher.lead_to(&process.url);
    let worker = world.worker();
    // The client that asked goes away as soon as it knows its ids.
    let request = asking(&world, "[[write]] a file", "default");
    let call = world.app.http.post(format!("{}/execute", process.url));
    let call = call.bearer_auth(world.app.key.expose()).json(&request);
    let answer = call.send().await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let run = Submitted {
        execution: header("x-execution-id").parse().unwrap(),
        session: header("x-session-id"),
    };
    drop(answer);
    let question = world.question(&run).await;
    process.kill().await;
    // Answered while no dispatcher that the worker knows is there.
    world
        .answer(&run, &question, json!({"decision": "allow"}))
        .await;
    world.dispatcher.lead_to(&world.app.dispatcher.url);
    let events = world.completed(&run, worker).await;
    assert!(has_hello(&world, &events).await);
}
