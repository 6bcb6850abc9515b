//! One of the two workspaces: who acts in it, what it has, what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawlink::auth::principal::{KeyRole, MemberRole};
use clawlink::http::routes::Access;
use clawlink_shared::id::WorkspaceId;
use futures::StreamExt as _;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::dump;
use super::operations::Operation;
use crate::app::TestApp;
use crate::person::TestMember;

/// An answer that is no stream ends within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kinds of ids, with the table and the expression that has them.
const KINDS: [(&str, &str, &str); 15] = [
    ("project", "projects", "id"),
    ("task", "tasks", "id"),
    ("agent", "agents", "id"),
    ("skill", "skills", "id"),
    ("device", "devices", "id"),
    ("policy", "policies", "id"),
    ("key", "api_keys", "case when name <> 'test' then id end"),
    ("credential", "api_keys", "id"),
    ("invitation", "invitations", "id"),
    ("execution", "executions", "id"),
    ("uuid", "executions", "uuid"),
    ("session", "sessions", "id"),
    ("client", "client_sessions", "id"),
    ("person", "members", "user_id"),
    (
        "member",
        "members",
        "case when role <> 'owner' then user_id end",
    ),
];

pub(super) struct Side {
    /// In every text that this side writes.
    pub(super) marker: String,
    pub(super) slug: String,
    pub(super) workspace: WorkspaceId,
    pub(super) owner: TestMember,
    admin: String,
    /// Ids of the other that it has put into a body: they may come back to it.
    pub(super) said: BTreeSet<String>,
    /// The statement that reads all its rows.
    pub(super) dump: String,
    /// Every id that it ever had, by kind.
    had: BTreeMap<String, BTreeSet<String>>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// Not looked at yet.
    new: String,
    all: String,
}

impl Side {
    pub(super) async fn start(test: &TestApp) -> Self {
        let marker = format!("zq{}", &Uuid::new_v4().simple().to_string()[..10]);
        let slug = format!("team-{marker}");
        let owner = test.member(&slug, MemberRole::Owner).await;
        test.member(&slug, MemberRole::Viewer).await;
        let (workspace, admin) = test.key_for(&slug, KeyRole::Admin).await;
        let mut side = Self {
            marker,
            slug,
            workspace,
            owner,
            admin: admin.expose().to_owned(),
            said: BTreeSet::new(),
            dump: dump::statement(test).await,
            had: BTreeMap::new(),
            heard: Arc::default(),
        };
        side.learn(test).await;
        side
    }

    /// Looks which ids it has now.
    pub(super) async fn learn(&mut self, test: &TestApp) {
        let parts = KINDS.map(|(kind, table, id)| {
            format!(
                "select '{kind}' as kind, ({id})::text as id from {table} where workspace_id = $1"
            )
        });
        let all = format!(
            "select kind, id from ({}) ids where id is not null order by id",
            parts.join(" union all ")
        );
        let rows: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(all))
            .bind(self.workspace.0)
            .fetch_all(test.db())
            .await
            .unwrap();
        for (kind, id) in rows {
            self.had.entry(kind).or_default().insert(id);
        }
    }

    /// The ids of a kind that it ever had.
    pub(super) fn ids(&self, kind: &str) -> impl DoubleEndedIterator<Item = &String> {
        self.had.get(kind).into_iter().flatten()
    }

    /// What the other side must never be told.
    pub(super) fn secrets(&self) -> Vec<String> {
        let ids = self.had.values().flatten().cloned();
        let own = [self.marker.clone(), self.workspace.to_string()];
        own.into_iter().chain(ids).collect()
    }

    /// The first of these that stands in a text for this side, unless this side had named it.
    pub(super) fn leaked(
        &self,
        secrets: &[String],
        text: &str,
        named: &[String],
    ) -> Option<String> {
        let text = text.to_lowercase();
        let is_new = |secret: &&String| !self.said.contains(*secret) && !named.contains(secret);
        let found = secrets
            .iter()
            .filter(|secret| text.contains(secret.as_str()));
        found.filter(is_new).map(String::to_owned).next()
    }

    /// Performs an operation; the status, and the headers with the body. A stream is listened to
    /// in the background instead.
    pub(super) async fn ask(&self, test: &TestApp, operation: &Operation) -> (u16, String) {
        let credential = match operation.access {
            Access::Person => &self.owner.person.token,
            _ if operation.as_owner => &self.owner.token,
            _ => &self.admin,
        };
        let mut request = test.as_(credential, operation.method.clone(), &operation.path);
        if let Some(body) = &operation.body {
            request = request.json(body);
        }
        if let Some(key) = &operation.once {
            request = request.header("idempotency-key", key);
        }
        let request = request.header("accept", operation.accept);
        let answer = tokio::time::timeout(PATIENCE, request.send()).await;
        let answer = answer.expect("an answer in time").unwrap();
        let status = answer.status().as_u16();
        let mut text = format!("{:?}\n", answer.headers());
        let kind = answer.headers().get("content-type");
        if kind.is_some_and(|kind| kind == "text/event-stream") {
            let heard = self.heard.clone();
            let mut chunks = answer.bytes_stream();
            tokio::spawn(async move {
                while let Some(Ok(chunk)) = chunks.next().await {
                    let mut heard = heard.lock().unwrap();
                    heard.new.push_str(&String::from_utf8_lossy(&chunk));
                }
            });
            return (status, text);
        }
        let body = tokio::time::timeout(PATIENCE, answer.text()).await;
        text.push_str(&body.expect("a body in time").unwrap());
        (status, text)
    }

    /// What streams told since the last look, in whole lines.
    pub(super) fn take_heard(&self) -> String {
        let mut heard = self.heard.lock().unwrap();
        let end = heard.new.rfind('\n').map_or(0, |at| at + 1);
        let taken: String = heard.new.drain(..end).collect();
        heard.all.push_str(&taken);
        taken
    }

    /// Whether a stream told this, looked at or not.
    pub(super) fn has_heard(&self, text: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.all.contains(text) || heard.new.contains(text)
    }
}
