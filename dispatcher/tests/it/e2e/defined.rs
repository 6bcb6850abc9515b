//! Agents that a workspace defines, end to end: a command that speaks the Agent Client Protocol,
//! and an address.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use clawlink::auth::principal::KeyRole;
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{World, event, said};

/// An agent in a few lines: it counts its conversation's turns in a folder of its own.
const AGENT: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":"%s","result":%s}\n' "$id" "$1"; }
turns=$HOME/.own-agent/turns
while read -r line; do
  id=$(sed -n 's/.*"id":"\([^"]*\)".*/\1/p' <<<"$line")
  case $line in
    *'"initialize"'*) answer '{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}' ;;
    *'"session/new"'*) mkdir -p "${turns%/*}"; echo 0 >"$turns"; answer '{"sessionId":"own-1"}' ;;
    *'"session/load"'*) [ -e "$turns" ] && answer '{}' ;;
    *'"session/prompt"'*)
      echo $(($(cat "$turns") + 1)) >"$turns"
      text="turn $(cat "$turns"), a key of ${#OWN_KEY} characters, $OWN_SETTING"
      printf '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"own-1","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"%s"}}}}\n' "$text"
      answer '{"stopReason":"end_turn"}' ;;
  esac
done"#;

impl World {
    /// A call of somebody who may define agents.
    async fn manage(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let (_, key) = self.app.key_for("default", KeyRole::Admin).await;
        let request = self.app.http.request(method, self.app.url(path));
        let request = request.bearer_auth(key.expose()).json(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub(super) async fn store_agent(&self, agent: Value) -> i64 {
        let (status, agent) = self.manage(Method::POST, "/api/agents", &agent).await;
        assert_eq!(status, 201, "{agent}");
        agent["id"].as_i64().unwrap()
    }

    /// The status and fault of a request that is refused.
    async fn refused(&self, body: Value) -> (u16, Value) {
        let answer = self.app.post("/execute").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

fn command() -> Value {
    json!({
        "name": "own", "type": "acp", "apiKey": "own-secret-value-1234",
        "config": {
            "command": "bash", "args": ["-c", AGENT], "env": {"OWN_SETTING": "set"},
            "credentialVariable": "OWN_KEY", "stateFolder": ".own-agent",
        },
    })
}

#[tokio::test]
async fn a_stored_command_runs_and_continues_on_another_worker() {
    let world = World::start().await;
    let id = world.store_agent(command()).await;
    let (first, events) = world
        .run(json!({"agentId": id, "userRequest": "one"}))
        .await;
    let end = event(&events, "completed");
    assert_eq!(end["result"], "turn 1, a key of 21 characters, set");

    // A script between the turns keeps the conversation's folder.
    let script = json!({
        "websiteSessionId": first.session, "codingAssistantProvider": "shell",
        "userRequest": "echo between",
    });
    let (_, events) = world.run(script).await;
    assert_eq!(said(&events), ["between"]);

    let again = json!({"websiteSessionId": first.session, "userRequest": "two"});
    let (second, events) = world.run(again).await;
    assert_eq!(second.session, first.session);
    let end = event(&events, "completed");
    assert_eq!(end["result"], "turn 2, a key of 21 characters, set");
}

#[tokio::test]
async fn what_cannot_run_is_refused_at_once() {
    let world = World::start().await;
    let id = world.store_agent(command()).await;
    let ask = |agent: Value| json!({"agentId": agent, "userRequest": "one"});
    let (status, _) = world.refused(ask(json!(999_999))).await;
    assert_eq!(status, 404);
    let (status, fault) = world.refused(ask(json!("claude"))).await;
    assert_eq!((status, &fault["field"]), (400, &json!("agentId")));
    let mut other = ask(json!(id));
    other["codingAssistantProvider"] = json!("claude");
    let (status, fault) = world.refused(other).await;
    assert_eq!(
        (status, &fault["field"]),
        (400, &json!("codingAssistantProvider"))
    );
    let nothing = json!({"codingAssistantProvider": "acp", "userRequest": "one"});
    let (status, fault) = world.refused(nothing).await;
    assert_eq!((status, &fault["field"]), (400, &json!("agentId")));

    let path = format!("/api/agents/{id}");
    let (status, _) = world.manage(Method::DELETE, &path, &json!({})).await;
    assert_eq!(status, 200);
    let (status, _) = world.refused(ask(json!(id))).await;
    assert_eq!(status, 403);

    for config in [
        json!({"command": "/bin/sh"}),
        json!({"command": "bash", "env": {"LD_PRELOAD": "x"}}),
    ] {
        let agent = json!({"name": "bad", "type": "acp", "config": config});
        let (status, fault) = world.manage(Method::POST, "/api/agents", &agent).await;
        assert_eq!(status, 400, "{fault}");
    }
}

/// What an address got: the bearer token and the body, for each request.
type Got = Arc<Mutex<Vec<(String, Value)>>>;

async fn answer(State(got): State<Got>, headers: HeaderMap, Json(body): Json<Value>) -> String {
    let bearer = headers["authorization"].to_str().unwrap().to_owned();
    let records = [
        json!({"type": "agent_text", "text": format!("heard {}", body["text"]), "delta": true}),
        json!({"type": "completed", "result": "done", "conversation": "there-1"}),
    ];
    got.lock().unwrap().push((bearer, body));
    records.map(|record| format!("{record}\n")).concat()
}

#[tokio::test]
async fn a_stored_address_gets_the_request_and_the_conversations_name() {
    let world = World::start().await;
    let got = Got::default();
    let router = Router::new().route("/agent", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum::serve(listener, router.with_state(got.clone()));
    tokio::spawn(async move { server.await });
    let agent = json!({
        "name": "there", "type": "http", "endpoint": format!("http://{address}/agent"),
        "apiKey": "http-secret-value-1234",
    });
    let id = world.store_agent(agent).await;
    let (first, events) = world
        .run(json!({"agentId": id, "userRequest": "one"}))
        .await;
    assert_eq!(event(&events, "completed")["result"], "done");
    assert_eq!(said(&events), ["heard \"one\""]);
    let again = json!({"websiteSessionId": first.session, "userRequest": "two"});
    world.run(again).await;
    let got = got.lock().unwrap();
    let bearer = "Bearer http-secret-value-1234";
    assert!(got.iter().all(|(token, _)| token == bearer));
    let conversations: Vec<&Value> = got.iter().map(|(_, body)| &body["conversation"]).collect();
    assert_eq!(conversations, [&Value::Null, &json!("there-1")]);
}
