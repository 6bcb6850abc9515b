//! What a conversation has cost before this run. Agents report the whole conversation's cost;
//! an execution is charged only for its own part. The sum travels with the session's state.

use std::path::Path;

use serde_json::{Value, json};

use super::launch::home;
use super::updates::AcpParser;
use crate::agents::{AgentJob, files};

/// The file below HOME, which the archive takes along.
const FILE: &str = ".clawlink/cost.json";

/// Largest such file that is read.
const MAX_BYTES: u64 = 1024;

/// US dollars; nothing for a new conversation, `None` if nobody knows.
pub(super) fn before(job: &AgentJob) -> Option<f64> {
    if job.resume.is_none() {
        return Some(0.0);
    }
    let path = home(job).ok()?.join(FILE);
    let bytes = files::read_regular(&job.session_root, &path, MAX_BYTES)?;
    let kept: Value = serde_json::from_slice(&bytes).ok()?;
    let cost = kept["costUsd"].as_f64()?;
    // Another conversation's sum says nothing about this one's.
    let is_same = kept["conversation"].as_str() == job.resume.as_deref();
    (is_same && cost.is_finite()).then_some(cost)
}

/// Keeps the sum for the next run.
pub(super) fn keep(job: &AgentJob, parser: &AcpParser, conversation: Option<&str>) {
    let Some(cost) = parser.whole_cost_usd() else {
        return;
    };
    let kept = json!({"conversation": conversation, "costUsd": cost}).to_string();
    let written = home(job).and_then(|home: &Path| {
        files::write_private(&job.session_root, &home.join(FILE), kept.as_bytes())
    });
    if let Err(error) = written {
        tracing::warn!("the conversation's cost is not kept: {error:#}");
    }
}
