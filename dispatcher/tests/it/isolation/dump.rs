//! Everything that Postgres and the object storage hold of a workspace, as text.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;

use super::side::Side;
use crate::app::TestApp;

/// Tables that hold nothing of a single workspace. A new table must be one of these, or have a
/// column that says whose its rows are.
const SHARED: [&str; 10] = [
    "_sqlx_migrations",
    "audit_chain",
    "audit_denials",
    "github_deliveries",
    "identities",
    "outbox",
    "password_resets",
    "refresh_tokens",
    "sign_ins",
    "users",
];

/// Written by the caller's own reading, whenever it comes to it.
const OWN_TRACES: &str = "'last_used_at'";

/// Makes every table number its rows from a place of its own, beyond all small numbers.
pub(super) async fn spread_ids(test: &TestApp) {
    let mut db = test.superuser().await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "select table_name::text, column_name::text from information_schema.columns
         where table_schema = 'public' and is_identity = 'YES' order by table_name",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    for ((table, column), n) in columns.iter().zip(1_i64..) {
        // All are equally long, so that none is a part of another one.
        let first = (100 + n) * 10_000_000_000 + 7_000_001;
        let text = format!("alter table {table} alter column {column} restart with {first}");
        let alter = sqlx::query(AssertSqlSafe(text));
        alter.execute(&mut db).await.unwrap();
    }
}

/// The statement that reads all rows of the workspace `$1`, table by table.
pub(super) async fn statement(test: &TestApp) -> String {
    let columns: Vec<(String, Vec<String>)> = sqlx::query_as(
        "select c.table_name::text, array_agg(c.column_name::text)
         from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
         where c.table_schema = 'public' and t.table_type = 'BASE TABLE'
         group by c.table_name order by c.table_name",
    )
    .fetch_all(test.db())
    .await
    .unwrap();
    let mut parts = Vec::new();
    for (table, columns) in columns {
        let has = |name: &str| columns.iter().any(|column| column == name);
        let condition = if has("workspace_id") {
            "x.workspace_id = $1"
        } else if table == "workspaces" {
            "x.id = $1"
        } else if has("execution_id") {
            "x.execution_id in (select id from executions where workspace_id = $1)"
        } else if has("session_id") {
            "x.session_id in (select id from sessions where workspace_id = $1)"
        } else {
            assert!(
                SHARED.contains(&table.as_str()),
                "whose are the rows of {table}?"
            );
            continue;
        };
        parts.push(format!(
            "select '{table}' as name, coalesce(string_agg(row, e'\\n' order by row), '') as rows
             from (select (to_jsonb(x) - {OWN_TRACES})::text as row from {table} x where {condition}) r"
        ));
    }
    parts.join(" union all ")
}

/// All rows and the names of all objects of a workspace.
pub(super) async fn of(test: &TestApp, side: &Side) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(side.dump.clone()))
        .bind(side.workspace.0)
        .fetch_all(test.db())
        .await
        .unwrap();
    let mut dump: BTreeMap<String, String> = rows.into_iter().collect();
    let objects = test.app().blobs.list("session-").await.unwrap();
    let own = |key: &&String| side.ids("session").any(|id| key.contains(id.as_str()));
    let own: Vec<&str> = objects.iter().filter(own).map(String::as_str).collect();
    dump.insert("objects".to_owned(), own.join("\n"));
    dump
}

/// Fails with the first table that differs.
pub(super) fn must_be_equal(
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    after_what: &str,
) {
    for (name, rows) in before {
        let now = &after[name];
        let gone: Vec<&str> = rows.lines().filter(|row| !now.contains(row)).collect();
        let come: Vec<&str> = now.lines().filter(|row| !rows.contains(row)).collect();
        assert!(
            rows == now,
            "{name} of the other workspace changed\ngone: {gone:#?}\ncome: {come:#?}\nafter {after_what}"
        );
    }
}
