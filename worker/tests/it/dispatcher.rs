//! A scripted dispatcher: speaks the worker API over a socket, remembers what it was told,
//! and misbehaves on request. It is also the object storage.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::{
    ArchiveSource, Assignment, ClaimRequest, CommitAuthor, Complete, Credentials, ExecutionRef,
    LEASE_LOST, Lease, Limits, PROTOCOL_HEADER, SessionRef,
};
use clawlink_shared::event::WorkerEvent;
use clawlink_shared::execution::{AgentOptions, Spec};
use clawlink_shared::id::{ClaimId, ExecutionId, SessionId};
use clawlink_shared::prompt::PromptPart;
use clawlink_shared::secret::Secret;
use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use crate::agent_job::PATIENCE;

/// What workers show to claim work.
pub(crate) const POOL_TOKEN: &str = "pool-token-of-the-tests";

/// The lease token of every assignment.
pub(crate) const LEASE_TOKEN: &str = "lease-token-of-the-tests";

/// An archive whose download never comes to anything.
pub(crate) const STALLED: &str = "stalled";

/// How long an empty long-poll waits here, unless it is in a hurry.
const POLL: Duration = Duration::from_millis(500);

/// A running dispatcher.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    told: Mutex<Told>,
    changes: watch::Sender<u64>,
    url: String,
}

/// What it knows and how it behaves.
#[derive(Default)]
pub(crate) struct Told {
    /// To be handed out.
    pub(crate) queue: VecDeque<Assignment>,
    /// Handed out, by claim.
    pub(crate) granted: HashMap<ClaimId, Assignment>,
    pub(crate) claims: Vec<ClaimRequest>,
    /// Calls that were answered or would have been, such as `ack`, `state`.
    pub(crate) calls: Vec<String>,
    /// Events by number, as they were first told.
    pub(crate) events: BTreeMap<u64, WorkerEvent>,
    /// Numbers that were told more than once.
    pub(crate) repeated: Vec<u64>,
    pub(crate) completes: Vec<Complete>,
    pub(crate) archives: HashMap<String, Bytes>,
    /// Orders, numbered from 1.
    pub(crate) orders: Vec<Value>,
    /// How many answers to a call get lost, after it was obeyed.
    pub(crate) lose_answers: HashMap<&'static str, usize>,
    /// Every call is answered so.
    pub(crate) lease_lost: bool,
    /// Nothing is heard and nothing is answered.
    pub(crate) away: bool,
    /// What stands before it has lost sight of it, and answers by itself.
    pub(crate) is_hidden: bool,
    /// Calls that were answered so.
    pub(crate) hidden_calls: Vec<String>,
    /// Types of events that are refused, and whether the refusal names the event.
    pub(crate) refuse: Option<(&'static str, bool)>,
    /// Milliseconds of a lease.
    pub(crate) lease_ms: u64,
    /// Long-polls are answered at once, as by one that drains.
    pub(crate) is_hurried: bool,
}

impl Told {
    pub(crate) fn count(&self, call: &str) -> usize {
        self.calls.iter().filter(|&called| called == call).count()
    }

    pub(crate) fn types(&self) -> Vec<&'static str> {
        self.events
            .values()
            .map(|event| event.kind.as_str())
            .collect()
    }

    /// All `agent_text` so far.
    pub(crate) fn text(&self) -> String {
        let texts = self.events.values().filter_map(|event| {
            let fields: Value = serde_json::from_str(event.fields.get()).ok()?;
            let is_text = event.kind.as_str() == "agent_text";
            is_text.then(|| fields["text"].as_str().unwrap_or_default().to_owned())
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

impl Shared {
    fn poll(&self) -> Duration {
        match self.told.lock().unwrap().is_hurried {
            true => Duration::ZERO,
            false => POLL,
        }
    }
}

impl Dispatcher {
    /// Listens on a free port.
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            told: Mutex::new(Told {
                lease_ms: 10_000,
                ..Told::default()
            }),
            changes: watch::Sender::new(0),
            url: url.clone(),
        });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    /// What it knows, to be looked at or changed.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.shared.told.lock().unwrap()
    }

    /// Puts a script into the queue.
    pub(crate) fn submit(&self, script: &str) -> SessionId {
        let mut assignment = assignment(script);
        assignment.lease.expires_in_ms = self.told().lease_ms;
        let session = assignment.session.id;
        self.put(assignment);
        session
    }

    pub(crate) fn put(&self, assignment: Assignment) {
        self.told().queue.push_back(assignment);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Gives an order to whoever listens.
    pub(crate) fn order(&self, order: Value) {
        self.told().orders.push(order);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Waits until what it knows satisfies `is_so`; fails the test if that does not happen.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Told) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        let waiting = changes.wait_for(|_| is_so(&self.told()));
        let is_in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(is_in_time, "not in time: {what}");
    }

    /// A source for the one archive that was uploaded.
    pub(crate) fn archive_source(&self) -> ArchiveSource {
        let told = self.told();
        let complete = told.completes.last().unwrap();
        let archive = complete.archive.clone().unwrap();
        ArchiveSource {
            url: Secret::new(format!("{}/storage/{}", self.url, archive.key)),
            size: archive.size,
            sha256: archive.sha256,
        }
    }
}

/// An execution of a shell script on a new session.
pub(crate) fn assignment(script: &str) -> Assignment {
    Assignment {
        execution: ExecutionRef {
            id: ExecutionId(7),
            uuid: Uuid::new_v4(),
        },
        lease: Lease {
            token: Secret::new(LEASE_TOKEN),
            expires_in_ms: 10_000,
            attempt: 1,
        },
        request: Spec {
            prompt: vec![PromptPart::Text {
                text: script.to_owned(),
            }],
            agent: AgentKind::Shell,
            repository: None,
            auto_commit: false,
            session_name: "A test".to_owned(),
            working_branch: None,
            pull_request: None,
            options: AgentOptions::default(),
            skills: Vec::new(),
            definition: None,
            traceparent: None,
        },
        credentials: Credentials::default(),
        session: SessionRef {
            id: SessionId::random(),
            turn: 1,
            archived_root: None,
            archive: None,
            provider_session_id: None,
        },
        limits: Limits {
            timeout_seconds: 600,
            outage_grace_seconds: 60,
            max_session_bytes: 1 << 30,
            max_session_files: 100_000,
            include_ignored: false,
            commit_author: CommitAuthor {
                name: "clawlink".to_owned(),
                email: "clawlink@localhost".to_owned(),
            },
        },
        skills: Vec::new(),
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let headers = request.headers().clone();
    let Ok(body) = axum::body::to_bytes(request.into_body(), 64 << 20).await else {
        return lost();
    };
    if shared.told.lock().unwrap().away {
        return lost();
    }
    if let Some(key) = path.strip_prefix("/storage/") {
        return storage(&shared, key, body);
    }
    assert_eq!(headers[PROTOCOL_HEADER], "1");
    let token = headers["authorization"].to_str().unwrap().to_owned();
    let call = match path.strip_prefix("/worker/executions/7/") {
        Some(call) => {
            assert_eq!(token, format!("Bearer {LEASE_TOKEN}"));
            call.to_owned()
        }
        None => path.strip_prefix("/worker/").unwrap().to_owned(),
    };
    if shared.told.lock().unwrap().is_hidden {
        shared.told.lock().unwrap().hidden_calls.push(call);
        shared.changes.send_modify(|count| *count += 1);
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    let answer = match call.as_str() {
        "claim" if token != format!("Bearer {POOL_TOKEN}") => {
            problem(401, "unauthorized", json!({}))
        }
        "claim" => claim(&shared, &body).await,
        "control" => control(&shared, &query).await,
        _ => obey(&mut shared.told.lock().unwrap(), &call, &body, &shared.url),
    };
    let is_lost = {
        let mut told = shared.told.lock().unwrap();
        let is_lost = match told.lose_answers.get_mut(call.as_str()) {
            Some(left) if *left > 0 && answer.status() != StatusCode::NO_CONTENT => {
                *left -= 1;
                true
            }
            _ => told.away,
        };
        told.calls.push(call);
        is_lost
    };
    shared.changes.send_modify(|count| *count += 1);
    if is_lost { lost() } else { answer }
}

/// An answer that breaks off.
fn lost() -> Response {
    let cut = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
    Body::from_stream(cut).into_response()
}

fn problem(status: u16, code: &str, more: Value) -> Response {
    let mut body = json!({
        "type": format!("urn:clawlink:error:{code}"), "title": code, "status": status,
        "detail": format!("refused: {code}"), "error": code, "message": code,
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

async fn claim(shared: &Shared, body: &[u8]) -> Response {
    let request: ClaimRequest = serde_json::from_slice(body).unwrap();
    let mut changes = shared.changes.subscribe();
    let next = || {
        let mut told = shared.told.lock().unwrap();
        if let Some(again) = told.granted.get(&request.claim_id) {
            return Some(again.clone());
        }
        let next = told.queue.pop_front()?;
        told.granted.insert(request.claim_id, next.clone());
        Some(next)
    };
    shared.told.lock().unwrap().claims.push(request.clone());
    shared.changes.send_modify(|count| *count += 1);
    let poll = shared.poll();
    let mut found = None;
    let waiting = changes.wait_for(|_| {
        found = next();
        found.is_some()
    });
    let _nothing_came = tokio::time::timeout(poll, waiting).await.is_err();
    match found {
        Some(assignment) => Json(assignment).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn control(shared: &Shared, query: &str) -> Response {
    let after: usize = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("after="))
        .unwrap()
        .parse()
        .unwrap();
    let poll = shared.poll();
    let mut changes = shared.changes.subscribe();
    let waiting = changes.wait_for(|_| {
        let told = shared.told.lock().unwrap();
        told.orders.len() > after || told.lease_lost
    });
    let _nothing_came = tokio::time::timeout(poll, waiting).await.is_err();
    let told = shared.told.lock().unwrap();
    if told.lease_lost {
        return problem(409, LEASE_LOST, json!({}));
    }
    let orders = told.orders.iter().enumerate().skip(after);
    let items: Vec<Value> = orders
        .map(|(at, order)| {
            let mut item = order.clone();
            item["k"] = json!(at + 1);
            item
        })
        .collect();
    Json(json!({ "items": items })).into_response()
}

fn obey(told: &mut Told, call: &str, body: &[u8], url: &str) -> Response {
    if told.lease_lost {
        return problem(409, LEASE_LOST, json!({}));
    }
    let renewed = json!({"leaseExpiresInMs": told.lease_ms});
    match call {
        "ack" | "heartbeat" | "state" => Json(renewed).into_response(),
        "events" => events(told, body),
        "archive" => {
            let key = format!("archive-{}", told.calls.len());
            let part = |number| json!({"number": number, "url": format!("{url}/storage/{key}")});
            Json(json!({
                "key": key, "url": format!("{url}/storage/{key}"),
                "partSize": 64 << 20, "parts": [part(1)],
            }))
            .into_response()
        }
        "archive/finish" => Json(json!({})).into_response(),
        "complete" => complete(told, body),
        _ => problem(404, "not_found", json!({})),
    }
}

fn events(told: &mut Told, body: &[u8]) -> Response {
    let lines = body
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    let events: Vec<WorkerEvent> = lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert!(!events.is_empty(), "an empty batch");
    if let Some((kind, is_named)) = told.refuse
        && let Some(event) = events.iter().find(|event| event.kind.as_str() == kind)
    {
        let named = is_named.then_some(event.n);
        return problem(400, "event_refused", json!({ "n": named }));
    }
    for event in events {
        let next = told.events.last_key_value().map_or(0, |(n, _)| *n) + 1;
        assert!(event.n <= next, "event {} came before {next}", event.n);
        if event.n < next {
            told.repeated.push(event.n);
            continue;
        }
        told.events.insert(event.n, event);
    }
    let acked = told.events.last_key_value().map_or(0, |(n, _)| *n);
    Json(json!({"ackedN": acked, "leaseExpiresInMs": told.lease_ms})).into_response()
}

fn complete(told: &mut Told, body: &[u8]) -> Response {
    let complete: Complete = serde_json::from_slice(body).unwrap();
    let acked = told.events.last_key_value().map_or(0, |(n, _)| *n);
    if complete.last_n > acked {
        return problem(409, "events_missing", json!({"ackedN": acked}));
    }
    let is_there = |key: &String| told.archives.contains_key(key);
    if complete
        .archive
        .as_ref()
        .is_some_and(|archive| !is_there(&archive.key))
    {
        return problem(409, "archive_missing", json!({}));
    }
    told.completes.push(complete);
    Json(json!({})).into_response()
}

fn storage(shared: &Shared, key: &str, body: Bytes) -> Response {
    if key == STALLED {
        return Body::from_stream(futures::stream::pending::<std::io::Result<Bytes>>())
            .into_response();
    }
    let mut told = shared.told.lock().unwrap();
    if body.is_empty() {
        return match told.archives.get(key) {
            Some(bytes) => bytes.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    told.archives.insert(key.to_owned(), body);
    ([("etag", "\"x\"")], "").into_response()
}
