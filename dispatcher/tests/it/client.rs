//! A client's view: requests as clients send them, and streams read event by event.

use bytes::Bytes;
use clawlink::app::App;
use clawlink::executions::store::events::{self, LockedLog, NewEvent};
use clawlink_shared::event::EventType;
use clawlink_shared::id::{ExecutionId, SessionId};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::app::{Dispatcher, TestApp};

/// A request that needs no credential and no repository.
pub(crate) fn script(text: &str) -> Value {
    json!({"userRequest": text, "codingAssistantProvider": "shell"})
}

/// What `202` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Submitted {
    pub(crate) execution_id: ExecutionId,
    pub(crate) session_id: SessionId,
}

impl TestApp {
    /// Submits with the developer's key and wants JSON; panics unless accepted.
    pub(crate) async fn accepted(&self, body: &Value) -> Submitted {
        let answer = self.execute(body).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// The same at another dispatcher.
    pub(crate) async fn accepted_at(&self, dispatcher: &Dispatcher, body: &Value) -> Submitted {
        let request = self.http.post(format!("{}/execute", dispatcher.url));
        let request = request.bearer_auth(self.key.expose());
        let request = request.header("accept", "application/json").json(body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// `POST /execute` that wants JSON.
    pub(crate) fn execute(&self, body: &Value) -> reqwest::RequestBuilder {
        self.post("/execute")
            .header("accept", "application/json")
            .json(body)
    }
}

/// The status and the problem body of a refusal.
pub(crate) async fn refusal(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    assert!(status >= 400, "not refused: {status}");
    let kind = answer.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "application/problem+json");
    (status, answer.json().await.unwrap())
}

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }

    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }
}

/// An open stream.
pub(crate) struct Stream {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Stream {
    /// Opens one; panics unless the answer is an event stream.
    pub(crate) async fn open(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            chunks: answer.bytes_stream().boxed(),
            buffer: Vec::new(),
        }
    }

    /// The next event; `None` when the stream ended or was cut.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            let frame = self.frame().await?;
            if frame.starts_with(':') {
                continue;
            }
            let (id, data) = frame.split_once('\n').unwrap();
            return Some(Event {
                id: id.strip_prefix("id: ").unwrap().to_owned(),
                data: data.strip_prefix("data: ").unwrap().to_owned(),
            });
        }
    }

    /// The next event or comment as it was sent, without the blank line.
    pub(crate) async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let mut frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
                frame.truncate(end);
                return Some(String::from_utf8(frame).unwrap());
            }
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                _ => return None,
            }
        }
    }

    /// All events until the stream ends.
    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut list = Vec::new();
        while let Some(event) = self.next().await {
            list.push(event);
        }
        list
    }
}

/// Appends events to an execution's log as a worker's or the dispatcher's writes do, and
/// publishes them through `app`.
pub(crate) async fn append(app: &App, id: ExecutionId, list: &[(EventType, Value)]) {
    let mut transaction = app.db.pool().begin().await.unwrap();
    let (session, last_seq): (uuid::Uuid, i64) =
        sqlx::query_as("select session_id, last_seq from executions where id = $1 for update")
            .bind(id.0)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    let mut log = LockedLog {
        execution: id,
        session: SessionId(session),
        last_seq,
    };
    let new: Vec<NewEvent> = list
        .iter()
        .map(|(kind, fields)| NewEvent::own(*kind, fields).unwrap())
        .collect();
    let appended = events::append(&mut transaction, &mut log, &new)
        .await
        .unwrap();
    if list.last().is_some_and(|(kind, _)| kind.is_terminal()) {
        sqlx::query("update executions set state = 'completed', ended_at = now() where id = $1")
            .bind(id.0)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    app.bus
        .publish_events(id, appended.first_seq, appended.payloads);
}

/// Ends an execution without a worker.
pub(crate) async fn finish(app: &App, id: ExecutionId) {
    append(
        app,
        id,
        &[(EventType::Completed, json!({"duration_ms": 1}))],
    )
    .await;
}

/// The log as it stands in Postgres.
pub(crate) async fn log(db: &PgPool, id: ExecutionId) -> Vec<String> {
    let rows: Vec<(Vec<u8>,)> =
        sqlx::query_as("select payload from events where execution_id = $1 order by seq")
            .bind(id.0)
            .fetch_all(db)
            .await
            .unwrap();
    rows.into_iter()
        .map(|(payload,)| String::from_utf8(payload).unwrap())
        .collect()
}
