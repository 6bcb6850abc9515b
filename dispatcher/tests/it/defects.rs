//! What earlier systems got wrong at these same calls, shown not to be here, where no other test
//! shows it by itself.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink::auth::principal::MemberRole;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::app::TestApp;
use super::client::{refusal, script};
use super::e2e::world::World;
use super::worker::Worker;

/// Words that only SQL and its driver say.
const SQL: [&str; 8] = [
    "select ",
    "insert ",
    "update ",
    "relation \"",
    "column \"",
    "constraint",
    "sqlx",
    "violates",
];

fn says_no_sql(text: &str) {
    let text = text.to_lowercase();
    let found = SQL.iter().find(|word| text.contains(*word));
    assert_eq!(found, None, "{text}");
}

#[tokio::test]
async fn errors_say_nothing_of_the_database() {
    let test = TestApp::start().await;
    let owner = test.member("default", MemberRole::Owner).await;
    let call =
        |method: Method, path: &str, body: Value| test.as_(&owner.token, method, path).json(&body);
    let huge = i64::MAX;
    // What a database would refuse.
    for request in [
        call(Method::POST, "/api/projects", json!({"name": "a\0b"})),
        call(
            Method::POST,
            "/api/tasks",
            json!({"projectId": huge, "title": "x"}),
        ),
        call(
            Method::POST,
            "/api/agents",
            json!({"name": "x", "type": "y", "config": {"a": "\0"}}),
        ),
        call(Method::POST, "/api/agents/1/skills", json!({"name": "x"})),
        call(Method::GET, "/api/tasks?q=%00", json!({})),
        call(Method::GET, "/api/tasks?dueFrom=9999999-01-01", json!({})),
        call(Method::GET, "/api/audit/events?from=-1", json!({})),
        call(
            Method::POST,
            "/api/devices",
            json!({"name": "x", "publicKey": "AA=="}),
        ),
        call(
            Method::POST,
            "/api/runtime/executions",
            json!({"taskId": huge}),
        ),
    ] {
        let (status, problem) = refusal(request).await;
        assert!(status < 500, "{problem}");
        says_no_sql(&problem.to_string());
    }
    // And when the database itself fails.
    let mut db = test.superuser().await;
    for (table, path) in [
        ("tasks", "/api/tasks"),
        ("agents", "/api/agents"),
        ("secrets", "/api/secrets"),
        ("policies", "/sessions"),
    ] {
        let away = format!("alter table {table} rename to {table}_away");
        sqlx::query(AssertSqlSafe(away))
            .execute(&mut db)
            .await
            .unwrap();
        clawlink::auth::forget(test.app(), clawlink::bus::RightsOf::Everyone);
        let (status, problem) = refusal(call(Method::GET, path, json!({}))).await;
        assert!(status >= 500, "{path}: {problem}");
        says_no_sql(&problem.to_string());
        assert!(
            !problem.to_string().contains(table) || path.contains(table),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn no_token_however_malformed_is_a_fault_of_ours() {
    let test = TestApp::start().await;
    let member = test.member("default", MemberRole::Viewer).await;
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let [head, claims, signature] = {
        let mut parts = member.token.split('.').map(str::to_owned);
        std::array::from_fn(|_| parts.next().unwrap())
    };
    let read = BASE64_URL_SAFE_NO_PAD.decode(&claims).unwrap();
    let mut raised: Value = serde_json::from_slice(&read).unwrap();
    let fields = raised.as_object_mut().unwrap();
    for role in fields.values_mut().filter(|value| **value == "viewer") {
        *role = json!("owner");
    }
    raised["tampered"] = json!(true);
    let none = encode(&json!({"alg": "none", "typ": "JWT"}));
    for token in [
        "a.b.c".to_owned(),
        "..".to_owned(),
        "....".to_owned(),
        "é".to_owned(),
        "x".repeat(2000),
        format!("{head}.{claims}."),
        format!("{head}.{claims}.{}", &signature[1..]),
        format!("{head}.{}.{signature}", encode(&json!({}))),
        format!("{head}.{}.{signature}", encode(&json!([]))),
        format!("{head}.{}.{signature}", encode(&raised)),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{}.{claims}.{signature}", encode(&json!({"alg": "RS256"}))),
    ] {
        for path in ["/sessions", "/api/auth/me", "/worker/claim"] {
            let method = match path {
                "/worker/claim" => Method::POST,
                _ => Method::GET,
            };
            let request = test.http.request(method, test.url(path));
            let header = [b"Bearer ".as_slice(), token.as_bytes()].concat();
            let request = request.header("authorization", header.as_slice());
            let request = request.header("x-clawlink-protocol", "1");
            let (status, _) = refusal(request).await;
            assert_eq!(status, 401, "{path}: {token:.40}");
        }
    }
}

#[tokio::test]
async fn a_refresh_token_is_no_access_and_gives_no_more_than_before() {
    let test = TestApp::start().await;
    let post = async |path: &str, body: Value| -> Value {
        let answer = test.http.post(test.url(path)).json(&body).send().await;
        answer.unwrap().json().await.unwrap()
    };
    // The first person runs the installation; the second is nobody in particular.
    for name in ["first", "second"] {
        let account = json!({"email": format!("{name}@example.org"), "username": name,
            "password": "correct horse"});
        post("/api/auth/web/register", account).await;
    }
    let login = json!({"email": "second@example.org", "password": "correct horse"});
    let signed_in = post("/api/auth/web/login", login).await;
    let refresh = signed_in["refreshToken"].as_str().unwrap();
    for path in ["/api/auth/me", "/sessions", "/api/tenants"] {
        let (status, _) = refusal(test.as_(refresh, Method::GET, path)).await;
        assert_eq!(status, 401, "{path}");
    }
    let web = signed_in["token"].as_str().unwrap();
    let request = test.http.post(test.url("/api/auth/refresh"));
    let (status, _) = refusal(request.json(&json!({"refreshToken": web}))).await;
    assert_eq!(status, 401, "a web token is no refresh token");
    let refreshed = post("/api/auth/refresh", json!({"refreshToken": refresh})).await;
    assert_eq!(refreshed["user"]["isPlatformAdmin"], false);
    let token = refreshed["token"].as_str().unwrap();
    let (status, _) = refusal(test.as_(token, Method::GET, "/api/admin/tenants")).await;
    assert_eq!(status, 403);
    let tenants = test.as_(token, Method::GET, "/api/tenants").send().await;
    let tenants: Value = tenants.unwrap().json().await.unwrap();
    assert_eq!(tenants["tenants"], json!([]));
}

#[tokio::test]
async fn a_session_id_is_never_a_path() {
    let test = TestApp::start().await;
    let victim = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let archive = held.upload(b"archive").await;
    let report = json!({"outcome": "completed", "lastN": 0, "archive": archive});
    assert_eq!(held.try_complete(&report).await.0, 200);
    for id in [
        format!("x/../../{}", victim.session),
        format!("../session-{}", victim.session),
        format!("{}/..", victim.session),
        format!("{}\0", victim.session),
        "x/..".to_owned(),
    ] {
        for field in ["resumeSessionId", "websiteSessionId"] {
            let mut body = script("true");
            body[field] = json!(id);
            let (status, problem) = refusal(test.execute(&body)).await;
            assert_eq!((status, &problem["field"]), (400, &json!(field)), "{id:?}");
        }
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (status, _) = refusal(test.delete(&format!("/sessions/{encoded}?force=true"))).await;
        assert_eq!(status, 400, "{id:?}");
    }
    let size = test.app().blobs.size(&archive.key).await.unwrap();
    assert_eq!(size, Some(7), "it is still there");
    test.resume(&victim).await;
}

#[tokio::test]
async fn what_an_agent_commits_by_itself_is_pushed_too() {
    let world = World::start().await;
    world.git.create_repo("app", &[("a", "1")]).await.unwrap();
    let script = "git='git -c user.name=A -c user.email=a@example.com'
        echo 1 > own.txt; git add own.txt; $git commit -qm 'By the agent'
        git checkout -q -b elsewhere; echo 2 > branch.txt; git add .; $git commit -qm 'On its own branch'
        echo 3 > left.txt";
    let (_, events) = world.run(world.on_repository("app", "shell", script)).await;
    let completed = events.last().unwrap();
    assert_eq!(completed["type"], "completed", "{events:#?}");
    let branch = completed["branch"].as_str().expect("a branch");
    let history = world.git.history("app", branch).await.unwrap();
    assert_eq!(
        history[1..],
        ["On its own branch", "By the agent", "First commit"]
    );
    assert_eq!(
        world.git.tree("app", branch).await.unwrap(),
        [
            "100644 a",
            "100644 branch.txt",
            "100644 left.txt",
            "100644 own.txt"
        ]
    );
    assert_eq!(world.git.branches("app").await.unwrap().len(), 2);
}

/// Somebody with a name who speaks the older runtime API.
struct Named<'a> {
    test: &'a TestApp,
    token: String,
}

impl Named<'_> {
    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.test.as_(&self.token, method, path)
    }

    async fn json(&self, request: RequestBuilder) -> Value {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

#[tokio::test]
async fn named_clients_may_what_their_role_may_and_what_they_did_outlives_a_dispatcher() {
    let test = TestApp::start_with(|settings| {
        settings.tuning.default_agent = Some("shell".to_owned());
    })
    .await;
    let member = test.member("default", MemberRole::Developer).await;
    let named = Named {
        test: &test,
        token: member.token.clone(),
    };
    let opened = named.call(Method::POST, "/api/runtime/sessions?user_id=u");
    let session = named.json(opened).await["session_id"].clone();
    let submit = named.call(Method::POST, "/api/runtime/tasks/submit");
    let submit = submit.json(&json!({"prompt": "true", "session_id": session}));
    let task = named.json(submit).await["task_id"].clone();
    let id = task.as_str().unwrap();
    let cancel = named.call(Method::POST, &format!("/api/runtime/tasks/{id}/cancel"));
    assert_eq!(named.json(cancel).await["success"], true);
    // Another dispatcher knows session and task, and the task stays cancelled.
    let second = test.second_dispatcher().await;
    for path in [
        format!("/api/runtime/sessions/{}", session.as_str().unwrap()),
        format!("/api/runtime/tasks/{id}/state"),
    ] {
        let request = test.http.get(format!("{}{path}", second.url));
        let shown = named.json(request.bearer_auth(&member.token)).await;
        if path.ends_with("state") {
            assert_eq!(
                (&shown["state"], &shown["success"]),
                (&json!("cancelled"), &json!(false))
            );
        }
    }
    second.stop().await;
    // A name for what never was is an answer, not a made-up task.
    let none = format!("/api/runtime/tasks/{}/state", Uuid::new_v4());
    let (status, _) = refusal(named.call(Method::GET, &none)).await;
    assert_eq!(status, 404);
    // A viewer's role says no.
    let viewer = test.member("default", MemberRole::Viewer).await;
    let submit = test.as_(&viewer.token, Method::POST, "/api/runtime/tasks/submit");
    assert_eq!(refusal(submit.json(&json!({"prompt": "x"}))).await.0, 403);
}

#[tokio::test]
async fn text_and_moments_that_nothing_can_hold_are_the_callers_fault() {
    let test = TestApp::start().await;
    let owner = test.member("default", MemberRole::Owner).await;
    let workspace = owner.workspace;
    let call = |method: Method, path: &str| test.as_(&owner.token, method, path);
    // Ten thousand years after our era, as soon as it is told in UTC.
    let late = "9999-12-31T23:59:59-05:00";
    let keys = format!("/api/tenants/{workspace}/keys");
    // The oldest id that there could be, as a cursor: "n:-9223372036854775808".
    let cursor = BASE64_URL_SAFE_NO_PAD.encode(format!("n:{}", i64::MIN));
    for request in [
        call(Method::DELETE, "/api/secrets/%00"),
        call(Method::GET, "/api/audit/events?actor=%00"),
        call(Method::GET, "/api/audit/events?resourceId=a%00b"),
        call(Method::GET, &format!("/api/audit/events?from={late}")),
        call(Method::GET, &format!("/api/tasks?cursor={cursor}")),
        call(Method::POST, &keys).json(&json!({"name": "x", "role": "ci", "expiresAt": late})),
        call(Method::POST, "/api/policies").json(&json!({
            "resourceKind": "agent", "resource": "shell", "expiresAt": late,
        })),
    ] {
        let (status, problem) = refusal(request).await;
        assert_eq!(
            (status, &problem["error"]),
            (400, &json!("invalid_request")),
            "{problem}"
        );
    }
}
