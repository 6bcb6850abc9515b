//! What is kept of a turn in S3 beside the worker's archive, and what is deleted in time.
//!
//! `session-{uuid}/turns/{n}.events.jsonl` is a turn's log, `session-{uuid}/.session-metadata.json`
//! describes the session. Memory stays bounded however long a log is.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use clawlink_shared::control::PartDone;
use clawlink_shared::id::{ExecutionId, SessionId};
use serde_json::json;

use super::store::archive::{self as rows, Ended};
use super::store::events;
use super::store::uploads::{self, Abandoned};
use crate::app::App;

/// Bytes of a log that are gathered before they are uploaded; S3 wants at least 5 MiB in all
/// parts but the last.
const PART: usize = 8 * 1024 * 1024;
/// Events read at one time: at most this many times 256 KiB.
const PAGE: i64 = 64;
/// An upload that was granted no URL for this long is stale; URLs live for 15 minutes.
const STALE_UPLOAD: Duration = Duration::from_secs(60 * 60);
/// Uploads given up in one round.
const STALE_BATCH: i64 = 20;
/// How long an idempotency key is kept.
const KEEP_KEYS: Duration = Duration::from_secs(25 * 60 * 60);
/// Keys deleted in one statement.
const KEYS_BATCH: i64 = 5000;

/// Writes an ended turn's log and its session's description; deletes archives that are no
/// longer kept.
pub(crate) async fn archive_turn(app: &App, execution: ExecutionId) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    let ended = rows::ended_turn(&mut db, execution).await?;
    drop(db);
    let Some(ended) = ended else { return Ok(()) };
    let folder = ended.session.folder();
    let key = format!("{folder}/turns/{}.events.jsonl", ended.turn);
    write_log(app, execution, ended.last_seq, &key).await?;
    let description = serde_json::to_vec_pretty(&describe(&ended))?;
    let key = format!("{folder}/.session-metadata.json");
    app.blobs.put(&key, Bytes::from(description)).await?;
    prune(app, ended.session).await
}

/// Deletes all objects of a session. Uploads in progress are given up by [`clean`].
pub(crate) async fn delete_objects(app: &App, session: SessionId) -> anyhow::Result<()> {
    let prefix = format!("{}/", session.folder());
    for key in app.blobs.list(&prefix).await? {
        app.blobs.delete(&key).await?;
    }
    Ok(())
}

/// One round of the cleaning loop: stale uploads, old keys, credentials of the ended.
pub async fn clean(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    while rows::forget_idempotency_keys(&mut db, KEEP_KEYS, KEYS_BATCH).await? == KEYS_BATCH as u64
    {
    }
    rows::forget_credentials(&mut db).await?;
    let stale = uploads::abandon(&mut db, STALE_UPLOAD, STALE_BATCH).await?;
    drop(db);
    for upload in stale {
        // One that fails must not hold up the others; it is tried again in the next round.
        if let Err(error) = give_up(app, &upload).await {
            let key = upload.key;
            tracing::warn!(error = format!("{error:#}"), key, "stale upload stays");
        }
    }
    Ok(())
}

async fn give_up(app: &App, upload: &Abandoned) -> anyhow::Result<()> {
    if let Some(id) = &upload.upload_id {
        app.blobs.abort_parts(&upload.key, id).await?;
    }
    // A dispatcher may have died between beginning an upload and noting its id.
    app.blobs.abort_all(&upload.key).await?;
    if !upload.is_archive {
        app.blobs.delete(&upload.key).await?;
    }
    let mut db = app.db.acquire().await?;
    uploads::forget(&mut db, &upload.key).await
}

/// A short log goes in one request, a long one in parts.
async fn write_log(
    app: &App,
    execution: ExecutionId,
    last_seq: i64,
    key: &str,
) -> anyhow::Result<()> {
    let mut seq = 0;
    let mut buffer = BytesMut::new();
    let mut upload: Option<(String, Vec<PartDone>)> = None;
    while seq < last_seq {
        let mut db = app.db.acquire().await?;
        let page = events::read_after(&mut db, execution, seq, PAGE).await?;
        drop(db);
        let Some((last, _)) = page.last() else { break };
        seq = *last;
        for (_, payload) in &page {
            buffer.put_slice(payload);
            buffer.put_u8(b'\n');
        }
        if buffer.len() >= PART {
            put_part(app, key, &mut upload, buffer.split().freeze()).await?;
        }
    }
    if upload.is_none() {
        return app.blobs.put(key, buffer.freeze()).await;
    }
    if !buffer.is_empty() {
        put_part(app, key, &mut upload, buffer.freeze()).await?;
    }
    match upload {
        Some((id, parts)) => {
            let joined = app.blobs.finish_parts(key, &id, &parts).await?;
            anyhow::ensure!(joined, "S3 refused the parts of a log");
            Ok(())
        }
        None => Ok(()),
    }
}

async fn put_part(
    app: &App,
    key: &str,
    upload: &mut Option<(String, Vec<PartDone>)>,
    part: Bytes,
) -> anyhow::Result<()> {
    let (id, parts) = match upload {
        Some(upload) => upload,
        None => {
            // What an earlier try of this effect left when it died.
            app.blobs.abort_all(key).await?;
            upload.insert((app.blobs.begin_parts(key).await?, Vec::new()))
        }
    };
    let number = parts.len() as u32 + 1;
    let put = app.blobs.put_part(key, id, number, part).await;
    match put {
        Ok(etag) => {
            parts.push(PartDone { number, etag });
            Ok(())
        }
        Err(error) => {
            // The whole log is written again later, as another upload.
            if let Err(error) = app.blobs.abort_parts(key, id).await {
                tracing::warn!(error = format!("{error:#}"), key, "upload not aborted");
            }
            Err(error)
        }
    }
}

fn describe(ended: &Ended) -> serde_json::Value {
    json!({
        "sessionId": ended.session,
        "sessionName": ended.name,
        "provider": ended.agent,
        "providerSessionId": ended.provider_session_id,
        "turns": ended.turns,
        "createdAt": events::timestamp(ended.created_at),
        "updatedAt": events::timestamp(ended.updated_at),
        "github": ended.repo_url.as_ref().map(|url| json!({
            "repoUrl": url,
            "branch": ended.repo_branch,
            "workingBranch": ended.working_branch,
        })),
    })
}

/// Deletes the oldest archives beyond the kept number; what a stale worker left goes with its
/// grant. Of a session that was deleted while its log was written, everything goes.
async fn prune(app: &App, session: SessionId) -> anyhow::Result<()> {
    let keep = i64::from(app.tuning.keep_archives.max(1));
    let mut db = app.db.acquire().await?;
    let outdated = rows::outdated(&mut db, session, keep).await?;
    drop(db);
    let Some(outdated) = outdated else {
        return delete_objects(app, session).await;
    };
    if outdated.is_empty() {
        return Ok(());
    }
    for key in &outdated {
        app.blobs.delete(key).await?;
    }
    let mut db = app.db.acquire().await?;
    rows::forget(&mut db, &outdated).await
}
