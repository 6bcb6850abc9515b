//! Reading the log: both generations, filters, pages, isolation, the export.

use clawlink::audit::{self, CLIENT_SESSION, Entry, Outcome};
use clawlink::auth::principal::KeyRole;
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{actor, all_chained, workspace, write};
use crate::app::TestApp;
use crate::client::refusal;

struct Reader {
    test: TestApp,
    key: Secret,
}

impl Reader {
    async fn start() -> Self {
        let test = TestApp::start().await;
        let (_, key) = test.key_for("default", KeyRole::Admin).await;
        Self { test, key }
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        let request = self.test.http.get(self.test.url(path));
        request.bearer_auth(self.key.expose())
    }

    /// A page and its next cursor.
    async fn page(&self, path: &str) -> (Vec<Value>, Option<String>) {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let next = answer.headers().get("x-next-cursor").cloned();
        assert_eq!(next.is_some(), answer.headers().contains_key("link"));
        let next = next.map(|next| next.to_str().unwrap().to_owned());
        (answer.json().await.unwrap(), next)
    }

    async fn events(&self, query: &str) -> Vec<Value> {
        self.page(&format!("/api/audit/events{query}")).await.0
    }
}

fn numbers(events: &[Value]) -> Vec<i64> {
    let number = |event: &Value| event["resourceId"].as_str()?.parse().ok();
    events.iter().filter_map(number).collect()
}

#[tokio::test]
async fn the_portal_reads_bare_arrays_in_its_own_words() {
    let reader = Reader::start().await;
    let db = reader.test.db();
    let workspace = workspace(db).await;
    let user = Uuid::new_v4();
    write(
        &mut db.acquire().await.unwrap(),
        workspace,
        &format!("user:{user}"),
        7,
    )
    .await;
    let events = reader.events("").await;
    let event = &events[0];
    assert_eq!(events.len(), 1);
    assert_eq!(event["tenantId"], workspace.0);
    assert_eq!(event["userId"], user.to_string());
    assert_eq!(event["eventType"], "task_created");
    assert_eq!(
        (&event["resourceType"], &event["resourceId"]),
        (&json!("task"), &json!("7"))
    );
    let metadata: Value = serde_json::from_str(event["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(metadata, json!({"n": 7}));
    let created = event["createdAt"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.len() == 24, "{created}");
    assert!(event["id"].is_i64());
    let activity = reader
        .page(&format!("/api/audit/users/{user}/activity?limit=50"))
        .await;
    assert_eq!(activity.0, events);
    let nobody = reader
        .page(&format!("/api/audit/users/{}/activity", Uuid::new_v4()))
        .await;
    assert!(nobody.0.is_empty());
}

#[tokio::test]
async fn filters_and_pages_find_each_entry_once() {
    let reader = Reader::start().await;
    let db = reader.test.db();
    let workspace = workspace(db).await;
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    let mut conn = db.acquire().await.unwrap();
    for n in 1..=10 {
        let user = if n % 2 == 0 { a } else { b };
        write(&mut conn, workspace, &format!("user:{user}"), n).await;
    }
    let by = actor("key:1");
    let denied = Entry {
        outcome: Outcome::Denied,
        ..Entry::done(workspace, &by, "secret.read", ("secret", "11".to_owned()))
    };
    audit::record(&mut conn, &denied).await.unwrap();
    drop(conn);
    for (query, expected) in [
        (format!("?userId={a}"), vec![10, 8, 6, 4, 2]),
        (format!("?user_id={b}&limit=2"), vec![9, 7]),
        ("?actor=key:1".to_owned(), vec![11]),
        ("?eventType=secret_read".to_owned(), vec![11]),
        ("?type=secret.read".to_owned(), vec![11]),
        ("?event_type=task_created&limit=1".to_owned(), vec![10]),
        ("?resourceType=secret".to_owned(), vec![11]),
        ("?resource_type=task&resourceId=3".to_owned(), vec![3]),
        ("?outcome=denied".to_owned(), vec![11]),
        ("?from=2100-01-01T00:00:00Z".to_owned(), vec![]),
        ("?to=2020-01-01T00:00:00Z".to_owned(), vec![]),
        ("?limit=3&offset=2".to_owned(), vec![9, 8, 7]),
        ("?offset=11".to_owned(), vec![]),
    ] {
        assert_eq!(numbers(&reader.events(&query).await), expected, "{query}");
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/audit/events?limit=4&outcome=allowed{cursor}");
        let (events, next) = reader.page(&path).await;
        found.extend(numbers(&events));
        let Some(next) = next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, (1..=10).rev().collect::<Vec<i64>>());
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "offset=-1",
        "offset=100001",
        "cursor=x",
        "userId=5",
        "outcome=maybe",
        "from=yesterday",
    ] {
        let (status, problem) = refusal(reader.get(&format!("/api/audit/events?{bad}"))).await;
        assert_eq!(
            (status, &problem["error"]),
            (400, &json!("invalid_request")),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn no_workspace_reads_anothers_log() {
    let reader = Reader::start().await;
    let (other, foreign) = reader.test.key_for("other", KeyRole::Admin).await;
    let db = reader.test.db();
    let own = workspace(db).await;
    let user = Uuid::new_v4();
    let mut conn = db.acquire().await.unwrap();
    for (workspace, n) in [(own, 1), (other, 2), (own, 3), (other, 4)] {
        write(&mut conn, workspace, &format!("user:{user}"), n).await;
    }
    // Of no workspace: for nobody's list.
    let by = actor(&format!("user:{user}"));
    let login = Entry {
        workspace: None,
        ..Entry::done(own, &by, "user.signed_in", ("user", "5".to_owned()))
    };
    audit::record(&mut conn, &login).await.unwrap();
    drop(conn);
    let activity = format!("/api/audit/users/{user}/activity");
    for (key, expected) in [(&reader.key, [3, 1]), (&foreign, [4, 2])] {
        for path in ["/api/audit/events", &activity] {
            let request = reader.test.http.get(reader.test.url(path));
            let answer = request.bearer_auth(key.expose()).send().await.unwrap();
            let events: Vec<Value> = answer.json().await.unwrap();
            assert_eq!(numbers(&events), expected, "{path}");
        }
        let export = reader.test.http.get(reader.test.url("/api/audit/export"));
        let lines = export.bearer_auth(key.expose()).send().await.unwrap();
        let lines = lines.text().await.unwrap();
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut found = numbers(&lines);
        found.reverse();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn an_export_has_every_entry_as_the_table_has_it() {
    let reader = Reader::start().await;
    let workspace = workspace(reader.test.db()).await;
    // More than two pages.
    sqlx::query(
        r#"insert into audit_entries (workspace_id, actor, address, action, resource_type, resource_id, outcome, details)
           select $1, 'key:' || n % 3, null, 'task.updated', 'task', n::text, 'allowed',
                jsonb_build_object('n', n, 'text', e'line\nand "quote"')
           from generate_series(1, 1203) n"#,
    )
    .bind(workspace.0)
    .execute(reader.test.db())
    .await
    .unwrap();
    all_chained(&reader.test).await;
    let answer = reader.get("/api/audit/export").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let text = answer.text().await.unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let table: Vec<Value> = sqlx::query_scalar(
        r#"select jsonb_build_object('id', e.id,
                'at', to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                'workspaceId', e.workspace_id, 'actor', e.actor, 'address', e.address,
                'action', e.action, 'resourceType', e.resource_type, 'resourceId', e.resource_id,
                'outcome', e.outcome, 'details', e.details, 'position', c.position,
                'hash', rtrim(translate(encode(c.hash, 'base64'), '+/', '-_'), '='))
           from audit_entries e join audit_chain c on c.entry_id = e.id
           where e.action = 'task.updated' order by e.id"#,
    )
    .fetch_all(reader.test.db())
    .await
    .unwrap();
    assert_eq!(lines.len(), 1203);
    assert_eq!(lines, table);
    let some = reader
        .get("/api/audit/export?actor=key:1")
        .send()
        .await
        .unwrap();
    assert_eq!(some.text().await.unwrap().lines().count(), 401);
    let events = reader.events("?type=audit.exported").await;
    assert_eq!(events.len(), 2, "exports are deeds");
}

#[tokio::test]
async fn what_was_done_in_a_client_session_is_found_by_it() {
    let reader = Reader::start().await;
    let db = reader.test.db();
    let workspace = workspace(db).await;
    let session = Uuid::new_v4();
    let mut conn = db.acquire().await.unwrap();
    write(&mut conn, workspace, &format!("client:{session}"), 1).await;
    let by = actor("user:7b7e1c1e-0000-4000-8000-000000000000");
    let entry = Entry::done(
        workspace,
        &by,
        "execution.submitted",
        ("execution", "2".to_owned()),
    );
    let entry = entry.with(json!({CLIENT_SESSION: session}));
    audit::record(&mut conn, &entry).await.unwrap();
    write(&mut conn, workspace, "key:1", 3).await;
    drop(conn);
    let path = format!("/api/audit/sessions/{session}/activity");
    assert_eq!(numbers(&reader.page(&path).await.0), [2, 1]);
    // In the older words an execution is a task.
    assert_eq!(
        numbers(&reader.events("?event_type=task.submitted").await),
        [2]
    );
    // A credential decides: with one, a client is of the newer generation whatever it adds.
    let (events, _) = reader
        .page(&format!("{path}?auth_session_id={session}"))
        .await;
    assert!(events[0]["eventType"].is_string() && events[0]["event_type"].is_null());
}
