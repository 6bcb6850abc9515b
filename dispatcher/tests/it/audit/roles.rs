//! The application's database role may add to the audit log and read it, nothing else.

use std::process::Command;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{all_chained, workspace, write};
use crate::app::{TestApp, fresh_database};

/// Postgres's code for what a role may not do.
const REFUSED: &str = "42501";

async fn refused(db: &mut PgConnection, sql: &str) {
    let result = sqlx::query(AssertSqlSafe(sql.to_owned())).execute(db).await;
    let error = result.expect_err(sql);
    let code = error.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some(REFUSED), "{sql}: {error}");
}

#[tokio::test]
async fn the_application_cannot_change_the_past() {
    let test = TestApp::start().await;
    let workspace = workspace(test.db()).await;
    let mut db = test.db().acquire().await.unwrap();
    write(&mut db, workspace, "user:a", 1).await;
    assert_eq!(all_chained(&test).await, 1);
    for table in ["audit_entries", "audit_chain"] {
        for sql in [
            format!("delete from {table}"),
            format!("truncate {table}"),
            format!("drop table {table}"),
            format!("alter table {table} add column more int"),
            format!(
                "create trigger t before insert on {table} execute function suppress_redundant_updates_trigger()"
            ),
            format!("select * from {table} for update"),
        ] {
            refused(&mut db, &sql).await;
        }
    }
    refused(&mut db, "update audit_entries set actor = 'user:b'").await;
    refused(&mut db, "update audit_chain set hash = hash").await;
    // Nor may an entry claim another number, time or transaction.
    for column in ["id", "at", "xact"] {
        let sql = format!(
            "insert into audit_entries ({column}, actor, action, outcome) overriding system value
             select {column}, actor, action, outcome from audit_entries"
        );
        refused(&mut db, &sql).await;
    }
    refused(&mut db, "create table mine (n int)").await;
    refused(&mut db, "delete from _sqlx_migrations").await;
}

#[tokio::test]
async fn entries_outlive_their_workspace() {
    let test = TestApp::start().await;
    let (gone, _) = test
        .key_for("gone", clawlink::auth::principal::KeyRole::Admin)
        .await;
    let mut db = test.db().acquire().await.unwrap();
    write(&mut db, gone, "user:a", 1).await;
    sqlx::query("delete from workspaces where id = $1")
        .bind(gone.0)
        .execute(&mut *db)
        .await
        .unwrap();
    let kept: i64 =
        sqlx::query_scalar("select count(*) from audit_entries where workspace_id = $1")
            .bind(gone.0)
            .fetch_one(&mut *db)
            .await
            .unwrap();
    assert_eq!(kept, 1);
    assert_eq!(all_chained(&test).await, 1);
}

#[tokio::test]
async fn an_operator_migrates_for_a_restricted_role() {
    let (owner_url, url) = fresh_database().await;
    let migrate = |role: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_clawlink"))
            .arg("migrate")
            .args(role)
            .env("DATABASE_URL", &owner_url)
            .env_remove("DATABASE_MIGRATION_URL")
            .status()
            .unwrap()
    };
    let application = sqlx::PgPool::connect(&url).await.unwrap();
    let early = clawlink::schema::prepare(&application, None).await;
    let early = early.unwrap_err().to_string();
    assert!(early.contains("clawlink migrate --app-role"), "{early}");
    // Without a role as in earlier releases, then with one: twice changes nothing.
    assert!(migrate(&[]).success());
    for _ in 0..2 {
        assert!(migrate(&["--app-role", crate::app::APPLICATION]).success());
    }
    clawlink::schema::prepare(&application, None).await.unwrap();
    let mut db = application.acquire().await.unwrap();
    refused(&mut db, "delete from audit_entries").await;
    sqlx::query("delete from outbox")
        .execute(&mut *db)
        .await
        .unwrap();
    // The same by a dispatcher that has both addresses.
    let owner = clawlink_shared::secret::Secret::new(owner_url.as_str());
    clawlink::schema::prepare(&application, Some(&owner))
        .await
        .unwrap();
    let mut owner = PgConnection::connect(&owner_url).await.unwrap();
    sqlx::query("delete from audit_entries")
        .execute(&mut owner)
        .await
        .unwrap();
}
