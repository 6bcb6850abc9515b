//! The one shape of every error answer: `application/problem+json` (RFC 9457), with the
//! `error` and `message` members that older clients read.

use serde::{Deserialize, Serialize};

/// Its media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error answer's body.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:clawlink:error:{code}`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status, in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong and what to do.
    pub detail: String,
    /// The stable code; clients match on it.
    pub error: String,
    /// The same as `detail`.
    pub message: String,
    /// The first faulty field of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// All faults of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldFault>,
    /// Seconds to wait before the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// With `events_missing`: up to which number events are committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_n: Option<u64>,
    /// With `event_refused`: the number of the event that can never be stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
}

/// One fault of a request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldFault {
    /// Path of the field, such as `github.repoUrl`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}
