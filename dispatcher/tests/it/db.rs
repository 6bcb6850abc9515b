//! Connections to Postgres: what a caller leaves behind never reaches the next one.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clawlink::db::Db;
use clawlink_shared::secret::Secret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::net::{TcpListener, TcpStream};

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

/// A way to the server on which so many of the next connections are taken and never answered.
async fn way_with_silence(url: &str) -> (Secret, Arc<AtomicUsize>) {
    let options = PgConnectOptions::from_str(url).unwrap();
    let server = format!("{}:{}", options.get_host(), options.get_port());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = url.replace(&server, &listener.local_addr().unwrap().to_string());
    assert_ne!(through, url);
    let silent = Arc::new(AtomicUsize::new(0));
    let left = silent.clone();
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let fewer = |left: usize| left.checked_sub(1);
            if left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer)
                .is_ok()
            {
                unanswered.push(client);
                continue;
            }
            let server = server.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (Secret::new(through), silent)
}

#[tokio::test]
async fn one_connection_that_does_not_open_fails_nobody() {
    let test = TestApp::start().await;
    let (url, silent) = way_with_silence(&test.database_url()).await;
    let db = Db::connect(&url, 4).await.unwrap();
    let _first = db.acquire().await.unwrap();
    silent.store(1, Ordering::SeqCst);
    let begun = Instant::now();
    let mut second = db.acquire().await.unwrap();
    second.ping().await.unwrap();
    assert_eq!(silent.load(Ordering::SeqCst), 0, "one was not answered");
    assert!(begun.elapsed() > Duration::from_millis(500));

    // Where none opens there is an end.
    silent.store(100, Ordering::SeqCst);
    let refused = db.acquire().await.err();
    assert!(
        matches!(refused, Some(sqlx::Error::PoolTimedOut)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn half_of_the_connections_are_open_before_the_first_request() {
    let test = TestApp::start().await;
    let (url, silent) = way_with_silence(&test.database_url()).await;
    let db = Db::connect(&url, 8).await.unwrap();
    assert_eq!(db.pool().size(), 1);
    db.warm().await;
    assert_eq!(db.pool().size(), 4);
    // From here on no further one opens.
    silent.store(100, Ordering::SeqCst);
    let mut lent = Vec::new();
    for _ in 0..4 {
        lent.push(db.acquire().await.unwrap());
    }
}
