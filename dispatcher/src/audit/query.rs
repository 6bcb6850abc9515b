//! What may be asked of the log, in the spelling of either generation of clients.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clawlink_shared::id::UserId;
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Outcome;
use crate::error::{ApiError, ApiResult};
use crate::http::body::maybe_moment;
use crate::http::page;

/// Most entries of one answer.
const MAX_LIMIT: i64 = 1000;
/// Beyond it pages are found by cursor: skipping rows is work that grows.
const MAX_OFFSET: i64 = 100_000;

/// The query of every list of entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntriesQuery {
    /// Most entries of the answer.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Entries to skip; better pass on the cursor.
    #[param(minimum = 0, maximum = 100000)]
    offset: Option<i64>,
    /// What `X-Next-Cursor` of the page before said.
    cursor: Option<String>,
    /// As `task.updated` or `task_updated`.
    #[serde(alias = "event_type", alias = "type")]
    event_type: Option<String>,
    /// Entries of this person.
    #[serde(alias = "user_id")]
    user_id: Option<UserId>,
    /// Entries of this actor: `key:7`, `user:…`, `client:…`, `operator`.
    actor: Option<String>,
    /// Entries about things of this type.
    #[serde(alias = "resource_type")]
    resource_type: Option<String>,
    /// Entries about the thing with this id.
    #[serde(alias = "resource_id")]
    resource_id: Option<String>,
    /// Entries that ended so.
    outcome: Option<Outcome>,
    /// Entries from this moment on.
    #[serde(default, deserialize_with = "maybe_moment")]
    from: Option<OffsetDateTime>,
    /// Entries before this moment.
    #[serde(default, deserialize_with = "maybe_moment")]
    to: Option<OffsetDateTime>,
    #[serde(rename = "session_id")]
    #[param(ignore)]
    session_id: Option<String>,
    #[serde(rename = "auth_session_id")]
    #[param(ignore)]
    auth_session_id: Option<String>,
}

/// Which entries.
#[derive(Debug, Default)]
pub(super) struct Filter {
    /// Any of these, with `_` for the dot.
    pub(super) actions: Option<Vec<String>>,
    pub(super) actor: Option<String>,
    /// A client session of the older runtime API.
    pub(super) client: Option<String>,
    pub(super) resource_type: Option<String>,
    pub(super) resource_id: Option<String>,
    pub(super) outcome: Option<Outcome>,
    pub(super) from: Option<OffsetDateTime>,
    pub(super) to: Option<OffsetDateTime>,
}

/// Which page of them.
#[derive(Debug)]
pub(super) struct Page {
    /// Entries before this id.
    pub(super) before: Option<i64>,
    pub(super) offset: i64,
    pub(super) limit: i64,
}

impl EntriesQuery {
    /// Whether this is unmistakably a client of the older generation: it shows a session
    /// instead of a credential.
    pub(super) fn is_older(&self, headers: &HeaderMap) -> bool {
        let shows_session = self.session_id.is_some() || self.auth_session_id.is_some();
        shows_session && !headers.contains_key(header::AUTHORIZATION)
    }

    /// The filter, narrowed to a person or a client session where the path names one.
    pub(super) fn filter(&self, user: Option<UserId>, client: Option<Uuid>) -> Filter {
        let user = user.or(self.user_id).map(|user| format!("user:{user}"));
        Filter {
            actions: self.event_type.as_deref().map(spellings),
            actor: user.or_else(|| self.actor.clone()),
            client: client.map(|client| client.to_string()),
            resource_type: self.resource_type.clone(),
            resource_id: self.resource_id.clone(),
            outcome: self.outcome,
            from: self.from,
            to: self.to,
        }
    }

    /// The page, of `usual` entries where nothing is said.
    pub(super) fn page(&self, usual: i64) -> ApiResult<Page> {
        let limit = page::limit_up_to(self.limit, usual, MAX_LIMIT)?;
        let offset = self.offset.unwrap_or(0);
        if !(0..=MAX_OFFSET).contains(&offset) {
            let detail = format!("offset must be from 0 to {MAX_OFFSET}; use the cursor beyond");
            return Err(ApiError::invalid(detail));
        }
        Ok(Page {
            before: self.cursor.as_deref().map(read_cursor).transpose()?,
            offset,
            limit,
        })
    }
}

/// Names of an action in the log. The older generation calls an execution a task.
fn spellings(name: &str) -> Vec<String> {
    let name = name.replace('.', "_");
    let execution = name
        .strip_prefix("task_")
        .map(|rest| format!("execution_{rest}"));
    std::iter::once(name).chain(execution).collect()
}

/// The place of an entry, opaque to clients.
pub(super) fn cursor(id: i64) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id.to_be_bytes())
}

fn read_cursor(text: &str) -> ApiResult<i64> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let bytes: Option<[u8; 8]> = bytes.try_into().ok();
    bytes
        .map(i64::from_be_bytes)
        .ok_or_else(|| ApiError::invalid("cursor is not one that this API gave"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_makes_a_client_newer_and_a_session_alone_older() {
        let with_session = EntriesQuery {
            session_id: Some("s".to_owned()),
            ..EntriesQuery::default()
        };
        let with_other = EntriesQuery {
            auth_session_id: Some("s".to_owned()),
            ..EntriesQuery::default()
        };
        let mut headers = HeaderMap::new();
        assert!(with_session.is_older(&headers) && with_other.is_older(&headers));
        assert!(!EntriesQuery::default().is_older(&headers));
        headers.insert(header::AUTHORIZATION, "Bearer x".parse().expect("a header"));
        assert!(!with_session.is_older(&headers) && !with_other.is_older(&headers));
    }
}
