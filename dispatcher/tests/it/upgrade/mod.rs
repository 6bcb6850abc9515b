//! A database that an earlier release left behind, under this one, and the earlier release
//! beside it.
//!
//! The schema is taken to the last migration of each earlier release, every table of it gets
//! rows, the missing migrations follow, and this release serves what is there. An earlier binary
//! runs in [`rolling`](super::rolling), where it can be built. Here of each the SQL is kept that it
//! sends, and every statement must still be taken by Postgres on the new schema, with the same
//! columns and types; and no column that it leaves out may be demanded. What that does not show
//! is a rule that a migration puts on values that an earlier release writes: a check or trigger
//! that is new must be argued where it is made.

use std::collections::BTreeMap;

use clawlink::MIGRATOR;
use clawlink::audit::verify::verify;
use clawlink::secrets::Keys;
use clawlink_shared::secret::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Column, Connection, Executor, PgConnection, SqlSafeStr, Statement, TypeInfo,
};

use super::app::{Database, SECRET_KEY, TestApp, postgres_server};
use super::jobs::Job;
use super::wait::eventually;
use super::worker::Worker;

/// An earlier release.
struct Release {
    /// Its last migration.
    schema: i64,
    /// Its rows, beside those of the releases before it.
    rows: &'static str,
    /// What it sends to Postgres: JSON, one statement on each line.
    statements: &'static str,
}

const RELEASES: [Release; 2] = [
    Release {
        schema: 20_261_120_100_000,
        rows: include_str!("rows_20261120100000.sql"),
        statements: include_str!("statements_20261120100000.jsonl"),
    },
    Release {
        schema: 20_261_120_150_500,
        rows: include_str!("rows_20261120150500.sql"),
        statements: include_str!("statements_20261120150500.jsonl"),
    },
];

/// Tables that an earlier release has empty where nothing has run yet.
const MAY_BE_EMPTY: [&str; 1] = ["audit_chain"];

/// The key of the rows.
const KEY: &str = "clawlink_upgraded";

/// A statement with the columns that it answers, by name and type.
#[derive(Deserialize)]
struct Sent {
    sql: String,
    columns: Vec<(String, String)>,
}

/// All rows of all tables.
type Rows = BTreeMap<String, Vec<Value>>;

async fn rows(db: &mut PgConnection) -> Rows {
    let tables: Vec<String> = sqlx::query_scalar(
        "select table_name::text from information_schema.tables
         where table_schema = 'public' and table_name <> '_sqlx_migrations'",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let mut all = Rows::new();
    for table in tables {
        let text = format!("select to_jsonb(t) from {table} t order by to_jsonb(t)::text");
        let rows = sqlx::query_scalar(AssertSqlSafe(text));
        all.insert(table, rows.fetch_all(&mut *db).await.unwrap());
    }
    all
}

/// A database as that release left it.
async fn left_by(last: usize) -> (Database, PgConnection) {
    let database = Database::create_empty(&postgres_server()).await;
    let mut db = PgConnection::connect(&database.owner_url).await.unwrap();
    for release in &RELEASES[..=last] {
        let migrating = MIGRATOR.run_direct(Some(release.schema), &mut db, false);
        migrating.await.unwrap();
        let filling = sqlx::raw_sql(AssertSqlSafe(release.rows.to_owned()));
        filling.execute(&mut db).await.unwrap();
    }
    let keys = Keys::derive(&Secret::new(SECRET_KEY), None).unwrap();
    let uuid = uuid::uuid!("00000000-0000-4000-9000-000000000003");
    let credentials = json!({"agent": null, "gitToken": null, "env": {"TOKEN": "canary"}});
    let sealed = keys.seal_without_id(uuid.as_bytes(), credentials.to_string().as_bytes());
    sqlx::query("update credentials set sealed = $1")
        .bind(sealed)
        .execute(&mut db)
        .await
        .unwrap();
    if last > 0 {
        let sealed = keys.seal(b"secret:1::TOKEN", b"canary");
        sqlx::query("update secrets set sealed = $1")
            .bind(sealed)
            .execute(&mut db)
            .await
            .unwrap();
    }
    (database, db)
}

async fn get(test: &TestApp, path: &str) -> Value {
    let answer = test.http.get(test.url(path)).bearer_auth(KEY);
    let answer = answer.header("accept", "application/json").send().await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200, "{path}");
    answer.json().await.unwrap()
}

#[tokio::test]
async fn every_row_of_an_earlier_release_is_what_it_was() {
    for last in 0..RELEASES.len() {
        let (database, mut db) = left_by(last).await;
        let before = rows(&mut db).await;
        for (table, rows) in &before {
            let is_filled = !rows.is_empty() || MAY_BE_EMPTY.contains(&table.as_str());
            assert!(is_filled, "{table} has no row to lose");
        }
        database.migrate().await;
        let after = rows(&mut db).await;
        for (table, old) in &before {
            let names: Vec<&String> = old
                .first()
                .map_or(Vec::new(), |row| row.as_object().unwrap().keys().collect());
            let mut now: Vec<Value> = after[table]
                .iter()
                .map(|row| {
                    names
                        .iter()
                        .map(|name| ((*name).clone(), row[*name].clone()))
                        .collect()
                })
                .collect();
            now.sort_by_key(Value::to_string);
            let mut old = old.clone();
            old.sort_by_key(Value::to_string);
            assert_eq!(now, old, "{table}");
        }
    }
}

#[tokio::test]
async fn what_the_first_release_left_is_served_and_finished() {
    let (database, _) = left_by(0).await;
    let test = TestApp::start_after(database).await;
    let list = get(&test, "/sessions").await;
    let names: Vec<&Value> = list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| &session["sessionName"])
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let first = get(&test, "/executions/1").await;
    assert_eq!(
        (&first["status"], &first["result"], &first["prUrl"]),
        (
            &json!("completed"),
            &json!("It is mended."),
            &json!("https://github.com/acme/app/pull/1")
        )
    );
    assert_eq!(get(&test, "/executions/2").await["status"], "failed");
    let log = get(&test, "/executions/1/events").await;
    let types: Vec<&Value> = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["type"])
        .collect();
    assert_eq!(types, ["connected", "completed"]);
    let portal = get(&test, "/api/runtime/executions").await;
    assert_eq!(portal.as_array().unwrap().len(), 3);
    // Another workspace's execution stays its own, and its revoked key revoked.
    for (key, path, status) in [
        (KEY, "/executions/4", 404),
        ("clawlink_revoked", "/sessions", 401),
    ] {
        let answer = test.http.get(test.url(path)).bearer_auth(key).send().await;
        assert_eq!(answer.unwrap().status(), status);
    }
    // What waited is queued from its outbox row and runs with its credentials.
    let held = Worker::new(&test.dispatcher).run().await;
    assert_eq!(held.id(), 3);
    assert_eq!(held.assignment.credentials.env["TOKEN"].expose(), "canary");
    held.complete(0).await;
    let waited = Job {
        id: 3,
        session: "00000000-0000-4000-8000-000000000002".to_owned(),
    };
    test.becomes(&waited, "completed").await;
    // It is said anew why it waits if that has changed.
    let mut types = test.types(&waited).await;
    types.retain(|kind| kind != "queued");
    assert_eq!(
        types,
        ["connected", "state_changed", "state_changed", "completed"]
    );
    // A later turn goes on in an old session.
    let next = test.resume(&waited).await;
    assert_eq!(test.show(&next).await["turn"], 2);
}

#[tokio::test]
async fn what_the_second_release_left_is_served() {
    let (database, _) = left_by(1).await;
    let test = TestApp::start_after(database).await;
    let tasks = get(&test, "/api/tasks?projectId=1").await;
    let titles: Vec<&Value> = tasks["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["title"])
        .collect();
    assert_eq!(titles, ["Mend the fence", "Paint it"]);
    let found = get(&test, "/api/tasks?q=fence").await;
    assert_eq!(found["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(
        tasks["tasks"][0]["progress"],
        json!({"done": 0, "total": 1})
    );
    let of_task = get(&test, "/api/tasks/1/executions").await;
    assert_eq!(
        (
            &of_task[0]["payload"],
            &of_task[0]["clawId"],
            &of_task[0]["sessionId"]
        ),
        (&json!("mend it"), &json!("7"), &json!("theirs"))
    );
    let relations = get(&test, "/api/tasks/2/relations").await;
    assert_eq!(relations["relations"].as_array().unwrap().len(), 2);
    // A number is not given twice.
    let new = json!({"projectId": 1, "title": "more"});
    let made = test.http.post(test.url("/api/tasks")).bearer_auth(KEY);
    let made: Value = made.json(&new).send().await.unwrap().json().await.unwrap();
    assert_eq!(made["key"], "APP-003");
    for (path, pointer, expected) in [
        ("/api/agents/1", "/hasApiKey", json!(true)),
        ("/api/agents/1/skills", "/0/name", json!("review")),
        ("/api/secrets", "/secrets/0/name", json!("TOKEN")),
        ("/api/devices", "/devices/0/trust", json!("trusted")),
        ("/api/policies/1", "/resourceKind", json!("agent")),
        ("/api/tenants/1", "/members/1/isActive", json!(false)),
        (
            "/api/tenants/1/invitations",
            "/invitations/0/email",
            json!("three@example.org"),
        ),
        (
            "/api/runtime/sessions/00000000-0000-4000-c000-000000000001",
            "/user_id",
            json!("u"),
        ),
        (
            "/api/audit/events?eventType=task.created",
            "/1/actor",
            json!("key:1"),
        ),
    ] {
        let shown = get(&test, path).await;
        assert_eq!(shown.pointer(pointer), Some(&expected), "{path}: {shown}");
    }
    // A sign-in goes on, an invitation is good, a policy holds.
    let refresh = test.http.post(test.url("/api/auth/refresh"));
    let refreshed = refresh
        .json(&json!({"refreshToken": "refresh-of-old"}))
        .send()
        .await
        .unwrap();
    assert_eq!(refreshed.status(), 200);
    let refreshed: Value = refreshed.json().await.unwrap();
    let accept = test.http.post(test.url("/api/invitations/accept"));
    let accept = accept.bearer_auth(refreshed["token"].as_str().unwrap());
    let accepted = accept
        .json(&json!({"token": "invitation-of-old"}))
        .send()
        .await
        .unwrap();
    assert!(
        matches!(accepted.status().as_u16(), 200 | 403 | 409),
        "{}",
        accepted.status()
    );
    let denied = json!({"userRequest": "x", "codingAssistantProvider": "claude",
        "codingAssistantAuthentication": "key"});
    let denied = test
        .http
        .post(test.url("/execute"))
        .bearer_auth(KEY)
        .json(&denied);
    assert_eq!(denied.send().await.unwrap().status(), 403);
    // The secret that was stored is handed out, and the old log is chained.
    let job = test
        .submit_as(
            KEY,
            json!({"providerOptions": {"env": {"A": {"secret": "TOKEN"}}}}),
        )
        .await;
    let worker = Worker::new(&test.dispatcher);
    let held = eventually("the new execution's turn", || async {
        let held = worker.run().await;
        let is_it = held.id() == job.id;
        if !is_it {
            held.complete(0).await;
        }
        is_it.then_some(held)
    })
    .await;
    assert_eq!(held.assignment.credentials.env["A"].expose(), "canary");
    let mut db = test.superuser().await;
    let report = eventually("the old entries are chained", async || {
        let mut db = test.superuser().await;
        let report = verify(&mut db, &test.app().keys, None)
            .await
            .unwrap()
            .unwrap();
        (report.waiting == 0).then_some(report)
    })
    .await;
    let entries: i64 = sqlx::query_scalar("select count(*) from audit_entries")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(report.anchor.count, entries);
}

#[tokio::test]
async fn what_an_earlier_release_sends_is_still_understood() {
    let (database, mut db) = left_by(RELEASES.len() - 1).await;
    database.migrate().await;
    let mut faults = Vec::new();
    for release in &RELEASES {
        for line in release.statements.lines() {
            let sent: Sent = serde_json::from_str(line).unwrap();
            let sql = AssertSqlSafe(sent.sql.clone()).into_sql_str();
            let prepared = match (&mut db).prepare(sql).await {
                Ok(prepared) => prepared,
                Err(error) => {
                    faults.push(format!("{}: {error}", sent.sql));
                    continue;
                }
            };
            let columns: Vec<(String, String)> = prepared
                .columns()
                .iter()
                .map(|column| {
                    (
                        column.name().to_owned(),
                        column.type_info().name().to_owned(),
                    )
                })
                .collect();
            let same = columns
                .iter()
                .zip(&sent.columns)
                .all(|(now, then)| now == then);
            if columns.len() != sent.columns.len() || !same {
                faults.push(format!("{}: answers {columns:?}", sent.sql));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Columns by table and name: type, whether null is refused, whether a row may leave them out.
async fn columns(db: &mut PgConnection) -> BTreeMap<(String, String), (String, bool, bool)> {
    let rows: Vec<(String, String, String, bool, bool)> = sqlx::query_as(
        "select table_name::text, column_name::text, data_type::text, is_nullable = 'NO',
            is_nullable = 'YES' or column_default is not null or is_identity = 'YES'
                or is_generated = 'ALWAYS'
         from information_schema.columns where table_schema = 'public'",
    )
    .fetch_all(db)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(table, name, kind, strict, optional)| ((table, name), (kind, strict, optional)))
        .collect()
}

#[tokio::test]
async fn migrations_take_nothing_away_and_demand_nothing_of_earlier_releases() {
    for last in 0..RELEASES.len() {
        let (database, mut db) = left_by(last).await;
        let before = columns(&mut db).await;
        let tables: Vec<&String> = before.keys().map(|(table, _)| table).collect();
        database.migrate().await;
        let after = columns(&mut db).await;
        for (name, (kind, is_strict, _)) in &before {
            let now = after
                .get(name)
                .unwrap_or_else(|| panic!("{name:?} is gone"));
            assert_eq!(&now.0, kind, "{name:?}");
            assert!(*is_strict || !now.1, "{name:?} takes no null any more");
        }
        for (name, (_, _, may_be_left_out)) in &after {
            let is_new = !before.contains_key(name) && tables.contains(&&name.0);
            assert!(!is_new || *may_be_left_out, "{name:?} is demanded");
        }
    }
}
