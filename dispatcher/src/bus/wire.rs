//! Hints as bytes, and the task that publishes them.
//!
//! Body of a message: the sender's replica id (16 bytes), then for events `first_seq` (i64,
//! big endian) and each payload preceded by its length (u32). A replica ignores its own.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::{ApiKeyId, ExecutionId, UserId, WorkspaceId};
use clawlink_shared::shutdown::Shutdown;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Bus;
use super::hub::{Batch, Topic};

/// Batches above this size travel as a bare number; readers look into the log.
const MAX_INLINE: usize = 64 * 1024;
/// Hints published in one round trip.
const PIPELINE: usize = 256;

/// Something that happened, told to other replicas.
#[derive(Debug, Clone)]
pub(super) enum Hint {
    /// Events were committed.
    Events(ExecutionId, Batch),
    /// The worker has something to hear.
    Control(ExecutionId),
    /// An agent kind got work.
    Work(AgentKind),
    /// A workspace's feed grew.
    Feed(WorkspaceId),
    /// Rights have changed.
    Rights(RightsOf),
}

/// Whose rights have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightsOf {
    /// A person's, anywhere.
    User(UserId),
    /// Those of everyone in a workspace.
    Workspace(WorkspaceId),
    /// An API key's.
    Key(ApiKeyId),
    /// Perhaps anyone's.
    Everyone,
}

impl RightsOf {
    fn encode(self) -> String {
        match self {
            Self::User(id) => format!("user:{id}"),
            Self::Workspace(id) => format!("workspace:{id}"),
            Self::Key(id) => format!("key:{id}"),
            Self::Everyone => "everyone:".to_owned(),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, id) = text.split_once(':')?;
        Some(match kind {
            "user" => Self::User(id.parse().ok()?),
            "workspace" => Self::Workspace(id.parse().ok()?),
            "key" => Self::Key(id.parse().ok()?),
            _ => Self::Everyone,
        })
    }
}

/// The channel of a topic, without prefix.
pub(super) fn channel(topic: Topic) -> String {
    match topic {
        Topic::Events(id) => format!("events:{id}"),
        Topic::Control(id) => format!("control:{id}"),
        Topic::Feed(id) => format!("feed:{id}"),
    }
}

impl Hint {
    fn encode(&self, replica: Uuid) -> (String, BytesMut) {
        let mut body = BytesMut::from(&replica.as_bytes()[..]);
        let channel = match self {
            Self::Work(kind) => {
                body.put_slice(kind.as_str().as_bytes());
                "work".to_owned()
            }
            Self::Rights(of) => {
                body.put_slice(of.encode().as_bytes());
                "rights".to_owned()
            }
            Self::Control(id) => channel(Topic::Control(*id)),
            Self::Feed(id) => channel(Topic::Feed(*id)),
            Self::Events(id, batch) => {
                let size: usize = batch.payloads.iter().map(Bytes::len).sum();
                if size > MAX_INLINE {
                    body.put_i64(batch.last_seq() + 1);
                } else {
                    body.put_i64(batch.first_seq);
                    for payload in &batch.payloads {
                        body.put_u32(payload.len() as u32);
                        body.put_slice(payload);
                    }
                }
                channel(Topic::Events(*id))
            }
        };
        (channel, body)
    }

    /// Reads a message from `channel` (without prefix); `None` for our own or a damaged one.
    pub(super) fn decode(channel: &str, mut body: Bytes, replica: Uuid) -> Option<Self> {
        if body.len() < 16 || body.split_to(16)[..] == replica.as_bytes()[..] {
            return None;
        }
        if channel == "work" {
            let kind = AgentKind::from_spelling(std::str::from_utf8(&body).ok()?)?;
            return Some(Self::Work(kind));
        }
        if channel == "rights" {
            let of = RightsOf::decode(std::str::from_utf8(&body).ok()?)?;
            return Some(Self::Rights(of));
        }
        if let Some(id) = channel.strip_prefix("control:") {
            return Some(Self::Control(id.parse().ok()?));
        }
        if let Some(id) = channel.strip_prefix("feed:") {
            return Some(Self::Feed(id.parse().ok()?));
        }
        let id = channel.strip_prefix("events:")?.parse().ok()?;
        let first_seq = body.try_get_i64().ok()?;
        let mut payloads = Vec::new();
        while body.has_remaining() {
            let length = body.try_get_u32().ok()? as usize;
            if length > body.len() {
                return None;
            }
            payloads.push(body.split_to(length));
        }
        Some(Self::Events(
            id,
            Batch {
                first_seq,
                payloads,
            },
        ))
    }
}

/// Publishes hints until the process stops; what Redis does not take is dropped.
pub(super) async fn publish_loop(
    bus: Bus,
    replica: Uuid,
    mut hints: mpsc::Receiver<Hint>,
    shutdown: Shutdown,
) {
    let mut batch = Vec::with_capacity(PIPELINE);
    loop {
        let received = tokio::select! {
            received = hints.recv_many(&mut batch, PIPELINE) => received,
            () = shutdown.soft().cancelled() => return,
        };
        if received == 0 {
            return;
        }
        let mut pipeline = redis::pipe();
        for hint in batch.drain(..) {
            let (channel, body) = hint.encode(replica);
            pipeline.publish(bus.key(&channel), &body[..]).ignore();
        }
        let mut redis = bus.redis();
        if let Err(error) = pipeline.query_async::<()>(&mut redis).await {
            tracing::debug!(%error, "hints not published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_survive_the_wire_and_our_own_are_ignored() {
        let (me, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let batch = Batch {
            first_seq: 7,
            payloads: vec![Bytes::from("a"), Bytes::from("bc")],
        };
        let (channel, body) = Hint::Events(ExecutionId(5), batch).encode(other);
        let decoded = Hint::decode(&channel, body.clone().freeze(), me);
        assert!(matches!(decoded, Some(Hint::Events(ExecutionId(5), batch))
            if batch.first_seq == 7 && batch.payloads == ["a", "bc"]));
        assert!(Hint::decode(&channel, body.freeze(), other).is_none());
        assert!(Hint::decode("events:5", Bytes::from("short"), me).is_none());
    }
}
