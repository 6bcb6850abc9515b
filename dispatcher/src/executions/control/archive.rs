//! Uploading a session's archive: the worker gets presigned URLs for one key, its lease's own.
//!
//! The key names turn and claim, so a stale worker can only write to an object that nobody
//! will accept. The grant is recorded before an upload begins, so that neither an object nor an
//! upload is forgotten, whenever a dispatcher dies.

use axum::Extension;
use axum::extract::State;
use clawlink_shared::control::{
    ARCHIVE_MISSING, ARCHIVE_PART_BYTES, ArchiveFinish, ArchiveGrant, ArchiveRequest,
    ArchiveSource, PartUrls, PartsRequest,
};
use clawlink_shared::id::ExecutionId;
use serde_json::json;

use super::claim::source as source_of;
use super::lease_lost;
use super::protocol::Protocol;
use crate::app::App;
use crate::auth::admit::LeaseHash;
use crate::error::{ApiError, ApiResult};
use crate::executions::store::assignment;
use crate::executions::store::locked::{self, Locked};
use crate::executions::store::uploads::{self, Upload};
use crate::http::extract::{Json, Path};

/// Size of each part but the last.
pub(in crate::executions) const PART_SIZE: u64 = ARCHIVE_PART_BYTES;
/// Part URLs in a first grant.
const FIRST_PARTS: u32 = 8;
/// Part URLs in one answer.
const MAX_PARTS: u32 = 100;
/// S3's own bound.
const MAX_PART_NUMBER: u32 = 10_000;

/// The object that the current lease may write: `session-{uuid}/turns/{turn}-{claim}.tar.zst`.
pub(super) fn key_of(held: &Locked) -> String {
    let claim = held.claim.map(|claim| claim.0).unwrap_or_default();
    format!(
        "{}/turns/{}-{claim}.tar.zst",
        held.log.session.folder(),
        held.turn
    )
}

/// `POST …/archive`: where to upload. Asking again renews the grant.
pub(super) async fn grant(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Json(request): Json<ArchiveRequest>,
) -> ApiResult<axum::Json<ArchiveGrant>> {
    let (held, earlier) = current(&app, id, &hash).await?;
    let (key, session) = (key_of(&held), held.log.session);
    let earlier_id = earlier.and_then(|upload| upload.upload_id);
    let is_single = request.size.is_some_and(|size| size <= PART_SIZE);
    let wanted = match &earlier_id {
        _ if is_single => None,
        Some(id) => Some(id.clone()),
        None => {
            let mut db = app.db.acquire().await?;
            uploads::announce(&mut db, &key, id, session).await?;
            drop(db);
            Some(app.blobs.begin_parts(&key).await.map_err(no_storage)?)
        }
    };
    let mut db = app.db.acquire().await?;
    let granted = uploads::grant(&mut db, &key, id, session, wanted.as_deref()).await?;
    drop(db);
    let upload_id = granted.as_ref().and_then(|upload| upload.upload_id.clone());
    // Another call was first, or the archive now goes in one request.
    for unused in [earlier_id, wanted].into_iter().flatten() {
        if upload_id.as_ref() != Some(&unused)
            && let Err(error) = app.blobs.abort_parts(&key, &unused).await
        {
            tracing::warn!(
                error = format!("{error:#}"),
                key,
                "unused upload not aborted"
            );
        }
    }
    if granted.is_none() {
        let cause = anyhow::anyhow!("upload {key} is being given up");
        return Err(ApiError::unavailable("try again in a moment", cause));
    }
    let (url, parts) = match &upload_id {
        None => {
            let url = app.blobs.presign_put(&key).await.map_err(no_storage)?;
            (Some(url), Vec::new())
        }
        Some(upload_id) => {
            let parts = app.blobs.presign_parts(&key, upload_id, 1, FIRST_PARTS);
            (None, parts.await.map_err(no_storage)?)
        }
    };
    Ok(axum::Json(ArchiveGrant {
        key,
        url,
        part_size: PART_SIZE,
        parts,
    }))
}

/// `POST …/archive/parts`: more URLs, or renewed ones.
pub(super) async fn parts(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Json(request): Json<PartsRequest>,
) -> ApiResult<axum::Json<PartUrls>> {
    let last = request.from.saturating_add(request.count).saturating_sub(1);
    if request.from == 0
        || request.count == 0
        || request.count > MAX_PARTS
        || last > MAX_PART_NUMBER
    {
        return Err(ApiError::invalid(
            "ask for 1 to 100 parts, numbered from 1 to 10000",
        ));
    }
    let (held, upload) = current(&app, id, &hash).await?;
    let upload_id = upload.and_then(|upload| upload.upload_id);
    let upload_id = upload_id.ok_or_else(no_upload)?;
    let key = key_of(&held);
    let parts = app
        .blobs
        .presign_parts(&key, &upload_id, request.from, request.count);
    Ok(axum::Json(PartUrls {
        parts: parts.await.map_err(no_storage)?,
    }))
}

/// `POST …/archive/finish`: joins the parts; repeating it is fine.
pub(super) async fn finish(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
    Json(request): Json<ArchiveFinish>,
) -> ApiResult<axum::Json<serde_json::Value>> {
    let numbers = (1..=MAX_PART_NUMBER).take(request.parts.len());
    if request.parts.is_empty() || !numbers.eq(request.parts.iter().map(|part| part.number)) {
        return Err(ApiError::invalid(
            "parts must be numbered from 1, without gaps",
        ));
    }
    let (held, upload) = current(&app, id, &hash).await?;
    let upload = upload.ok_or_else(no_upload)?;
    let key = key_of(&held);
    if let Some(upload_id) = upload.upload_id {
        let joined = app.blobs.finish_parts(&key, &upload_id, &request.parts);
        if !joined.await.map_err(no_storage)? {
            // An earlier try whose answer was lost has left the object and no upload.
            let size = app.blobs.size(&key).await.map_err(no_storage)?;
            if size.is_none() {
                return Err(ApiError::conflict(
                    ARCHIVE_MISSING,
                    "the storage refused these parts; upload them again",
                ));
            }
        }
        // Tries to begin it whose answer was lost, here or at the storage.
        app.blobs.abort_all(&key).await.map_err(no_storage)?;
        let mut db = app.db.acquire().await?;
        uploads::joined(&mut db, &key, &upload_id).await?;
    }
    Ok(axum::Json(json!({})))
}

/// `POST …/archive/source`: a fresh URL of the session's current archive.
pub(super) async fn source(
    _: Protocol,
    State(app): State<App>,
    Path(id): Path<ExecutionId>,
    Extension(LeaseHash(hash)): Extension<LeaseHash>,
) -> ApiResult<axum::Json<ArchiveSource>> {
    let mut db = app.db.acquire().await?;
    let archive = assignment::archive_of(&mut db, id, &hash).await?;
    drop(db);
    let archive = archive.ok_or_else(lease_lost)?.ok_or_else(|| {
        ApiError::not_found("archive_not_found", "this session has no archive yet")
    })?;
    Ok(axum::Json(source_of(&app, &archive).await?))
}

/// The execution of a current lease, and what was granted to it before.
async fn current(
    app: &App,
    id: ExecutionId,
    hash: &[u8; 32],
) -> ApiResult<(Locked, Option<Upload>)> {
    let mut tx = app.db.begin().await?;
    let held = locked::lock(&mut tx, id, Some(hash), None).await?;
    let held = held
        .filter(|held| held.state.is_active())
        .ok_or_else(lease_lost)?;
    let upload = uploads::find(&mut tx, &key_of(&held), id).await?;
    tx.commit().await?;
    Ok((held, upload))
}

fn no_upload() -> ApiError {
    ApiError::conflict(
        "no_upload",
        "nothing is being uploaded in parts; call `archive` first",
    )
}

fn no_storage(error: anyhow::Error) -> ApiError {
    ApiError::unavailable("the storage cannot be reached", error)
}
