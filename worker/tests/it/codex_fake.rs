//! A program in codex's place, for what the real one does only by chance.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use clawlink_shared::agent::AgentKind;
use clawlink_shared::event::EventType;

use crate::agent_job::{Run, Session};

/// An app-server whose first turn ends just before it hears what somebody says in it.
const DEAF: &str = r#"#!/usr/bin/env python3
import json, sys

if "--version" in sys.argv:
    print("codex-cli 0 fake")
    sys.exit()

def say(**message):
    print(json.dumps(message), flush=True)

def notify(method, **params):
    say(method=method, params={"threadId": "thread", **params})

def speak(words):
    item = {"type": "agentMessage", "id": "item", "text": words}
    notify("item/completed", item=item)

turns = 0
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if method == "thread/start":
        say(id=message["id"], result={"thread": {"id": "thread"}})
    elif method == "turn/start":
        turns += 1
        say(id=message["id"], result={})
        notify("turn/started", turn={"id": f"turn-{turns}"})
        if turns == 2:
            speak("heard " + params["input"][0]["text"])
            notify("turn/completed", turn={"id": "turn-2", "status": "completed"})
    elif method == "turn/steer":
        speak("done")
        notify("turn/completed", turn={"id": "turn-1", "status": "completed"})
        say(id=message["id"], error={"code": -32600, "message": "no active turn to steer"})
    elif "id" in message:
        say(id=message["id"], result={})
"#;

/// A job for that program.
fn fake(session: &Session, script: &str) -> Run {
    let directory = session.outside().join("agents");
    std::fs::create_dir(&directory).unwrap();
    let program = directory.join("codex");
    std::fs::write(&program, script).unwrap();
    for path in [&directory, &program] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let mut run = session.run("hello");
    run.environment.agent_dir = Some(directory);
    run.has_people = true;
    run
}

#[tokio::test]
async fn what_is_said_when_the_turn_has_just_ended_makes_another_turn() {
    let session = Session::new();
    let mut running = fake(&session, DEAF).start(AgentKind::Codex).await;
    running.say("look at the tests").await;
    let ended = running.finish().await;
    assert_eq!(ended.end.failure, None);
    assert_eq!(ended.end.result.as_deref(), Some("heard look at the tests"));
    assert_eq!(ended.texts(EventType::Message, "message"), "");
}
