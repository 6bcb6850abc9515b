//! Entries as either generation of clients expects them.

use clawlink_shared::id::WorkspaceId;
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::macros::format_description;
use utoipa::ToSchema;

use super::store::read::Record;
use crate::executions::timestamp;

/// An entry for the portal and everything newer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEvent)]
pub(super) struct Event {
    id: i64,
    /// Null for what belongs to no workspace.
    tenant_id: Option<WorkspaceId>,
    /// The person, if it was one.
    user_id: Option<String>,
    /// Who: `user:…`, `key:7`, `client:…`, `operator`.
    actor: String,
    address: Option<String>,
    /// What, as `task_updated`.
    event_type: String,
    resource_type: Option<String>,
    resource_id: Option<String>,
    /// `allowed`, `denied` or `error`.
    outcome: String,
    /// More, as the text of a JSON object.
    metadata: Option<String>,
    created_at: String,
}

/// An entry for clients of the older runtime API.
#[derive(Debug, Serialize)]
pub(super) struct OlderEvent {
    event_id: String,
    event_type: String,
    timestamp: String,
    user_id: Option<String>,
    session_id: Option<String>,
    resource_type: Option<String>,
    resource_id: Option<String>,
    action: Option<String>,
    status: &'static str,
    details: Box<RawValue>,
}

/// A line of the export.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    id: i64,
    at: String,
    workspace_id: WorkspaceId,
    actor: String,
    address: Option<String>,
    action: String,
    resource_type: Option<String>,
    resource_id: Option<String>,
    outcome: String,
    details: Box<RawValue>,
    /// Its place in the chain, once it has one.
    position: Option<i64>,
    hash: Option<String>,
}

impl Event {
    pub(super) fn new(workspace: Option<WorkspaceId>, record: Record) -> Self {
        let user = record.actor.strip_prefix("user:").map(str::to_owned);
        Self {
            id: record.id,
            tenant_id: workspace,
            user_id: user,
            actor: record.actor,
            address: record.address,
            event_type: record.action.replace('.', "_"),
            resource_type: record.resource_type,
            resource_id: record.resource_id,
            outcome: record.outcome,
            metadata: (record.details != "{}").then_some(record.details),
            created_at: timestamp(record.at),
        }
    }
}

impl OlderEvent {
    pub(super) fn new(record: Record) -> anyhow::Result<Self> {
        #[derive(serde::Deserialize)]
        struct Details {
            #[serde(rename = "clientSession")]
            client_session: Option<String>,
        }
        let of = |kind: &str| record.actor.strip_prefix(kind).map(str::to_owned);
        let details: Option<Details> = serde_json::from_str(&record.details).ok();
        let session = details.and_then(|details| details.client_session);
        // What is an execution here was a task there.
        let event_type = match record.action.strip_prefix("execution.") {
            Some(deed) => format!("task.{deed}"),
            None => record.action,
        };
        Ok(Self {
            event_id: record.id.to_string(),
            timestamp: naive(record.at),
            user_id: of("user:"),
            session_id: of("client:").or(session),
            resource_type: record.resource_type,
            resource_id: record.resource_id,
            action: event_type.split_once('.').map(|(_, deed)| deed.to_owned()),
            event_type,
            status: match record.outcome.as_str() {
                "allowed" => "success",
                "denied" => "denied",
                _ => "error",
            },
            details: RawValue::from_string(record.details)?,
        })
    }
}

impl Line {
    pub(super) fn new(workspace: WorkspaceId, record: Record) -> anyhow::Result<Self> {
        use base64::Engine;
        let encode = |hash: Vec<u8>| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(hash);
        Ok(Self {
            id: record.id,
            at: format!("{}Z", naive(record.at)),
            workspace_id: workspace,
            actor: record.actor,
            address: record.address,
            action: record.action,
            resource_type: record.resource_type,
            resource_id: record.resource_id,
            outcome: record.outcome,
            details: RawValue::from_string(record.details)?,
            position: record.position,
            hash: record.hash.map(encode),
        })
    }
}

/// UTC without saying so, as the older generation writes time, to the microsecond.
fn naive(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]"
        ))
        .expect("every date has this form")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn record(actor: &str, action: &str, outcome: &str, details: &str) -> Record {
        Record {
            id: 7,
            at: datetime!(2026-11-20 10:00:00.123456 UTC),
            actor: actor.to_owned(),
            address: None,
            action: action.to_owned(),
            resource_type: Some("execution".to_owned()),
            resource_id: Some("17".to_owned()),
            outcome: outcome.to_owned(),
            details: details.to_owned(),
            position: None,
            hash: None,
        }
    }

    #[test]
    fn the_older_generation_reads_its_own_words() {
        let details = r#"{"clientSession": "s"}"#;
        let by_user = record("user:u", "execution.submitted", "allowed", details);
        let shown = OlderEvent::new(by_user).expect("details are JSON");
        let expected = json!({
            "event_id": "7", "event_type": "task.submitted",
            "timestamp": "2026-11-20T10:00:00.123456", "user_id": "u", "session_id": "s",
            "resource_type": "execution", "resource_id": "17", "action": "submitted",
            "status": "success", "details": {"clientSession": "s"},
        });
        assert_eq!(
            serde_json::to_value(shown).expect("it serializes"),
            expected
        );
        let by_client = record("client:c", "access.denied", "denied", "{}");
        let shown = OlderEvent::new(by_client).expect("details are JSON");
        let shown = serde_json::to_value(shown).expect("it serializes");
        assert_eq!(shown["session_id"], "c");
        assert_eq!(shown["user_id"], json!(null));
        assert_eq!(
            (&shown["event_type"], &shown["status"]),
            (&json!("access.denied"), &json!("denied"))
        );
    }
}
