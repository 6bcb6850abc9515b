//! A workspace's feed: every change that a board or list shows, in the order of commits.
//!
//! An event is appended in the transaction of its change. Redis only says that there is
//! something new; readers read the log.

mod store;

use clawlink_shared::id::WorkspaceId;
use serde::Serialize;
use sqlx::PgConnection;

use crate::app::App;

/// Appends a change to the workspace's feed in the caller's transaction, as its last deed: the
/// feed is locked until the commit. `kind` is a thing and what happened to it, as in the audit
/// log; `data` must serialize to an object.
pub async fn append(
    db: &mut PgConnection,
    workspace: WorkspaceId,
    kind: &'static str,
    data: &impl Serialize,
) -> anyhow::Result<()> {
    let seq = store::next_seq(db, workspace).await?;
    let payload = serde_json::to_vec(&Envelope { kind, seq, data })?;
    store::insert(db, workspace, seq, &payload).await
}

/// Tells this and other dispatchers that the workspace's feed grew; call it after the commit. A
/// lost poke delays readers, no more.
pub fn poke(app: &App, workspace: WorkspaceId) {
    app.bus.publish_feed(workspace);
}

/// An event as clients see it.
#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    seq: i64,
    data: &'a T,
}
