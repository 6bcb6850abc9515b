//! `clawlink bench`: what it prints, how it reads streams, and a small run against real parts.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Command, FromArgMatches};
use clawlink::bench;
use clawlink::bench::args::BenchArgs;
use clawlink::bench::report::{Figure, Report, Stat, Unit};
use clawlink::bench::sse::SseReader;
use clawlink::bench::stats::Samples;
use proptest::prelude::*;

use crate::app::{POOL_TOKEN, TestApp, required};

fn samples(millis: impl IntoIterator<Item = u64>) -> Samples {
    let mut samples = Samples::new();
    for one in millis {
        samples.add(Duration::from_millis(one));
    }
    samples
}

fn report() -> Report {
    Report {
        url: "http://127.0.0.1:8000".to_owned(),
        version: "0.0.0",
        processors: 2,
        notes: vec!["measured for a test".to_owned()],
        figures: vec![
            Figure::durations(
                "line_to_client",
                "agent line to client event",
                &samples(1..=100),
            )
            .at_most(Stat::P50, 60.0)
            .at_most(Stat::P99, 50.0),
            Figure::value("cycle", "full cycle", Unit::PerSecond, 3000, 512.3)
                .at_least(Stat::Value, 500.0)
                .errors(2)
                .note("first error: none worth it"),
            Figure::skipped("stream_memory", "the dispatcher's --pid is not known"),
        ],
    }
}

#[test]
fn the_report_is_a_table() {
    insta::assert_snapshot!(report().to_text());
}

#[test]
fn the_report_is_json() {
    insta::assert_snapshot!(report().to_json().unwrap());
}

#[test]
fn percentiles_are_those_of_the_samples() {
    let first = samples(1..=50);
    let mut all = samples(51..=100);
    all.join(&first);
    assert_eq!(all.count(), 100);
    let of = all.percentiles().unwrap();
    let close = |found: f64, wanted: f64| (found - wanted).abs() / wanted < 0.002;
    assert!(close(of.p50, 50.0), "{of:?}");
    assert!(close(of.p95, 95.0), "{of:?}");
    assert!(close(of.p99, 99.0), "{of:?}");
    assert!(close(of.max, 100.0), "{of:?}");
    assert_eq!(Samples::new().percentiles(), None);
}

/// Events of a body that arrives in pieces of this size, as (id, data).
async fn read(body: &[u8], piece: usize) -> Vec<(Option<String>, String)> {
    let pieces: Vec<_> = body
        .chunks(piece)
        .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
        .collect();
    let mut reader = SseReader::new(futures::stream::iter(pieces));
    let mut events = Vec::new();
    while let Some(event) = reader.next().await.expect("a short stream") {
        let data = String::from_utf8(event.data.to_vec()).expect("text");
        events.push((event.id, data));
    }
    events
}

proptest! {
    #[test]
    fn a_stream_reads_the_same_however_it_is_cut(piece in 1_usize..80) {
        let body = ": hello\n\nid: 1\ndata: {\"a\":1}\n\nid:2\r\ndata:{\"b\"\r\ndata: :2}\r\n\r\n\
            : comment\n\nid: 3\ndata: ünï\n\nid: 4\ndata: unfinished";
        let events = futures::executor::block_on(read(body.as_bytes(), piece));
        let wanted = [("1", "{\"a\":1}"), ("2", "{\"b\"\n:2}"), ("3", "ünï")]
            .map(|(id, data)| (Some(id.to_owned()), data.to_owned()));
        prop_assert_eq!(events, wanted);
    }
}

#[tokio::test]
async fn an_endless_line_is_an_error() {
    let endless =
        futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 65_536])));
    let mut reader = SseReader::new(endless);
    assert!(reader.next().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_run_measures_everything_loses_nothing_and_leaves_nothing() {
    let app = TestApp::start().await;
    let command = BenchArgs::augment_args(Command::new("bench"));
    let pid = std::process::id().to_string();
    let matches = command.get_matches_from([
        "bench",
        "--url",
        &app.url(""),
        "--key",
        app.key.expose(),
        "--pool-token",
        POOL_TOKEN,
        "--database-url",
        app.owner_url(),
        "--redis-url",
        &required("REDIS_URL"),
        "--pid",
        &pid,
        "--samples=5",
        "--executions=20",
        "--simulated-workers=3",
        "--streams=20",
        "--seconds=0.1",
        "--tpcb-scale=1",
        "--only=idle,shell,connected,claim,line,postgres,redis,http,cycle,streams",
    ]);
    let args = BenchArgs::from_arg_matches(&matches).unwrap();
    let report = bench::run(args).await.unwrap();
    let text = report.to_text();
    for figure in &report.figures {
        assert_eq!(figure.errors, 0, "{}\n{text}", figure.name);
    }
    for name in [
        "dispatcher_memory",
        "post_to_connected",
        "submit_to_claim",
        "line_to_client",
        "postgres_commit",
        "postgres_inserts",
        "postgres_tpcb",
        "redis",
        "http",
        "cycle",
        "cycle_five_batches",
        "cycle_to_tpcb",
        "stream_memory",
    ] {
        assert!(report.number(name).is_some(), "{name}\n{text}");
    }
    for name in ["line_loss", "cycle_loss", "streams_without_end"] {
        assert_eq!(report.number(name), Some(0.0), "{name}\n{text}");
    }
    let left: i64 = sqlx::query_scalar("select count(*) from sessions")
        .fetch_one(app.db())
        .await
        .unwrap();
    assert_eq!(left, 0, "sessions left behind");
    let schemas: i64 =
        sqlx::query_scalar("select count(*) from pg_namespace where nspname = 'clawlink_bench'")
            .fetch_one(app.db())
            .await
            .unwrap();
    assert_eq!(schemas, 0, "the schema is left behind");
}
