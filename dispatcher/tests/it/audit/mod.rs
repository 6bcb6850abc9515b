//! The audit log: what stands in it, who may read it, and that nobody can change it unseen.

mod chain;
mod deeds;
mod older;
mod queries;
mod roles;

use std::net::IpAddr;

use clawlink::audit::{self, Actor, Entry};
use clawlink_shared::id::WorkspaceId;
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use crate::app::TestApp;
use crate::wait::eventually;

/// Somebody.
fn actor(name: &str) -> Actor {
    Actor {
        name: name.to_owned(),
        address: Some(IpAddr::from([192, 0, 2, 1])),
    }
}

/// Writes an entry with this number in the caller's transaction.
async fn write(db: &mut PgConnection, workspace: WorkspaceId, by: &str, n: usize) {
    let actor = actor(by);
    let entry = Entry::done(workspace, &actor, "task.created", ("task", n.to_string()));
    audit::record(db, &entry.with(json!({"n": n})))
        .await
        .unwrap();
}

/// The first workspace.
async fn workspace(db: &PgPool) -> WorkspaceId {
    let id = sqlx::query_scalar("select id from workspaces order by id limit 1");
    WorkspaceId(id.fetch_one(db).await.unwrap())
}

/// Waits until every entry has its link; answers how many there are.
async fn all_chained(test: &TestApp) -> i64 {
    eventually("all entries are chained", async || {
        let (entries, links): (i64, i64) = sqlx::query_as(
            "select (select count(*) from audit_entries), (select count(*) from audit_chain)",
        )
        .fetch_one(test.db())
        .await
        .unwrap();
        (entries == links).then_some(entries)
    })
    .await
}
