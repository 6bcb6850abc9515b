//! What stays in S3 of a turn and what goes: archives, logs, uploads that nobody finished.

use clawlink::executions::archive::clean;
use clawlink_fixtures::gate::Gate;
use clawlink_shared::control::PartUrls;
use serde_json::{Value, json};

use crate::app::{Dispatcher, TestApp};
use crate::jobs::Job;
use crate::wait::eventually;
use crate::worker::{Held, Worker};

/// S3 wants at least this much in all parts but the last.
const SMALLEST_PART: usize = 5 * 1024 * 1024;

async fn keys(test: &TestApp, job: &Job) -> Vec<String> {
    let prefix = format!("session-{}/", job.session);
    test.app().blobs.list(&prefix).await.unwrap()
}

async fn exists(test: &TestApp, key: &str) -> bool {
    test.app().blobs.size(key).await.unwrap().is_some()
}

async fn read(test: &TestApp, key: &str) -> Vec<u8> {
    let url = test.app().blobs.presign_get(key).await.unwrap();
    let answer = test.http.get(url.expose()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

/// Waits until all effects were performed.
async fn settled(test: &TestApp) {
    eventually("all effects are performed", || async {
        let left = sqlx::query_scalar::<_, i64>("select count(*) from outbox");
        (left.fetch_one(test.db()).await.unwrap() == 0).then_some(())
    })
    .await;
}

/// Runs the session's next turn; answers the key of the archive it leaves.
async fn turn(test: &TestApp, job: &Job) -> String {
    test.resume(job).await;
    end_with_archive(&Worker::new(&test.dispatcher).run().await).await
}

async fn end_with_archive(held: &Held) -> String {
    let archive = held.upload(b"archive").await;
    let report = json!({"outcome": "completed", "lastN": 0, "archive": archive});
    assert_eq!(held.try_complete(&report).await.0, 200);
    archive.key
}

/// As if all URLs had been granted long ago.
async fn age_uploads(test: &TestApp) {
    sqlx::query("update uploads set granted_at = now() - interval '2 hours'")
        .execute(test.db())
        .await
        .unwrap();
}

async fn uploads(test: &TestApp) -> i64 {
    let count = sqlx::query_scalar("select count(*) from uploads");
    count.fetch_one(test.db()).await.unwrap()
}

#[tokio::test]
async fn the_newest_archives_are_kept_and_always_the_current_one() {
    let test = TestApp::start_with(|settings| settings.tuning.keep_archives = 2).await;
    let job = test.submit().await;
    let mut made = vec![end_with_archive(&Worker::new(&test.dispatcher).run().await).await];
    for _ in 2..=4 {
        made.push(turn(&test, &job).await);
    }
    // Turns that leave no archive push none out.
    for _ in 5..=7 {
        test.resume(&job).await;
        Worker::new(&test.dispatcher).run().await.complete(0).await;
    }
    settled(&test).await;
    let kept = keys(&test, &job).await;
    let kept: Vec<&String> = kept
        .iter()
        .filter(|key| key.ends_with(".tar.zst"))
        .collect();
    assert_eq!(kept, [&made[2], &made[3]]);
    let rows = sqlx::query_scalar::<_, String>("select key from archives order by turn");
    assert_eq!(rows.fetch_all(test.db()).await.unwrap(), made[2..]);
    test.resume(&job).await;
    let next = Worker::new(&test.dispatcher).run().await;
    let source = next.assignment.session.archive.as_ref().unwrap();
    assert!(source.url.expose().contains(&made[3]), "the current one");
}

#[tokio::test]
async fn keeping_none_keeps_the_current_one() {
    let test = TestApp::start_with(|settings| settings.tuning.keep_archives = 0).await;
    let job = test.submit().await;
    let first = end_with_archive(&Worker::new(&test.dispatcher).run().await).await;
    settled(&test).await;
    assert!(exists(&test, &first).await);
    let second = turn(&test, &job).await;
    settled(&test).await;
    assert!(!exists(&test, &first).await);
    assert!(exists(&test, &second).await);
}

#[tokio::test]
async fn a_deleted_session_leaves_no_object_whatever_comes_late() {
    let test = TestApp::start().await;
    let (job, other) = (test.submit().await, test.submit().await);
    for _ in 0..2 {
        end_with_archive(&Worker::new(&test.dispatcher).run().await).await;
    }
    settled(&test).await;
    assert_eq!(keys(&test, &job).await.len(), 3);
    let answer = test.delete(&format!("/sessions/{}", job.session)).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    // An effect that another replica had taken and comes back to.
    let late = json!({"do": "archive_turn", "execution": job.id});
    sqlx::query("insert into outbox (effect, is_slow) values ($1, true)")
        .bind(late)
        .execute(test.db())
        .await
        .unwrap();
    settled(&test).await;
    assert_eq!(keys(&test, &job).await, [""; 0]);
    assert_eq!(keys(&test, &other).await.len(), 3);
}

#[tokio::test]
async fn a_session_deleted_while_its_log_is_written_leaves_no_object() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    held.complete(0).await;
    settled(&test).await;
    for key in keys(&test, &job).await {
        test.app().blobs.delete(&key).await.unwrap();
    }
    // The effect is performed once more. Writing is followed by a look at this table: there it
    // waits.
    let mut tx = test.db().begin().await.unwrap();
    sqlx::query("lock table archives in access exclusive mode")
        .execute(&mut *tx)
        .await
        .unwrap();
    let again = json!({"do": "archive_turn", "execution": job.id});
    sqlx::query("insert into outbox (effect, is_slow) values ($1, true)")
        .bind(again)
        .execute(test.db())
        .await
        .unwrap();
    eventually("log and description are written", async || {
        (keys(&test, &job).await.len() == 2).then_some(())
    })
    .await;
    sqlx::query("delete from sessions")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    settled(&test).await;
    assert_eq!(keys(&test, &job).await, [""; 0]);
}

#[tokio::test]
async fn an_archive_in_parts_is_joined_and_restored() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let grant = held.begin_parts().await;
    assert!(grant.url.is_none());
    let sizes = [SMALLEST_PART, SMALLEST_PART, 17];
    let mut parts = Vec::new();
    for (part, size) in grant.parts.iter().zip(&sizes[..2]) {
        parts.push(held.put_part(part, vec![part.number as u8; *size]).await);
    }
    let (status, more) = held
        .try_post("archive/parts", &json!({"from": 3, "count": 1}))
        .await;
    assert_eq!(status, 200, "{more}");
    let more: PartUrls = serde_json::from_value(more).unwrap();
    parts.push(held.put_part(&more.parts[0], vec![3; sizes[2]]).await);
    assert_eq!(held.begin_parts().await.key, grant.key, "only renewed");
    let size: usize = sizes.iter().sum();
    let archive = json!({"key": grant.key, "size": size, "sha256": "0".repeat(64)});
    let report = json!({"outcome": "completed", "lastN": 0, "archive": archive});
    let (status, problem) = held.try_complete(&report).await;
    let early = (status, &problem["error"]);
    assert_eq!(early, (409, &json!("archive_missing")));
    for _ in 0..2 {
        let body = json!({ "parts": parts });
        let (status, answer) = held.try_post("archive/finish", &body).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(held.try_complete(&report).await.0, 200);
    assert_eq!(uploads(&test).await, 0);

    test.resume(&job).await;
    let next = Worker::new(&test.dispatcher).run().await;
    let source = next.assignment.session.archive.as_ref().unwrap();
    assert_eq!(source.size, size as u64);
    let restored = test.http.get(source.url.expose()).send().await.unwrap();
    let mut expected = vec![1; SMALLEST_PART];
    expected.resize(2 * SMALLEST_PART, 2);
    expected.resize(size, 3);
    assert!(restored.bytes().await.unwrap() == expected, "other bytes");
}

#[tokio::test]
async fn a_log_too_long_for_one_request_is_archived_whole() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let text = "x".repeat(200 * 1024);
    let (batches, batch) = (25_u64, 4);
    for first in (0..batches).map(|number| number * batch + 1) {
        let lines = (first..first + batch).map(|n| {
            let line = json!({"n": n, "type": "message", "fields": {"message": text}});
            format!("{line}\n")
        });
        let (status, answer) = held.try_lines(lines.collect()).await;
        assert_eq!(status, 200, "{answer}");
    }
    let key = format!("session-{}/turns/1.events.jsonl", job.session);
    let blobs = &test.app().blobs;
    // A replica died in the middle of the same.
    blobs.begin_parts(&key).await.unwrap();
    held.complete(batches * batch).await;
    settled(&test).await;
    assert!(blobs.open_uploads(&key).await.unwrap().is_empty());
    let log = read(&test, &key).await;
    assert!(log.len() > 16 * 1024 * 1024, "two parts and more");
    let lines: Vec<Value> = log
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let (last,): (i64,) = sqlx::query_as("select last_seq from executions")
        .fetch_one(test.db())
        .await
        .unwrap();
    assert_eq!(lines.len() as i64, last);
    for (line, seq) in lines.iter().zip(1..) {
        assert_eq!(line["seq"], seq);
    }
    assert_eq!(lines.last().unwrap()["type"], "completed");
}

#[tokio::test]
async fn a_stale_upload_is_deleted_and_the_current_archive_stays() {
    let test = TestApp::start().await;
    let job = test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let current = end_with_archive(&held).await;
    // A grant that was written only after its archive had been accepted.
    sqlx::query(
        "insert into uploads (key, execution_id, session_id)
         select key, $1, session_id from archives",
    )
    .bind(held.id())
    .execute(test.db())
    .await
    .unwrap();
    test.resume(&job).await;
    let held = Worker::new(&test.dispatcher).run().await;
    let left = held.upload(b"left behind").await;
    held.complete(0).await;
    clean(test.app()).await.unwrap();
    assert_eq!(uploads(&test).await, 2, "too young");
    assert!(exists(&test, &left.key).await);
    age_uploads(&test).await;
    clean(test.app()).await.unwrap();
    assert_eq!(uploads(&test).await, 0);
    assert!(!exists(&test, &left.key).await);
    assert!(exists(&test, &current).await);
}

#[tokio::test]
async fn a_stale_upload_in_parts_is_aborted_once_its_lease_is_over() {
    let test = TestApp::start().await;
    test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let grant = held.begin_parts().await;
    held.put_part(&grant.parts[0], vec![1; 17]).await;
    age_uploads(&test).await;
    clean(test.app()).await.unwrap();
    assert_eq!(uploads(&test).await, 1, "its lease is current");
    held.put_part(&grant.parts[1], vec![2; 17]).await;
    held.complete(0).await;
    // A round that died before it could forget the upload is repeated.
    for _ in 0..2 {
        clean(test.app()).await.unwrap();
        assert_eq!(uploads(&test).await, 0);
        let late = test.http.put(grant.parts[2].url.expose()).body("late");
        assert_ne!(late.send().await.unwrap().status(), 200, "aborted");
        sqlx::query(
            "insert into uploads (key, execution_id, session_id, upload_id, granted_at)
             select $1, id, session_id, $2, now() - interval '2 hours' from executions",
        )
        .bind(&grant.key)
        .bind(query_of(grant.parts[0].url.expose(), "uploadId"))
        .execute(test.db())
        .await
        .unwrap();
    }
}

/// A dispatcher that never hears the storage's answer to what it begins.
async fn deaf(test: &TestApp) -> (Gate, Dispatcher) {
    let gate = Gate::start().await.unwrap();
    gate.lead_to(&test.s3.url());
    let deaf = test
        .dispatcher_with(|settings| settings.s3.s3_endpoint = Some(gate.url()))
        .await;
    gate.lose_answers("?uploads", usize::MAX);
    (gate, deaf)
}

#[tokio::test]
async fn uploads_whose_id_nobody_heard_are_aborted_with_their_session_or_without() {
    let test = TestApp::start().await;
    let (_gate, deaf) = deaf(&test).await;
    for finishes in [true, false] {
        test.submit().await;
        let held = Worker::new(&test.dispatcher).run().await;
        let (status, _) = held.at(&deaf).try_post("archive", &json!({})).await;
        assert_eq!(status, 503);
        let key = "select key from uploads where execution_id = $1 and upload_id is null";
        let key = sqlx::query_scalar::<_, String>(key).bind(held.id());
        let key = key.fetch_one(test.db()).await.unwrap();
        let blobs = &test.app().blobs;
        assert!(!blobs.open_uploads(&key).await.unwrap().is_empty());
        if finishes {
            let grant = held.begin_parts().await;
            assert_eq!(grant.key, key);
            let part = held.put_part(&grant.parts[0], vec![1; 17]).await;
            let body = json!({ "parts": [part] });
            assert_eq!(held.try_post("archive/finish", &body).await.0, 200);
            assert_eq!(blobs.size(&key).await.unwrap(), Some(17));
            held.complete(0).await;
        } else {
            held.complete(0).await;
            age_uploads(&test).await;
            clean(test.app()).await.unwrap();
            assert_eq!(uploads(&test).await, 0);
        }
        assert!(blobs.open_uploads(&key).await.unwrap().is_empty());
    }
}

fn query_of(url: &str, name: &str) -> String {
    let url = reqwest::Url::parse(url).unwrap();
    let mut pairs = url.query_pairs();
    pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn idempotency_keys_are_kept_for_a_day() {
    let test = TestApp::start().await;
    let body = json!({"userRequest": "true", "codingAssistantProvider": "shell"});
    let send = async |key: &str| {
        let call = test.execute(&body).header("idempotency-key", key);
        let answer: Value = call.send().await.unwrap().json().await.unwrap();
        answer["executionId"].as_i64().unwrap()
    };
    let (young, old) = (send("young").await, send("old").await);
    sqlx::query(
        "update idempotency_keys set created_at = now()
            - case key when 'old' then interval '26 hours' else interval '24 hours' end",
    )
    .execute(test.db())
    .await
    .unwrap();
    clean(test.app()).await.unwrap();
    assert_eq!(send("young").await, young);
    assert_ne!(send("old").await, old);
}

#[tokio::test]
async fn overlapping_grants_share_one_upload_and_a_single_request_aborts_it() {
    let test = TestApp::start().await;
    test.submit().await;
    let held = Worker::new(&test.dispatcher).run().await;
    let grants = futures::future::join_all((0..4).map(|_| held.begin_parts())).await;
    let id = query_of(grants[0].parts[0].url.expose(), "uploadId");
    for grant in &grants {
        assert_eq!(query_of(grant.parts[0].url.expose(), "uploadId"), id);
    }
    held.put_part(&grants[3].parts[0], vec![1; 17]).await;
    held.upload(b"small after all").await;
    let late = test.http.put(grants[0].parts[1].url.expose()).body("late");
    assert_ne!(late.send().await.unwrap().status(), 200, "aborted");
}
