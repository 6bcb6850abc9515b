//! The events of the git phases.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clawlink_shared::event::EventType;
use serde::Serialize;

use crate::events::EventSink;
use crate::workspace::git::Progress;

/// Between two progress events of one transfer.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Turns progress into events, not too many of them.
pub(super) fn reporter(events: &EventSink) -> impl FnMut(Progress) + '_ {
    let mut last: Option<Instant> = None;
    move |progress| {
        let data = match progress {
            Progress::Message(message) => PullProgress {
                message: Some(message),
                ..PullProgress::of("message")
            },
            Progress::Objects {
                received,
                total,
                bytes,
            } => {
                let is_last = received == total;
                if !is_last && last.is_some_and(|at| at.elapsed() < PROGRESS_EVERY) {
                    return;
                }
                last = Some(Instant::now());
                PullProgress {
                    message: Some(format!("Received {received} of {total} objects")),
                    received_objects: Some(received),
                    total_objects: Some(total),
                    received_bytes: Some(bytes),
                    ..PullProgress::of("progress")
                }
            }
        };
        events.emit_blocking(EventType::GithubPullProgress, &Data { data });
    }
}

#[derive(Serialize)]
pub(super) struct Data<T> {
    pub(super) data: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PullProgress {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_objects: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total_objects: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target_path: Option<PathBuf>,
}

impl PullProgress {
    pub(super) fn of(kind: &'static str) -> Self {
        Self {
            kind,
            message: None,
            received_objects: None,
            total_objects: None,
            received_bytes: None,
            target_path: None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BranchCreated {
    pub(super) branch_name: String,
    pub(super) base_branch: String,
    pub(super) message: String,
}

/// Where `commit_progress` events go.
pub(super) struct Stages<'a> {
    pub(super) events: &'a EventSink,
    pub(super) branch: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stage<'a> {
    pub(super) stage: &'static str,
    pub(super) message: &'a str,
    pub(super) branch: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit_message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a str>,
}

impl<'a> Stages<'a> {
    pub(super) fn stage(&self, stage: &'static str, message: &'a str) -> Stage<'a> {
        Stage {
            stage,
            message,
            branch: self.branch,
            commit_message: None,
            commit_hash: None,
            error: None,
        }
    }

    pub(super) async fn emit(&self, stage: Stage<'_>) {
        self.events.emit(EventType::CommitProgress, &stage).await;
    }

    pub(super) async fn say(&self, stage: &'static str, message: &str) {
        let stage = Stages {
            events: self.events,
            branch: self.branch,
        }
        .stage(stage, message);
        self.events.emit(EventType::CommitProgress, &stage).await;
    }
}
