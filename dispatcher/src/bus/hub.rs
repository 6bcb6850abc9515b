//! Who follows what in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::id::{ExecutionId, WorkspaceId};
use tokio::sync::{Notify, broadcast, watch};

use super::wire::{Hint, RightsOf};

/// Changes of rights that a listener may be behind; beyond it, it forgets all.
const RIGHTS_BACKLOG: usize = 256;

/// What can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Committed events.
    Events(ExecutionId),
    /// What is said to the worker.
    Control(ExecutionId),
    /// A workspace's feed.
    Feed(WorkspaceId),
}

/// Consecutive committed events; empty with `first_seq = last + 1` when only that is known.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Seq of the first payload.
    pub first_seq: i64,
    /// Whole envelopes.
    pub payloads: Vec<Bytes>,
}

impl Batch {
    /// The highest seq that this batch speaks of.
    pub fn last_seq(&self) -> i64 {
        self.first_seq + self.payloads.len() as i64 - 1
    }
}

struct Entry {
    sender: watch::Sender<Arc<Batch>>,
    followers: usize,
}

/// Shared state of all followers in this process.
#[derive(Clone)]
pub(super) struct Hub {
    topics: Arc<Mutex<HashMap<Topic, Entry>>>,
    work: Arc<HashMap<AgentKind, Notify>>,
    rights: broadcast::Sender<RightsOf>,
    /// The set of topics has changed; the subscribing connection compares it with its own.
    changed: Arc<Notify>,
}

impl Hub {
    pub(super) fn new() -> Self {
        let work = AgentKind::ALL
            .into_iter()
            .map(|kind| (kind, Notify::new()))
            .collect();
        Self {
            topics: Arc::default(),
            work: Arc::new(work),
            rights: broadcast::Sender::new(RIGHTS_BACKLOG),
            changed: Arc::default(),
        }
    }

    pub(super) fn follow(&self, topic: Topic) -> Follower {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = topics.entry(topic).or_insert_with(|| {
            self.changed.notify_one();
            Entry {
                sender: watch::Sender::new(Arc::default()),
                followers: 0,
            }
        });
        entry.followers += 1;
        Follower {
            topic,
            latest: entry.sender.subscribe(),
            hub: self.clone(),
        }
    }

    /// Applies a hint to the followers here.
    pub(super) fn apply(&self, hint: Hint) {
        let (topic, batch) = match hint {
            Hint::Work(kind) => {
                if let Some(notify) = self.work.get(&kind) {
                    notify.notify_one();
                }
                return;
            }
            Hint::Rights(of) => {
                // Nobody listens before the loops run; nothing is remembered then either.
                let _ = self.rights.send(of);
                return;
            }
            Hint::Events(id, batch) => (Topic::Events(id), batch),
            Hint::Control(id) => (Topic::Control(id), Batch::default()),
            Hint::Feed(id) => (Topic::Feed(id), Batch::default()),
        };
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = topics.get(&topic) {
            entry.sender.send_replace(Arc::new(batch));
        }
    }

    /// Makes everyone look for themselves: after the subscribing connection was away.
    pub(super) fn nudge_all(&self) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in topics.values() {
            // Nobody knows how far the logs have grown: further than anybody stands.
            let batch = Batch {
                first_seq: i64::MAX,
                payloads: Vec::new(),
            };
            entry.sender.send_replace(Arc::new(batch));
        }
        for notify in self.work.values() {
            notify.notify_one();
        }
        drop(topics);
        self.apply(Hint::Rights(RightsOf::Everyone));
    }

    pub(super) fn follow_rights(&self) -> broadcast::Receiver<RightsOf> {
        self.rights.subscribe()
    }

    pub(super) fn topics(&self) -> Vec<Topic> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.keys().copied().collect()
    }

    pub(super) fn followed(&self) -> Vec<ExecutionId> {
        self.topics()
            .into_iter()
            .filter_map(|topic| match topic {
                Topic::Events(id) => Some(id),
                Topic::Control(_) | Topic::Feed(_) => None,
            })
            .collect()
    }

    pub(super) fn followed_control(&self) -> Vec<ExecutionId> {
        self.topics()
            .into_iter()
            .filter_map(|topic| match topic {
                Topic::Control(id) => Some(id),
                Topic::Events(_) | Topic::Feed(_) => None,
            })
            .collect()
    }

    pub(super) fn followed_feeds(&self) -> Vec<WorkspaceId> {
        self.topics()
            .into_iter()
            .filter_map(|topic| match topic {
                Topic::Feed(id) => Some(id),
                Topic::Events(_) | Topic::Control(_) => None,
            })
            .collect()
    }

    pub(super) async fn work_for(&self, kinds: &[AgentKind]) {
        let waits = kinds.iter().filter_map(|kind| self.work.get(kind));
        let waits: Vec<_> = waits.map(|notify| Box::pin(notify.notified())).collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        futures::future::select_all(waits).await;
    }

    /// Resolves when the set of topics may have changed since the last time; for one listener.
    pub(super) async fn topics_changed(&self) {
        self.changed.notified().await;
    }
}

/// One stream's view of a topic; dropping it ends the following.
pub struct Follower {
    topic: Topic,
    latest: watch::Receiver<Arc<Batch>>,
    hub: Hub,
}

impl Follower {
    /// Resolves at the next hint; several hints may arrive as one.
    pub async fn changed(&mut self) {
        if self.latest.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Takes hints that came before as seen, because the caller is about to look for itself.
    pub fn mark_seen(&mut self) {
        self.latest.mark_unchanged();
    }

    /// The newest batch.
    pub fn latest(&self) -> Arc<Batch> {
        self.latest.borrow().clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut topics = self
            .hub
            .topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = topics.get_mut(&self.topic) {
            entry.followers -= 1;
            if entry.followers == 0 {
                topics.remove(&self.topic);
                self.hub.changed.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_outage_every_follower_has_to_look() {
        let (hub, id) = (Hub::new(), ExecutionId(1));
        let follower = hub.follow(Topic::Events(id));
        let payloads = vec![Bytes::from_static(b"{}")];
        let batch = Batch {
            first_seq: 41,
            payloads,
        };
        hub.apply(Hint::Events(id, batch));
        hub.nudge_all();
        // Who has shown 41 must not take this for what it knows, nor for what comes next.
        let latest = follower.latest();
        assert!(latest.last_seq() > 41 && latest.payloads.is_empty());
    }
}
