//! What Postgres reaches on this machine: single-row inserts, and the transaction of TPC-B as
//! `pgbench` runs it, each with 8 clients and prepared statements. The tables live in a schema
//! of their own, made and dropped here; the install's tables are never touched.

use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::limits::{CLIENTS, hammer};
use super::report::Figure;
use super::stats::Samples;
use super::{Bench, rate};

/// Our schema; what a killed bench left in it is dropped first.
const SCHEMA: &str = "clawlink_bench";
const DROP: &str = "drop schema if exists clawlink_bench cascade";
/// Accounts, tellers and branches for each unit of the scale, as TPC-B has them.
const ACCOUNTS: i32 = 100_000;
const TELLERS: i32 = 10;

/// The tables; `$SCALE` is a number of ours. The fillers give rows the size that TPC-B wants.
const SETUP: &str = "
    create schema clawlink_bench;
    create table rows (id bigint generated always as identity primary key, payload text not null);
    create table branches (bid int not null, balance int, filler char(88));
    create table tellers (tid int not null, bid int, balance int, filler char(84));
    create table accounts (aid int not null, bid int, balance int, filler char(84));
    create table history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
    insert into branches select b, 0, '' from generate_series(1, $SCALE) b;
    insert into tellers select t, (t - 1) / 10 + 1, 0, '' from generate_series(1, $SCALE * 10) t;
    insert into accounts
        select a, (a - 1) / 100000 + 1, 0, '' from generate_series(1, $SCALE * 100000) a;
    alter table branches add primary key (bid);
    alter table tellers add primary key (tid);
    alter table accounts add primary key (aid)";

/// Both limits; the schema stays until [`clean_up`].
pub(super) async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    if bench.args.database_url.is_none() {
        let why = "--database-url is not set";
        return Ok(["postgres_commit", "postgres_inserts", "postgres_tpcb"]
            .map(|name| Figure::skipped(name, why))
            .into());
    }
    let scale = i32::try_from(bench.args.counts.tpcb_scale).context("read the scale")?;
    let mut first = connect(bench).await?;
    sqlx::raw_sql(DROP).execute(&mut first).await?;
    let setup = SETUP.replace("$SCALE", &scale.to_string());
    sqlx::raw_sql(sqlx::AssertSqlSafe(setup))
        .execute(&mut first)
        .await
        .context("make tables")?;
    sqlx::raw_sql("vacuum analyze accounts; checkpoint")
        .execute(&mut first)
        .await
        .ok();
    let commit = commits(bench, first).await?;
    let what = "Postgres INSERT, 8 clients";
    let (count, took) = hammer(bench, connections(bench).await?, insert).await?;
    let inserts = rate("postgres_inserts", what, count, took);
    let what = "Postgres TPC-B-like, 8 clients";
    let tpcb = move |db| tpcb(db, scale);
    let (count, took) = hammer(bench, connections(bench).await?, tpcb).await?;
    let tpcb = rate("postgres_tpcb", what, count, took).note(format!("scale {scale}"));
    Ok(vec![commit, inserts, tpcb])
}

/// Drops the schema if there can be one.
pub(super) async fn clean_up(bench: &Bench) -> Result<()> {
    if bench.args.database_url.is_some() && bench.args.wants(super::Measure::Postgres) {
        let mut db = connect(bench).await?;
        let dropped = sqlx::raw_sql(DROP).execute(&mut db).await;
        dropped.context("drop the schema clawlink_bench")?;
    }
    Ok(())
}

/// One insert after the other: no answer that needs a commit can come sooner.
async fn commits(bench: &Bench, mut db: PgConnection) -> Result<Figure> {
    let mut samples = Samples::new();
    for _ in 0..bench.args.counts.samples {
        let start = Instant::now();
        db = insert(db).await?;
        samples.add(start.elapsed());
    }
    let what = "Postgres INSERT, 1 client";
    Ok(Figure::durations("postgres_commit", what, &samples))
}

async fn insert(mut db: PgConnection) -> Result<PgConnection> {
    sqlx::query("insert into rows (payload) values ($1)")
        .bind("0123456789012345678901234567890123456789012345678901234567890123")
        .execute(&mut db)
        .await?;
    Ok(db)
}

/// Seven round trips: begin, three updates and a read, the history, commit.
async fn tpcb(mut db: PgConnection, scale: i32) -> Result<PgConnection> {
    let account = rand::random_range(1..=ACCOUNTS * scale);
    let teller = rand::random_range(1..=TELLERS * scale);
    let branch = rand::random_range(1..=scale);
    let delta = rand::random_range(-5000..=5000);
    let mut transaction = db.begin().await?;
    sqlx::query("update accounts set balance = balance + $1 where aid = $2")
        .bind(delta)
        .bind(account)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("select balance from accounts where aid = $1")
        .bind(account)
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query("update tellers set balance = balance + $1 where tid = $2")
        .bind(delta)
        .bind(teller)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("update branches set balance = balance + $1 where bid = $2")
        .bind(delta)
        .bind(branch)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "insert into history (tid, bid, aid, delta, mtime)
         values ($1, $2, $3, $4, current_timestamp)",
    )
    .bind(teller)
    .bind(branch)
    .bind(account)
    .bind(delta)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(db)
}

async fn connections(bench: &Bench) -> Result<Vec<PgConnection>> {
    let mut all = Vec::new();
    for _ in 0..CLIENTS {
        all.push(connect(bench).await?);
    }
    Ok(all)
}

async fn connect(bench: &Bench) -> Result<PgConnection> {
    let url = bench.args.database_url.as_ref();
    let url = url.context("--database-url is not set")?;
    let options = PgConnectOptions::from_str(url.expose())
        .context("read the Postgres URL")?
        .options([("search_path", SCHEMA), ("client_min_messages", "warning")])
        .disable_statement_logging();
    PgConnection::connect_with(&options)
        .await
        .context("connect to Postgres")
}
