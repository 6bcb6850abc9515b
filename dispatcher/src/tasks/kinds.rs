//! The closed sets of a task's fields.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a task is. Any may follow any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TaskStatus)]
pub enum Status {
    /// Nobody has begun.
    Todo,
    /// Somebody works on it.
    InProgress,
    /// It waits for somebody's look.
    InReview,
    /// It is finished.
    Done,
    /// It cannot go on.
    Blocked,
}

impl Status {
    /// All of them, in a board's order.
    pub const ALL: [Self; 5] = [
        Self::Todo,
        Self::InProgress,
        Self::InReview,
        Self::Done,
        Self::Blocked,
    ];

    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todo => "todo",
            Self::InProgress => "in_progress",
            Self::InReview => "in_review",
            Self::Done => "done",
            Self::Blocked => "blocked",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// How one task stands to another, seen from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Relation {
    /// The other one is above it.
    Parent,
    /// The other one is below it.
    Child,
    /// The other one waits for it.
    Blocks,
    /// It waits for the other one.
    BlockedBy,
    /// They have to do with each other.
    Relates,
}
