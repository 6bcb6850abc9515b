//! The real `codex` end to end: conversation, approvals, failures, stops, and its key.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::shaky::{Shaky, last};
use super::world::{World, event, said};
use crate::wait::eventually;

/// With characters that JSON, URLs and base64 spell differently.
const API_KEY: &str = "sk-proj-canary/in+the&coal=mine%25?";

/// How long anything of an agent may live after its execution ended.
const AFTERLIFE: Duration = Duration::from_secs(2);

/// A request for codex; without a repository there is nothing to commit.
pub(super) fn ask(prompt: &str) -> Value {
    json!({
        "codingAssistantProvider": "codex",
        "codingAssistantAuthentication": "sk-proj-test-credential",
        "userRequest": prompt,
        "providerOptions": {"model": "gpt-5-codex"},
    })
}

/// The command lines of processes that work below `disk`.
fn at_work(disk: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let below = processes.filter_map(|process| {
        let cwd = std::fs::read_link(process.path().join("cwd")).ok()?;
        cwd.starts_with(disk.join("workspace")).then_some(())?;
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    below.collect()
}

#[tokio::test]
async fn the_model_sees_the_earlier_turn_on_another_worker() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1\n")]).await.unwrap();
    let mut first = world.on_repository("app", "CodexSDK", "[[write]] first");
    first["providerOptions"] = json!({"model": "gpt-5-codex"});
    let (submitted, events) = world.run(first).await;
    let end = event(&events, "completed");
    let branch = end["branch"].as_str().unwrap();
    let tree = world.git.tree("app", branch).await.unwrap();
    assert!(tree.contains(&"100644 hello.txt".to_owned()), "{tree:?}");
    assert_eq!(end["usage"]["inputTokens"], 200);

    let mut second = ask("[[text]] second");
    second["websiteSessionId"] = json!(submitted.session);
    second["github"] = json!({"accessToken": world.git.token()});
    let (again, events) = world.run(second).await;
    assert_eq!(again.session, submitted.session);
    let end = event(&events, "completed");
    let result = end["result"].as_str().unwrap();
    assert!(result.contains("2 marked user turns"), "{result}");
    assert_eq!(end["usage"]["inputTokens"], 100, "this turn's alone");
    let calls = world.model.messages();
    let models: Vec<&Value> = calls.iter().map(|call| &call.body["model"]).collect();
    assert!(
        models.iter().all(|model| **model == "gpt-5-codex"),
        "{models:?}"
    );
}

#[tokio::test]
async fn a_denied_command_is_not_run_and_the_reason_reaches_the_model() {
    let world = Shaky::start().await;
    let worker = world.worker();
    let mut request = ask("[[write]] a file");
    request["providerOptions"]["permissionMode"] = json!("default");
    let run = world.submit(request).await;
    let question = world.question(&run).await;
    let body = json!({"decision": "deny", "message": "not in this directory"});
    world.answer(&run, &question, body).await;
    let events = world.completed(&run, worker).await;
    let result = event(&events, "agent_tool_result");
    assert_eq!(result["ok"], false, "{result}");
    let last = world.model.messages().pop().unwrap();
    let text = last.body["input"].to_string();
    assert!(text.contains("not in this directory"), "{text}");
}

#[tokio::test]
async fn what_the_model_refuses_has_a_code() {
    let world = World::start().await;
    for (prompt, code, is_retryable) in [
        ("[[err401]]", "auth_error", false),
        ("[[err429]]", "rate_limited", true),
        ("[[err500]]", "agent_error", false),
    ] {
        let worker = world.patient_worker(0);
        let submitted = world.submit(ask(prompt)).await;
        let events = world.events(submitted.execution).await;
        assert_eq!(worker.exit_code().await, Some(0));
        let error = event(&events, "error");
        assert_eq!(error["code"], code, "{error}");
        assert_eq!(error["retryable"], is_retryable, "{error}");
    }
}

#[tokio::test]
async fn silence_and_endless_answers_end_with_their_time() {
    let world = World::start().await;
    for prompt in ["[[stall]]", "[[endless]]"] {
        let mut request = ask(prompt);
        request["providerOptions"]["timeoutSeconds"] = json!(3);
        let (submitted, events) = world.run(request).await;
        assert_eq!(event(&events, "error")["code"], "timeout", "{prompt}");
        let mut next = ask("[[text]] go on");
        next["websiteSessionId"] = json!(submitted.session);
        let (_, events) = world.run(next).await;
        let result = event(&events, "completed")["result"].as_str().unwrap();
        assert!(result.contains("2 marked user turns"), "{prompt}: {result}");
    }
}

#[tokio::test]
async fn cancelled_inside_an_answer_or_a_tool_nothing_of_it_lives_on() {
    for (prompt, sign) in [("[[slow]]", "agent_text"), ("[[sleep]]", "agent_tool_call")] {
        let world = Shaky::start().await;
        let mut worker = world.worker();
        let run = world.submit(ask(prompt)).await;
        let path = format!("/executions/{}/events?limit=1000", run.execution);
        eventually("the agent is in it", async || {
            let call = world.app.get(&path).header("accept", "application/json");
            let body: Value = call.send().await.ok()?.json().await.ok()?;
            let events = body["events"].as_array()?;
            events
                .iter()
                .any(|event| event["type"] == sign)
                .then_some(())
        })
        .await;
        assert!(!at_work(worker.disk.path()).is_empty(), "{prompt}");
        let cancel = format!("/executions/{}/cancel", run.execution);
        assert_eq!(world.app.post(&cancel).send().await.unwrap().status(), 202);
        let events = world.end_of(&run).await;
        let ended = Instant::now();
        assert_eq!(last(&events)["type"], "cancelled", "{events:#?}");
        eventually("nothing of the agent is left", async || {
            at_work(worker.disk.path()).is_empty().then_some(())
        })
        .await;
        assert!(
            ended.elapsed() < AFTERLIFE,
            "{prompt}: {:?}",
            ended.elapsed()
        );
        assert_eq!(worker.ended().await, Some(0));
    }
}

#[tokio::test]
async fn a_codex_whose_tools_print_and_store_the_api_key() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let steal = "[[bash:env; env | base64 -w0; cat /proc/self/environ /proc/$PPID/environ | tr '\\0' '\\n'; \
                 cat ~/.codex/*.toml ~/.codex/auth.json; echo done > fine.txt]]";
    let mut request = world.on_repository("app", "codex", steal);
    request["codingAssistantAuthentication"] = json!(API_KEY);
    let (submitted, events) = world.run_and_search(request, API_KEY).await;
    let tool = event(&events, "agent_tool_result");
    assert!(
        tool["output"].to_string().contains("PATH="),
        "the tool ran: {tool}"
    );
    event(&events, "completed");
    let call = world.model.messages().pop().expect("a call of the model");
    assert_eq!(
        call.headers.get("authorization").map(String::as_str),
        Some(format!("Bearer {API_KEY}").as_str())
    );

    let mut next = ask("[[key]] say it");
    next["websiteSessionId"] = json!(submitted.session);
    next["codingAssistantAuthentication"] = json!(API_KEY);
    next["autoCommit"] = json!(false);
    let (_, events) = world.run_and_search(next, API_KEY).await;
    let whole: String = said(&events).concat();
    assert!(whole.contains("***"), "{events:#?}");
}
