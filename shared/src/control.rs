//! The worker API: messages between one worker and any dispatcher.
//!
//! A worker's life, as calls (all dialled by the worker, each may reach another replica):
//!
//! ```text
//! claim ─▶ ack ─▶ events… ─▶ state{running} ─▶ events… ─▶ pull-request? ─▶ archive ─▶ archive/finish ─▶ complete ─▶ exit
//!             └──── heartbeat every third of the lease, control long-poll beside it ────┘
//! ```
//!
//! Every call after `claim` shows the lease token; a wrong or superseded one is answered
//! `409 lease_lost`, upon which the worker stops its agent and exits. Repeating any call is
//! safe: `claim` by its claim id, events by `(attempt, n)`, `complete` by its lease.
//!
//! Refusals are problem bodies whose `error` is one of the codes below. `400 event_refused`
//! names the `n` of an event that can never be stored; the worker replaces that one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agent::AgentOffer;
use crate::approval::Decision;
use crate::execution::{ErrorCode, Outcome, Spec, State, Usage};
use crate::id::{ClaimId, ExecutionId, SessionId};
use crate::secret::Secret;

/// Sent in [`PROTOCOL_HEADER`] by every worker; a dispatcher serves this and the one before.
pub const PROTOCOL: u32 = 1;

/// 409: the lease is wrong, expired and swept, or superseded.
pub const LEASE_LOST: &str = "lease_lost";

/// 409 to `complete`: events up to `lastN` are not all committed; `ackedN` says how far.
pub const EVENTS_MISSING: &str = "events_missing";

/// 409 to `complete`: the named archive is not there, or has another size.
pub const ARCHIVE_MISSING: &str = "archive_missing";

/// 400 to `events`: the event `n` is not one that can be stored; none of the batch from it on is.
pub const EVENT_REFUSED: &str = "event_refused";

/// The header that carries the protocol's number.
pub const PROTOCOL_HEADER: &str = "x-clawlink-protocol";

/// Longest time a worker may ask a long-poll to wait, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 30;

/// Largest body of one `events` call, in bytes.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Largest single event line, in bytes; longer payloads are cut by the worker and say so.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Size of each part of an archive but the last, in bytes; archives up to it are uploaded in
/// one request. Workers hold a few parts in memory. With S3's 10,000 parts an archive may have
/// 78 GiB.
pub const ARCHIVE_PART_BYTES: u64 = 8 * 1024 * 1024;

/// How long the storage may take to join the parts of an archive, in seconds: S3 answers only when
/// it has gone through all of them, which takes minutes for large ones.
pub const ARCHIVE_JOIN_SECONDS: u64 = 600;

/// `POST /worker/claim`, with the pool token. Answer: [`Assignment`], or 204 when nothing came.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRequest {
    /// Made by the worker, kept while it retries this call.
    pub claim_id: ClaimId,
    /// Names the process: `{host}-{8 hex}`, at most 128 characters.
    pub worker_id: String,
    /// The machine or container.
    pub host: String,
    /// The worker's own version.
    pub version: String,
    /// The directory below which this worker keeps session roots.
    pub root: String,
    /// What it can run.
    pub agents: Vec<AgentOffer>,
    /// Free-form, for placement and display.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How long to wait for work; at most [`MAX_WAIT_SECONDS`].
    pub wait_seconds: u64,
}

/// What a worker gets to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Which execution.
    pub execution: ExecutionRef,
    /// The right to work on it.
    pub lease: Lease,
    /// What to run.
    pub request: Spec,
    /// Credentials of this request; never stored by the worker.
    pub credentials: Credentials,
    /// The session it belongs to.
    pub session: SessionRef,
    /// Bounds to keep.
    pub limits: Limits,
    /// Instructions that the workspace offers its agents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<Skill>,
}

/// Instructions for something that agents are to do in a certain way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skill {
    /// As people call it; agents get a name made of it.
    pub name: String,
    /// One sentence, by which an agent knows when it needs them.
    pub description: String,
    /// Markdown.
    pub instructions: String,
}

/// An execution's two names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionRef {
    /// The integer in URLs.
    pub id: ExecutionId,
    /// The UUID beside it.
    pub uuid: Uuid,
}

/// The right to work on one attempt of one execution.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Bearer token for all further calls.
    pub token: Secret,
    /// When it lapses unless renewed, as milliseconds from now: clocks need not agree.
    pub expires_in_ms: u64,
    /// Counts the workers that held this execution, from 1.
    pub attempt: u32,
}

/// Secrets handed to the lease holder only.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    /// For the agent: a raw key, or JSON as text in one of the shapes the agent knows.
    pub agent: Option<Secret>,
    /// For the git host.
    pub git_token: Option<Secret>,
    /// Additional environment of the agent; it stands here because people put secrets there.
    pub env: BTreeMap<String, Secret>,
}

/// The session that an execution continues or begins.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionRef {
    /// Its id.
    pub id: SessionId,
    /// This execution's place in it, from 1.
    pub turn: u32,
    /// The [`ClaimRequest::root`] under which the current archive was made.
    pub archived_root: Option<String>,
    /// The state to restore; absent on a first turn.
    pub archive: Option<ArchiveSource>,
    /// The agent's own name for the conversation, from the last turn.
    pub provider_session_id: Option<String>,
}

/// Where a session's current archive can be read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveSource {
    /// Presigned; valid for 15 minutes. A 403 means: ask again with `archive/source`.
    pub url: Secret,
    /// Compressed bytes.
    pub size: u64,
    /// Lower-case hex of the compressed bytes.
    pub sha256: String,
}

/// Bounds that the dispatcher's operator set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Wall-clock limit of the agent's run, in seconds: the request's own, or the operator's.
    pub timeout_seconds: u64,
    /// How long an agent runs on while no dispatcher answers, in seconds.
    pub outage_grace_seconds: u64,
    /// Largest unpacked session, in bytes.
    pub max_session_bytes: u64,
    /// Most entries in a session's archive.
    pub max_session_files: u64,
    /// Whether files that git ignores travel with the session.
    pub include_ignored: bool,
    /// Author of commits that clawlink makes.
    pub commit_author: CommitAuthor,
}

/// Author and committer of clawlink's own commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitAuthor {
    /// Shown name.
    pub name: String,
    /// Shown address.
    pub email: String,
}

/// `POST …/state`: asks for a change; 200 means that it is committed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateChange {
    /// `running` or `waiting`.
    pub to: State,
}

/// Answer to `ack`, `state`, `heartbeat`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRenewed {
    /// Milliseconds from now.
    pub lease_expires_in_ms: u64,
}

/// Answer to `events`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventsAck {
    /// The highest `n` up to which everything is committed.
    pub acked_n: u64,
    /// Milliseconds from now.
    pub lease_expires_in_ms: u64,
}

/// Answer to `GET …/control?after=K`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ControlItems {
    /// In order of `k`; empty when nothing came in time.
    pub items: Vec<ControlItem>,
}

/// One thing the dispatcher has to say to a running worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlItem {
    /// Its number within the execution, from 1.
    pub k: u64,
    /// What it is.
    #[serde(flatten)]
    pub order: Order,
}

/// The content of a [`ControlItem`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Order {
    /// Stop the agent; finish a push that has begun; report `cancelled`.
    Cancel {
        /// For people.
        reason: String,
    },
    /// A question of the agent is answered.
    Approval {
        /// As the worker named it.
        approval_id: Uuid,
        /// The answer.
        decision: Decision,
        /// For the agent to read, with a denial.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A person says something to the running agent.
    Message {
        /// To be named when the agent takes it.
        id: Uuid,
        /// What.
        text: String,
    },
    /// Stop the agent, deliver and save what there is, and report this failure: a limit of the
    /// dispatcher's is reached.
    Stop {
        /// `budget_exceeded`.
        code: ErrorCode,
        /// For people.
        reason: String,
    },
}

/// `POST …/archive`: asks for permission to upload.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArchiveRequest {
    /// Known when the whole archive fits into one part; then one URL is granted.
    pub size: Option<u64>,
}

/// Where to upload. With one URL: `PUT` it and go on to `complete`; with parts: `PUT` each
/// (all but the last exactly `part_size` bytes), then `archive/finish`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveGrant {
    /// The object's key, to be named in `complete`.
    pub key: String,
    /// For a single upload.
    pub url: Option<Secret>,
    /// Size of each part but the last, in bytes.
    pub part_size: u64,
    /// The first part URLs of a multipart upload.
    pub parts: Vec<PartUrl>,
}

/// One part of a multipart upload; valid for 15 minutes, renewed through `archive/parts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartUrl {
    /// From 1.
    pub number: u32,
    /// Presigned.
    pub url: Secret,
}

/// `POST …/archive/parts`: more part URLs, or renewed ones. Answer: [`PartUrls`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartsRequest {
    /// First part wanted, from 1.
    pub from: u32,
    /// How many; at most 100.
    pub count: u32,
}

/// Answer to [`PartsRequest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartUrls {
    /// In order.
    pub parts: Vec<PartUrl>,
}

/// `POST …/archive/finish`: joins the parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchiveFinish {
    /// All parts, in order.
    pub parts: Vec<PartDone>,
}

/// An uploaded part.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartDone {
    /// From 1.
    pub number: u32,
    /// As the storage answered it.
    pub etag: String,
}

/// An uploaded archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveDone {
    /// The granted key.
    pub key: String,
    /// Compressed bytes.
    pub size: u64,
    /// Lower-case hex of the compressed bytes.
    pub sha256: String,
}

/// Answer to `POST …/pull-request`, whose body is empty: which pull request is wanted stands in
/// the request. Exactly one field is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PullRequestAnswer {
    /// The open pull request, made now or found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequest>,
    /// Why there is none, for people; holds no secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its page.
    pub url: String,
    /// Its number in the repository.
    pub number: u64,
}

/// `POST …/credentials`: the agent's credential as its program renewed it. Answer:
/// [`CredentialStored`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewedCredential {
    /// In the shape in which it came.
    pub agent: Secret,
}

/// Answer to [`RenewedCredential`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialStored {
    /// Whether it replaced the secret that it came from. False is no failure: it came with the
    /// request, or the secret has another value by now.
    pub stored: bool,
}

/// `POST …/complete`: the recorded end. Idempotent per lease, for 24 h after the end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Complete {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The last event's number; all must be committed.
    pub last_n: u64,
    /// The session's new state, if it could be saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveDone>,
    /// The branch that holds the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its tip, 40 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_hash: Option<String>,
    /// Whether the git host has that tip.
    #[serde(default)]
    pub pushed: bool,
    /// What was consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The agent's last word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// The agent's own name for the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_session_id: Option<String>,
}

/// Why an execution did not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable.
    pub code: ErrorCode,
    /// For people; redacted.
    pub message: String,
}

impl Failure {
    /// A failure with its message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
