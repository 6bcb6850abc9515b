//! People and an agent that speaks the Agent Client Protocol: steps that they allow, plans that
//! they judge, words in mid-run; and limits of its model.
//!
//! The agent is a script, so that its every answer is known; the real ones are run by the
//! worker's own tests.

use serde_json::{Value, json};

use super::approvals::has_hello;
use super::shaky::{Shaky, last, work_of};
use super::world::{Submitted, World, event, said};

/// An agent that asks before it writes `hello.txt`, makes plans, and says what it hears.
const AGENT: &str = r#"
import json, os, sys, time

def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

def update(**fields):
    say(method="session/update", params={"sessionId": "own-1", "update": fields})

def text(words):
    update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": words})

def hear():
    line = sys.stdin.readline()
    return json.loads(line) if line else sys.exit()

steps = 0

def write():
    global steps
    steps += 1
    call = {"toolCallId": str(steps), "title": "write", "rawInput": {"path": "hello.txt"}}
    kinds = ["allow_always", "allow_once", "reject_once"]
    options = [{"optionId": kind, "kind": kind, "name": kind} for kind in kinds]
    ask = {"sessionId": "own-1", "toolCall": call, "options": options}
    say(id="ask", method="session/request_permission", params=ask)
    answer = hear()
    while answer.get("id") != "ask":
        answer = hear()
    chosen = answer["result"]["outcome"].get("optionId", "cancelled")
    if chosen.startswith("allow"):
        open("hello.txt", "w").close()
    status = "completed" if chosen.startswith("allow") else "failed"
    update(sessionUpdate="tool_call_update", toolCallId=str(steps), status=status)
    text(chosen + " ")

def prompt(words):
    if mode == "plan":
        text("1. Write hello.txt (" + words + ").")
    elif words == "write" or "approved" in words:
        write()
    elif words == "write twice":
        write()
        write()
    elif words == "wait":
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.02)
        text("waited")
    else:
        text("heard " + words)

modes = [{"id": name, "name": name} for name in ["default", "plan"]]
state = {"modes": {"currentModeId": "default", "availableModes": modes}}
refusals = {"limit": "429 Too Many Requests", "fail": "500 Internal Server Error"}
mode = "default"
while True:
    message = hear()
    method, params = message.get("method"), message.get("params")
    result, error = {}, None
    if method == "initialize":
        result = {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}}
    elif method == "session/new":
        result = {"sessionId": "own-1", **state}
    elif method == "session/load":
        result = state
    elif method == "session/set_mode":
        mode = params["modeId"]
    elif method == "session/prompt":
        words = " ".join(block["text"] for block in params["prompt"])
        if words in refusals:
            error = {"code": -32603, "message": refusals[words]}
        else:
            prompt(words)
            result = {"stopReason": "end_turn"}
    if "id" in message:
        say(id=message["id"], **({"error": error} if error else {"result": result}))
"#;

impl World {
    async fn own_agent(&self) -> i64 {
        self.store_agent(json!({
            "name": "own", "type": "acp", "config": {"command": "python3", "args": ["-c", AGENT]},
        }))
        .await
    }
}

/// A request to the stored agent, on a repository.
fn asking(world: &Shaky, agent: i64, prompt: &str, mode: &str) -> Value {
    let url = format!("{}/app.git", world.git_gate.url());
    json!({
        "agentId": agent, "userRequest": prompt, "providerOptions": {"permissionMode": mode},
        "github": {"repoUrl": url, "accessToken": world.git.token()},
    })
}

/// The ways in which questions were answered.
fn answerers(events: &[Value]) -> Vec<&str> {
    let resolved = events
        .iter()
        .filter(|event| event["type"] == "approval_resolved");
    resolved.filter_map(|event| event["by"].as_str()).collect()
}

#[tokio::test]
async fn an_allowed_step_is_taken_and_one_allowed_for_the_session_not_asked_again() {
    let world = Shaky::start().await;
    let agent = world.own_agent().await;
    for (prompt, decision, steps) in [
        ("write", "allow", 1),
        ("write twice", "allow_for_session", 2),
    ] {
        let worker = world.worker();
        let run = world.submit(asking(&world, agent, prompt, "default")).await;
        let question = world.question(&run).await;
        assert_eq!(
            (&question["tool"], &question["kind"]),
            (&json!("write"), &json!("tool"))
        );
        assert_eq!(world.execution(run.execution).await["status"], "waiting");
        world
            .answer(&run, &question, json!({ "decision": decision }))
            .await;
        let events = world.completed(&run, worker).await;
        assert!(has_hello(&world, &events).await);
        // Never the agent's own lasting option: nobody here knows how much that allows.
        let said = said(&events).concat();
        assert_eq!(said.matches("allow_once").count(), steps, "{said}");
        assert!(!said.contains("allow_always"), "{said}");
        let answerers = answerers(&events);
        assert_eq!(answerers[1..] == ["session"], decision != "allow");
    }
}

#[tokio::test]
async fn a_refusal_with_words_is_the_next_prompt_and_one_without_is_none() {
    let world = Shaky::start().await;
    let agent = world.own_agent().await;
    for (words, result) in [
        (
            Some("use another name"),
            "heard write was not permitted: use another name",
        ),
        (None, "reject_once"),
    ] {
        let worker = world.worker();
        let run = world
            .submit(asking(&world, agent, "write", "default"))
            .await;
        let question = world.question(&run).await;
        let body = json!({"decision": "deny", "message": words});
        world.answer(&run, &question, body).await;
        let events = world.completed(&run, worker).await;
        assert!(!has_hello(&world, &events).await);
        let said = last(&events)["result"].as_str().unwrap();
        assert!(said.ends_with(result), "{said}");
        assert_eq!(event(&events, "agent_tool_result")["ok"], false);
    }
}

#[tokio::test]
async fn a_plan_is_sent_back_approved_and_carried_out_step_by_step() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let agent = world.own_agent().await;
    let run = world.submit(asking(&world, agent, "write", "plan")).await;
    let plan = world.question(&run).await;
    assert_eq!(plan["kind"], "plan");
    assert_eq!(plan["input"]["plan"], "1. Write hello.txt (write).");
    let back = json!({"decision": "deny", "message": "use another name"});
    world.answer(&run, &plan, back).await;
    let revised = world.question(&run).await;
    let text = revised["input"]["plan"].as_str().unwrap();
    assert!(text.contains("use another name"), "{text}");
    let allow = json!({"decision": "allow"});
    world.answer(&run, &revised, allow.clone()).await;
    let step = world.question(&run).await;
    assert_eq!(step["kind"], "tool");
    world.answer(&run, &step, allow).await;
    let events = world.completed(&run, worker).await;
    assert!(has_hello(&world, &events).await);
}

#[tokio::test]
async fn a_plan_that_is_refused_without_a_word_is_the_result() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let agent = world.own_agent().await;
    let run = world.submit(asking(&world, agent, "write", "plan")).await;
    let plan = world.question(&run).await;
    world.answer(&run, &plan, json!({"decision": "deny"})).await;
    let events = world.completed(&run, worker).await;
    assert_eq!(last(&events)["result"], plan["input"]["plan"]);
    assert!(!has_hello(&world, &events).await);
}

#[tokio::test]
async fn a_message_in_mid_run_is_the_next_prompt_of_the_same_run() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let agent = world.own_agent().await;
    let request = json!({"agentId": agent, "userRequest": "wait"});
    let run = world.submit(request).await;
    let work = work_of(&worker, &run);
    crate::wait::eventually("the agent waits", async || {
        work.join("begun").exists().then_some(())
    })
    .await;
    world.state(run.execution, "running").await;
    let sent = world.say(&run, "look at the tests").await;
    assert_eq!(sent["delivered"], "running");
    world.tells(&run, "user_message").await;
    std::fs::write(work.join("go"), "").unwrap();
    let events = world.completed(&run, worker).await;
    assert_eq!(
        event(&events, "user_message")["messageId"],
        sent["messageId"]
    );
    assert_eq!(last(&events)["result"], "heard look at the tests");
    assert_eq!(world.turns(&run).await, 1);
    // After the run nobody hears it: then it is a turn of its own.
    let worker = world.worker();
    let sent = world.say(&run, "and at the rest").await;
    assert_eq!(sent["delivered"], "next_turn");
    let next = Submitted {
        execution: sent["executionId"].as_i64().unwrap(),
        session: run.session.clone(),
    };
    let events = world.completed(&next, worker).await;
    assert_eq!(last(&events)["result"], "heard and at the rest");
}

#[tokio::test]
async fn a_limit_of_its_model_is_waited_out_and_shown() {
    let world = World::start().await;
    let worker = world.patient_worker(60);
    let agent = world.own_agent().await;
    let run = world
        .submit(json!({"agentId": agent, "userRequest": "limit"}))
        .await;
    let events = world.events(run.execution).await;
    assert_eq!(worker.exit_code().await, Some(0));
    let told = event(&events, "message")["message"].as_str().unwrap();
    assert!(told.contains("the agent goes on at 20"), "{told}");
    let result = event(&events, "completed")["result"].as_str().unwrap();
    assert!(result.starts_with("heard The model's limit"), "{result}");
}

#[tokio::test]
async fn what_its_model_refuses_for_longer_has_a_code() {
    let world = World::start().await;
    let agent = world.own_agent().await;
    for (prompt, code, is_retryable) in [
        ("limit", "rate_limited", true),
        ("fail", "agent_error", false),
    ] {
        let worker = world.patient_worker(0);
        let run = world
            .submit(json!({"agentId": agent, "userRequest": prompt}))
            .await;
        let events = world.events(run.execution).await;
        assert_eq!(worker.exit_code().await, Some(0));
        let error = event(&events, "error");
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["retryable"], is_retryable, "{error}");
    }
}
