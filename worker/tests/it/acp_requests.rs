//! What an agent of the protocol asks of us: permissions, files, plans; with scripted agents in the
//! real sandbox.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;
use clawlink_shared::execution::PermissionMode;
use clawlink_worker::agents::desk::Answer;
use serde_json::json;

use crate::acp_run::{DONE, PERMISSION, READY, answered, heard, in_turn, play};
use crate::agent_job::Session;

#[tokio::test]
async fn permissions_are_given_once_when_everything_is_allowed() {
    let session = Session::new();
    let run = in_turn(&session, &format!("{PERMISSION}{DONE}"));
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(ended.end.failure, None);
    let outcome = &answered(&session, 0)["result"]["outcome"];
    assert_eq!(outcome["optionId"], "once");
    assert_eq!(ended.texts(EventType::AgentToolCall, "tool"), "write");
}

#[tokio::test]
async fn refused_steps_are_refused_and_the_words_become_a_prompt() {
    let session = Session::new();
    let again = r#"{"dir":"in","msg":{"id":3,"method":"session/prompt"}}"#;
    let steps = format!("{PERMISSION}{DONE}{again}{DONE}");
    let mut run = in_turn(&session, &steps);
    run.options.permission_mode = PermissionMode::Default;
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(ended.end.failure, None);
    let outcome = &answered(&session, 0)["result"]["outcome"];
    assert_eq!(outcome["optionId"], "no");
    let heard = heard(&session);
    let mut prompts = heard
        .iter()
        .filter(|message| message["method"] == "session/prompt");
    let second = prompts.nth(1).unwrap().to_string();
    assert!(second.contains("write was not permitted: "), "{second}");
}

#[tokio::test]
async fn indexing_for_a_vendor_is_refused_whatever_is_allowed() {
    let session = Session::new();
    let recording = include_str!("recordings/acp/auggie-write.jsonl");
    let run = play(&session, "auggie", recording);
    assert_eq!(run.finish(AgentKind::Auggie).await.end.failure, None);
    let outcome = &answered(&session, 0)["result"]["outcome"];
    assert_eq!(outcome["optionId"], "session-disable");
}

#[tokio::test]
async fn file_calls_stay_in_the_session() {
    let session = Session::new();
    let root = session.root.display().to_string();
    std::fs::write(session.outside().join("secret"), "outside-secret").unwrap();
    std::fs::write(session.work().join("in.txt"), "one\ntwo\nthree\n").unwrap();
    std::os::unix::fs::symlink(session.outside(), session.work().join("out")).unwrap();
    std::os::unix::fs::symlink("in.txt", session.work().join("link")).unwrap();
    let named_twice = session.work().join("twice");
    std::fs::write(session.outside().join("other"), "other").unwrap();
    std::fs::hard_link(session.outside().join("other"), &named_twice).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        session.work().join("pipe"),
        rustix::fs::Mode::from(0o666),
    )
    .unwrap();
    let outside = session.outside().join("secret").display().to_string();
    let read = |path: &str| json!({"method": "fs/read_text_file", "params": {"sessionId": "s", "path": path}});
    let write = |path: &str| json!({"method": "fs/write_text_file", "params": {"sessionId": "s", "path": path, "content": "written"}});
    let refused = [
        read(&outside),
        read("/etc/passwd"),
        read("in.txt"),
        read(&format!("{root}/work/../../secret")),
        read(&format!("{root}/work/out/secret")),
        read(&format!("{root}/work/link")),
        read(&format!("{root}/work/pipe")),
        read(&format!("{root}/work")),
        read(&root),
        write(&outside),
        write(&format!("{root}/work/out/secret")),
        write(&format!("{root}/work/out/new")),
        write(&format!("{root}/work/link")),
        write(&format!("{root}/work/pipe")),
        write(&format!("{root}/work/twice")),
        write(&format!("{root}/work/../../secret")),
    ];
    let mut part = read(&format!("{root}/work/in.txt"));
    part["params"]["line"] = json!(2);
    part["params"]["limit"] = json!(1);
    let allowed = [
        read(&format!("{root}/work/in.txt")),
        part,
        write(&format!("{root}/work/in.txt")),
        write(&format!("{root}/work/new/deep/file")),
    ];
    let mut steps = String::new();
    for (id, request) in refused.iter().chain(&allowed).enumerate() {
        let mut request = request.clone();
        request["jsonrpc"] = json!("2.0");
        request["id"] = json!(100 + id);
        steps += &format!("{}\n", json!({"dir": "out", "msg": request}));
        steps += &format!("{}\n", json!({"dir": "in", "msg": {"id": 100 + id}}));
    }
    let ended = in_turn(&session, &format!("{steps}{DONE}"))
        .finish(AgentKind::Opencode)
        .await;
    assert_eq!(ended.end.failure, None);
    let answer = |id: usize| answered(&session, 100 + id as u64);
    for (id, request) in refused.iter().enumerate() {
        assert!(answer(id)["error"].is_object(), "{request}: {}", answer(id));
    }
    let from = refused.len();
    assert_eq!(answer(from)["result"]["content"], "one\ntwo\nthree\n");
    assert_eq!(answer(from + 1)["result"]["content"], "two\n");
    for file in ["in.txt", "new/deep/file"] {
        let written = std::fs::read_to_string(session.work().join(file)).unwrap();
        assert_eq!(written, "written", "{file}");
    }
    let secret = std::fs::read_to_string(session.outside().join("secret")).unwrap();
    assert_eq!(secret, "outside-secret");
    let other = std::fs::read_to_string(session.outside().join("other")).unwrap();
    assert_eq!(other, "other");
    assert!(!session.outside().join("new").exists());
}

#[tokio::test]
async fn plan_mode_is_set_in_the_agents_own_words() {
    let mode = r#"{"id":"mode","category":"mode","options":[{"value":"build"},{"value":"plan"}]}"#;
    let steps = format!("{READY}{DONE}").replace(
        r#"{"sessionId":"conversation"}"#,
        &format!(r#"{{"sessionId":"conversation","configOptions":[{mode}]}}"#),
    );
    let set = r#"{"dir":"in","msg":{"id":9,"method":"session/set_config_option"}}
{"dir":"out","msg":{"jsonrpc":"2.0","id":9,"result":{}}}
"#;
    let prompt = r#"{"dir":"in","msg":{"id":3,"method":"session/prompt"}}"#;
    let steps = steps.replace(prompt, &format!("{set}{prompt}"));
    let session = Session::new();
    let mut run = play(&session, "opencode", &steps);
    run.options.permission_mode = PermissionMode::Plan;
    let ended = run.finish(AgentKind::Opencode).await;
    assert_eq!(ended.end.failure, None);
    // Nobody is there to approve it.
    let said = ended.texts(EventType::Message, "message");
    assert!(said.contains("The plan is not carried out"), "{said}");
    let heard = heard(&session);
    let set = heard
        .iter()
        .find(|message| message["method"] == "session/set_config_option");
    let expected = json!({"sessionId": "conversation", "configId": "mode", "value": "plan"});
    assert_eq!(set.unwrap()["params"], expected);
}

/// auggie's plan mode holds nothing back, so its requests are refused until the plan is approved.
#[tokio::test]
async fn nothing_is_permitted_before_a_plan_is_approved() {
    let modes = r#"{"currentModeId":"default","availableModes":[{"id":"default"},{"id":"ask"}]}"#;
    let prompt = r#"{"dir":"in","msg":{"id":3,"method":"session/prompt"}}"#;
    let set = r#"{"dir":"in","msg":{"id":9,"method":"session/set_mode"}}
{"dir":"out","msg":{"jsonrpc":"2.0","id":9,"result":{}}}
"#;
    let ready = READY
        .replace(
            r#""conversation"}"#,
            &format!(r#""conversation","modes":{modes}}}"#),
        )
        .replace(prompt, &format!("{set}{prompt}"));
    let later = PERMISSION.replace(r#""id":0"#, r#""id":1"#);
    let steps = format!("{ready}{PERMISSION}{DONE}{set}{prompt}{later}{DONE}");
    let session = Session::new();
    let mut run = play(&session, "auggie", &steps);
    run.options.permission_mode = PermissionMode::Plan;
    run.has_people = true;
    let mut running = run.start(AgentKind::Auggie).await;
    let plan = running.question().await;
    assert_eq!(plan["kind"], "plan", "{plan}");
    running.answer(&plan, Answer::Allow { for_session: false });
    let step = running.question().await;
    assert_eq!(step["kind"], "tool", "{step}");
    running.answer(&step, Answer::Allow { for_session: false });
    assert_eq!(running.finish().await.end.failure, None);
    let chosen = |id| answered(&session, id)["result"]["outcome"]["optionId"].clone();
    assert_eq!((chosen(0), chosen(1)), (json!("no"), json!("once")));
    let modes = heard(&session);
    let modes = modes
        .iter()
        .filter(|said| said["method"] == "session/set_mode");
    let modes: Vec<_> = modes.map(|said| said["params"]["modeId"].clone()).collect();
    assert_eq!(modes, ["ask", "default"]);
}
