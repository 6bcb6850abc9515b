//! Connections to Postgres: what a caller leaves behind never reaches the next one.

use sqlx::{Connection, PgConnection};

use crate::app::TestApp;
use crate::wait::eventually;

#[tokio::test]
async fn a_transaction_that_is_dropped_is_rolled_back_at_once() {
    let test = TestApp::start().await;
    let db = &test.app().db;
    for _ in 0..20 {
        let mut lent = db.acquire().await.unwrap();
        let mut tx = lent.begin().await.unwrap();
        sqlx::query("select pg_advisory_xact_lock(7)")
            .execute(&mut *tx)
            .await
            .unwrap();
        drop(tx);
        drop(lent);
        eventually("the dropped transaction is over", async || {
            let free = sqlx::query_scalar::<_, bool>("select pg_try_advisory_xact_lock(7)");
            free.fetch_one(test.db()).await.unwrap().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn connections_that_the_server_ended_are_replaced() {
    let test = TestApp::start().await;
    let db = &test.app().db;
    let mut lent = Vec::new();
    for _ in 0..4 {
        lent.push(db.acquire().await.unwrap());
    }
    drop(lent);
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and usename = current_user
            and pid <> pg_backend_pid()",
    )
    .execute(&mut PgConnection::connect(&test.database_url()).await.unwrap())
    .await
    .unwrap();
    eventually("every connection works again", async || {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(db.acquire().await.ok()?);
        }
        for one in &mut all {
            one.ping().await.ok()?;
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn no_more_are_lent_than_there_are() {
    let test = TestApp::start_with(|settings| settings.tuning.database_connections = 2).await;
    let db = test.app().db.clone();
    let calls = (0..50).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut lent = db.acquire().await?;
            sqlx::query("select 1").execute(&mut *lent).await
        })
    });
    for call in futures::future::join_all(calls).await {
        call.unwrap().unwrap();
    }
    let count: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and usename = current_user
            and pid <> pg_backend_pid()",
    )
    .fetch_one(&mut PgConnection::connect(&test.database_url()).await.unwrap())
    .await
    .unwrap();
    assert!(count <= 2, "{count} connections");
}

#[tokio::test]
async fn deleting_an_execution_reads_no_whole_table() {
    let test = TestApp::start().await;
    let unindexed: Vec<String> = sqlx::query_scalar(
        "select conrelid::regclass::text || '.' || conname from pg_constraint fk
         where contype = 'f' and confrelid in ('executions'::regclass, 'sessions'::regclass)
            and not exists (select from pg_index
                where indrelid = conrelid and indkey[0] = conkey[1])",
    )
    .fetch_all(test.db())
    .await
    .unwrap();
    assert!(unindexed.is_empty(), "no index leads to {unindexed:?}");
}
