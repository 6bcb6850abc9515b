//! What the dispatcher has to say while an execution runs, and why an agent is stopped.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clawlink_shared::approval::Decision;
use clawlink_shared::control::Order;
use clawlink_shared::execution::ErrorCode;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agents::StopReason;
use crate::agents::desk::{Answer, Desk, UNEXPLAINED};
use crate::client::Held;

/// Pause after a refusal of the long-poll itself.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// A poll that hears nothing takes at least so long: a dispatcher that drains answers at once.
pub(crate) const SHORTEST_POLL: Duration = Duration::from_millis(100);

/// The one place where a stop is decided; clones share it.
#[derive(Debug, Clone)]
pub struct Stop {
    reason: Arc<watch::Sender<Option<StopReason>>>,
    words: Arc<OnceLock<String>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(None)),
            words: Arc::default(),
        }
    }
}

impl Stop {
    /// Asks for a stop. The first reason stays, but a lost lease outweighs all others.
    pub fn request(&self, reason: StopReason) {
        self.reason.send_if_modified(|current| {
            let is_news = current.is_none()
                || (reason == StopReason::LeaseLost && *current != Some(StopReason::LeaseLost));
            if is_news {
                tracing::info!(?reason, "stopping the run");
                *current = Some(reason);
            }
            is_news
        });
    }

    /// The same, with words for people; the first words stay.
    pub fn request_saying(&self, reason: StopReason, words: String) {
        if self.reason().is_none() {
            let _others_said_more = self.words.set(words);
        }
        self.request(reason);
    }

    /// What was said with the reason.
    pub fn words(&self) -> Option<String> {
        self.words.get().cloned()
    }

    /// Why the run must stop, if it must.
    pub fn reason(&self) -> Option<StopReason> {
        *self.reason.borrow()
    }

    /// What an agent watches.
    pub fn watch(&self) -> watch::Receiver<Option<StopReason>> {
        self.reason.subscribe()
    }

    /// Waits until the run must stop.
    pub async fn requested(&self) -> StopReason {
        let mut watch = self.watch();
        let reason = watch.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| *reason)
            .unwrap_or(StopReason::LeaseLost)
    }
}

/// Obeys orders until the lease is over.
pub async fn listen(held: Held, stop: Stop, desk: Desk) {
    let mut after = 0;
    while held.lease().is_gone().is_none() {
        let asked = Instant::now();
        match held.control(after).await {
            Ok(items) if items.is_empty() => tokio::time::sleep_until(asked + SHORTEST_POLL).await,
            Ok(items) => {
                for (k, order) in items {
                    after = after.max(k);
                    match order {
                        Some(Order::Cancel { reason }) => {
                            tracing::info!(reason, "cancelled");
                            stop.request(StopReason::Cancel);
                        }
                        Some(Order::Approval {
                            approval_id,
                            decision,
                            message,
                        }) => {
                            tracing::info!(%approval_id, ?decision, "a question is answered");
                            desk.answered(approval_id, answer(decision, message));
                        }
                        Some(Order::Message { id, text }) => desk.put(id, text),
                        Some(Order::Stop { code, reason }) => {
                            tracing::info!(code = code.as_str(), reason, "told to stop");
                            let because = match code {
                                ErrorCode::Timeout => StopReason::Timeout,
                                _ => StopReason::Budget,
                            };
                            stop.request_saying(because, reason);
                        }
                        None => tracing::warn!(k, "order not understood, passed over"),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "control not heard");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

fn answer(decision: Decision, message: Option<String>) -> Answer {
    match decision {
        Decision::Allow => Answer::Allow { for_session: false },
        Decision::AllowForSession => Answer::Allow { for_session: true },
        Decision::Deny => Answer::Deny {
            message: message.unwrap_or_else(|| UNEXPLAINED.to_owned()),
        },
    }
}
