//! Redis as a nervous system: wake-ups and fan-out between replicas.
//!
//! Everything here is a hint. A lost one costs at most a tick, because streams and loops look
//! for themselves; a doubled one costs a look. One connection publishes and runs scripts, one
//! subscribes, however many streams and workers wait.
//!
//! Channels, all below the configured prefix: `work` (an agent kind got work), `events:{id}`,
//! `control:{id}`, `feed:{workspace}`, `rights` (what was remembered of somebody's rights is
//! out of date).

mod follow;
mod hub;
mod wire;

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use clawlink_shared::secret::Secret;
use clawlink_shared::shutdown::Shutdown;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use hub::Hub;
pub use hub::{Batch, Follower, Topic};
use wire::Hint;
pub use wire::RightsOf;

/// Hints that may wait to be published; more are dropped, as hints may be.
const OUTGOING: usize = 4096;
/// A Redis that takes longer than this to answer counts as away.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The handle to Redis; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    redis: ConnectionManager,
    prefix: std::sync::Arc<str>,
    hub: Hub,
    outgoing: mpsc::Sender<Hint>,
}

impl Bus {
    /// Starts connecting; does not wait for Redis to answer.
    pub fn connect(
        url: &Secret,
        prefix: &str,
        replica: Uuid,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let client = redis::Client::open(url.expose())
            .ok()
            .context("REDIS_URL is not valid")?;
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_connection_timeout(Some(RESPONSE_TIMEOUT))
            .set_max_delay(Duration::from_millis(500))
            .set_number_of_retries(1);
        let redis = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .context("prepare the connection to Redis")?;
        let (outgoing, hints) = mpsc::channel(OUTGOING);
        let bus = Self {
            redis,
            prefix: prefix.into(),
            hub: Hub::new(),
            outgoing,
        };
        shutdown.tracker().spawn(wire::publish_loop(
            bus.clone(),
            replica,
            hints,
            shutdown.clone(),
        ));
        shutdown.tracker().spawn(follow::follow_loop(
            bus.clone(),
            client,
            replica,
            shutdown.clone(),
        ));
        Ok(bus)
    }

    /// The connection for scripts and commands. Callers treat errors as "Redis is away".
    pub fn redis(&self) -> ConnectionManager {
        self.redis.clone()
    }

    /// The full name of a key.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether Redis answers.
    pub async fn is_up(&self) -> bool {
        let mut redis = self.redis();
        redis::cmd("PING")
            .query_async::<String>(&mut redis)
            .await
            .is_ok()
    }

    /// Follows an execution's committed events.
    pub fn follow_events(&self, id: ExecutionId) -> Follower {
        self.hub.follow(Topic::Events(id))
    }

    /// Follows what is said to an execution's worker.
    pub fn follow_control(&self, id: ExecutionId) -> Follower {
        self.hub.follow(Topic::Control(id))
    }

    /// Resolves when an agent of one of these kinds may have work.
    pub async fn work_for(&self, kinds: &[AgentKind]) {
        self.hub.work_for(kinds).await;
    }

    /// Tells everyone which events were committed: consecutive envelopes from `first_seq`.
    pub fn publish_events(&self, id: ExecutionId, first_seq: i64, payloads: Vec<Bytes>) {
        let batch = Batch {
            first_seq,
            payloads,
        };
        self.tell(Hint::Events(id, batch));
    }

    /// Tells the replica that holds the worker's long-poll to look again.
    pub fn publish_control(&self, id: ExecutionId) {
        self.tell(Hint::Control(id));
    }

    /// Tells all replicas that this kind of agent has work.
    pub fn publish_work(&self, kind: AgentKind) {
        self.tell(Hint::Work(kind));
    }

    /// Tells all replicas that rights have changed.
    pub fn publish_rights(&self, of: RightsOf) {
        self.tell(Hint::Rights(of));
    }

    /// Follows changes of rights; who lags has missed some.
    pub fn follow_rights(&self) -> broadcast::Receiver<RightsOf> {
        self.hub.follow_rights()
    }

    /// All executions that somebody follows here, for the periodic look at the log.
    pub fn followed(&self) -> Vec<ExecutionId> {
        self.hub.followed()
    }

    /// Makes followers of an execution here look at the log, because it grew to `last_seq`.
    pub fn nudge(&self, id: ExecutionId, last_seq: i64) {
        self.hub.apply(Hint::Events(
            id,
            Batch {
                first_seq: last_seq + 1,
                payloads: Vec::new(),
            },
        ));
    }

    /// All executions whose worker listens here, for the periodic look at what it should hear.
    pub fn followed_control(&self) -> Vec<ExecutionId> {
        self.hub.followed_control()
    }

    /// Makes the control long-poll of an execution here look again.
    pub fn nudge_control(&self, id: ExecutionId) {
        self.hub.apply(Hint::Control(id));
    }

    /// Follows a workspace's feed; hints say only that it may have grown.
    pub fn follow_feed(&self, workspace: WorkspaceId) -> Follower {
        self.hub.follow(Topic::Feed(workspace))
    }

    /// Tells everyone that a workspace's feed grew.
    pub fn publish_feed(&self, workspace: WorkspaceId) {
        self.tell(Hint::Feed(workspace));
    }

    /// All workspaces whose feed is followed here, for the periodic look.
    pub fn followed_feeds(&self) -> Vec<WorkspaceId> {
        self.hub.followed_feeds()
    }

    /// Makes followers of a feed here look at it.
    pub fn nudge_feed(&self, workspace: WorkspaceId) {
        self.hub.apply(Hint::Feed(workspace));
    }

    fn tell(&self, hint: Hint) {
        self.hub.apply(hint.clone());
        if self.outgoing.try_send(hint).is_err() {
            metrics::counter!("clawlink_bus_hints_dropped_total").increment(1);
        }
    }
}
