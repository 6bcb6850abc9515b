//! Sessions as clients see them: listed, resumed, streamed, deleted, and only one's own.

use clawlink::auth::principal::KeyRole;
use clawlink_shared::event::EventType;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::TestApp;
use super::client::{Stream, append, finish, refusal, script};
use super::wait::eventually;

fn resume(session: impl std::fmt::Display) -> Value {
    json!({"userRequest": "again", "websiteSessionId": session.to_string()})
}

#[tokio::test]
async fn a_resumed_turn_inherits_but_never_credentials() {
    let test = TestApp::start().await;
    let mut request = script("first");
    request["github"] = json!({"repoUrl": "https://github.com/a/b", "branch": "dev",
        "accessToken": "ghp_x"});
    let first = test.accepted(&request).await;
    let second = test.accepted(&resume(first.session_id)).await;
    assert_eq!(second.session_id, first.session_id);
    let (turn, resuming, one, two): (i32, bool, Value, Value) = sqlx::query_as(
        "select two.turn, two.resuming, one.spec, two.spec from executions one, executions two
         where one.id = $1 and two.id = $2",
    )
    .bind(first.execution_id.0)
    .bind(second.execution_id.0)
    .fetch_one(test.db())
    .await
    .unwrap();
    assert_eq!((turn, resuming), (2, true));
    for field in [
        "agent",
        "repository",
        "workingBranch",
        "autoCommit",
        "sessionName",
    ] {
        assert_eq!(one[field], two[field], "{field}");
    }
    let (uuid, sealed): (Uuid, Vec<u8>) = sqlx::query_as(
        "select uuid, sealed from executions join credentials on execution_id = id where id = $1",
    )
    .bind(second.execution_id.0)
    .fetch_one(test.db())
    .await
    .unwrap();
    let opened = test.app().keys.open(uuid.as_bytes(), &sealed).unwrap();
    assert_eq!(opened, br#"{"agent":null,"gitToken":null,"env":{}}"#);

    let path = format!("/executions/{}/events", second.execution_id);
    let mut stream = Stream::open(test.get(&path)).await;
    let connected = stream.next().await.unwrap().json();
    assert_eq!(connected["resuming"], true);
    assert_eq!(connected["resumedFrom"], first.session_id.to_string());
}

#[tokio::test]
async fn what_contradicts_the_session_is_refused() {
    let test = TestApp::start().await;
    let mut request = script("first");
    request["github"] = json!({"repoUrl": "https://github.com/a/b"});
    let session = test.accepted(&request).await.session_id;
    let mut other = resume(session);
    other["github"] = json!({"repoUrl": "https://github.com/a/c", "branch": "x"});
    other["branchName"] = json!("y");
    let (status, problem) = refusal(test.execute(&other)).await;
    assert_eq!(status, 400);
    let fields: Vec<&Value> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| &fault["field"])
        .collect();
    assert_eq!(fields, ["github.repoUrl", "github.branch", "branchName"]);
    let mut same = resume(session);
    same["github"] = json!({"repoUrl": "https://GITHUB.com/a/b.git", "accessToken": "t"});
    test.accepted(&same).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_turns_get_numbers_of_their_own() {
    let test = TestApp::start().await;
    let session = test.accepted(&script("first")).await.session_id;
    let body = resume(session);
    futures::future::join_all((0..10).map(|_| test.accepted(&body))).await;
    let turns: Vec<(i32,)> = sqlx::query_as("select turn from executions order by turn")
        .fetch_all(test.db())
        .await
        .unwrap();
    assert_eq!(turns, (1..=11).map(|turn| (turn,)).collect::<Vec<_>>());
}

#[tokio::test]
async fn unknown_and_foreign_sessions_are_not_there() {
    let test = TestApp::start().await;
    let mine = test.accepted(&script("mine")).await;
    let (_, other) = test.key_for("other", KeyRole::Admin).await;
    let foreign = |method: reqwest::Method, path: String| {
        test.http
            .request(method, test.url(&path))
            .bearer_auth(other.expose())
    };
    let unknown = Uuid::new_v4();
    let (status, problem) = refusal(test.execute(&resume(unknown))).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("session_not_found"))
    );
    let request = foreign(reqwest::Method::POST, "/execute".into()).json(&resume(mine.session_id));
    let (status, problem) = refusal(request).await;
    assert_eq!(
        (status, &problem["error"]),
        (404, &json!("session_not_found"))
    );
    let (status, _) = refusal(test.execute(&resume("x/../../victim"))).await;
    assert_eq!(status, 400);

    let (get, post, delete) = (
        reqwest::Method::GET,
        reqwest::Method::POST,
        reqwest::Method::DELETE,
    );
    let (session, execution) = (mine.session_id, mine.execution_id);
    for (method, path) in [
        (get.clone(), format!("/sessions/{session}")),
        (get.clone(), format!("/sessions/{session}/stream")),
        (delete, format!("/sessions/{session}?force=true")),
        (get.clone(), format!("/executions/{execution}")),
        (get.clone(), format!("/executions/{execution}/events")),
        (post, format!("/executions/{execution}/cancel")),
        (get.clone(), format!("/sessions/{unknown}")),
    ] {
        let (status, _) = refusal(foreign(method, path.clone())).await;
        assert_eq!(status, 404, "{path}");
    }
    for malformed in [
        "/sessions/..%2f..",
        "/executions/99999999999999999999",
        "/executions/x",
    ] {
        let (status, _) = refusal(foreign(get.clone(), malformed.to_owned())).await;
        assert_eq!(status, 400, "{malformed}");
    }
    let list = foreign(reqwest::Method::GET, "/sessions".into())
        .send()
        .await
        .unwrap();
    let list: Value = list.json().await.unwrap();
    assert_eq!(list, json!({"count": 0, "sessions": []}));
}

#[tokio::test]
async fn lists_turn_pages_without_gap_or_repeat() {
    let test = TestApp::start().await;
    let mut made = Vec::new();
    for n in 0..7 {
        made.push(test.accepted(&script(&format!("session {n}"))).await);
    }
    let mut seen = Vec::new();
    let mut path = "/sessions?limit=3".to_owned();
    loop {
        let page: Value = test.get(&path).send().await.unwrap().json().await.unwrap();
        let sessions = page["sessions"].as_array().unwrap();
        assert_eq!(page["count"], sessions.len());
        seen.extend(
            sessions
                .iter()
                .map(|s| s["sessionId"].as_str().unwrap().to_owned()),
        );
        // A session that changes between two pages moves nowhere.
        test.accepted(&resume(made[3].session_id)).await;
        let Some(next) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/sessions?limit=3&cursor={next}");
    }
    let expected: Vec<String> = made
        .iter()
        .rev()
        .map(|s| s.session_id.to_string())
        .collect();
    assert_eq!(seen, expected);
    for bad in ["limit=0", "limit=9999", "limit=x", "cursor=zzz"] {
        let (status, _) = refusal(test.get(&format!("/sessions?{bad}"))).await;
        assert_eq!(status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_session_shows_its_executions_and_repository() {
    let test = TestApp::start().await;
    let mut request = script("one");
    request["github"] = json!({"repoUrl": "https://github.com/a/b", "branch": "dev"});
    let first = test.accepted(&request).await;
    finish(test.app(), first.execution_id).await;
    let second = test.accepted(&resume(first.session_id)).await;
    let path = format!("/sessions/{}", first.session_id);
    let shown: Value = test.get(&path).send().await.unwrap().json().await.unwrap();
    assert_eq!(shown["sessionName"], "one");
    assert_eq!(shown["provider"], "shell");
    assert_eq!(shown["storage"], "s3");
    assert_eq!(shown["turns"], 2);
    assert_eq!(shown["status"], "pending");
    assert_eq!(shown["github"]["repoUrl"], "https://github.com/a/b");
    assert_eq!(shown["github"]["branch"], "dev");
    let executions = shown["executions"].as_array().unwrap();
    assert_eq!(executions[0]["executionId"], first.execution_id.0);
    assert_eq!(executions[0]["status"], "completed");
    assert_eq!(executions[1]["executionId"], second.execution_id.0);
    assert!(executions[1]["queue"].is_object());
}

#[tokio::test]
async fn a_sessions_stream_replays_all_turns_and_follows_the_last() {
    let test = TestApp::start().await;
    let first = test.accepted(&script("one")).await;
    finish(test.app(), first.execution_id).await;
    let second = test.accepted(&resume(first.session_id)).await;
    let path = format!("/sessions/{}/stream", first.session_id);
    let mut stream = Stream::open(test.get(&path)).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stream.next().await.unwrap().id);
    }
    assert_eq!(ids, ["1.1", "1.2", "1.3", "2.1", "2.2"]);
    append(
        test.app(),
        second.execution_id,
        &[(EventType::AgentText, json!({"text": "x"}))],
    )
    .await;
    finish(test.app(), second.execution_id).await;
    let rest = stream.rest().await;
    assert_eq!(rest[0].id, "2.3");
    assert_eq!(rest[1].kind(), "completed");
    let resumed = Stream::open(test.get(&path).header("last-event-id", "1.2")).await;
    let resumed: Vec<String> = resumed
        .rest()
        .await
        .into_iter()
        .map(|event| event.id)
        .collect();
    assert_eq!(resumed, ["1.3", "2.1", "2.2", "2.3", "2.4"]);
    let after = Stream::open(test.get(&format!("{path}?after=2.4"))).await;
    assert_eq!(after.rest().await, []);

    let answer = test
        .get(&path)
        .header("accept", "application/x-ndjson")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    let kinds: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(
        kinds,
        [
            "connected",
            "queued",
            "completed",
            "connected",
            "queued",
            "agent_text",
            "completed"
        ]
    );
    let (status, _) = refusal(test.get(&format!("{path}?after=3"))).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn deleting_waits_for_the_end_or_cancels_first() {
    let test = TestApp::start().await;
    let first = test.accepted(&script("one")).await;
    let path = format!("/sessions/{}", first.session_id);
    let (status, problem) = refusal(test.delete(&path)).await;
    assert_eq!(
        (status, &problem["error"]),
        (409, &json!("session_running"))
    );
    finish(test.app(), first.execution_id).await;
    let answer: Value = test
        .delete(&path)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        answer,
        json!({"sessionId": first.session_id, "deleted": true})
    );
    let (status, _) = refusal(test.delete(&path)).await;
    assert_eq!(status, 404);
    let (status, _) = refusal(test.get(&format!("/executions/{}", first.execution_id))).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn force_cancels_what_has_not_ended() {
    let test = TestApp::start().await;
    let first = test.accepted(&script("one")).await;
    test.accepted(&resume(first.session_id)).await;
    let path = format!("/sessions/{}?force=true", first.session_id);
    let answer = test.delete(&path).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    eventually("nothing is left", async || {
        let (left,): (i64,) = sqlx::query_as(
            "select (select count(*) from sessions) + (select count(*) from executions)
                + (select count(*) from credentials) + (select count(*) from events)",
        )
        .fetch_one(test.db())
        .await
        .unwrap();
        (left == 0).then_some(())
    })
    .await;
}
