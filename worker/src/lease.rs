//! The right to work on one execution, as this side knows it.
//!
//! It is counted from before the renewing request was sent, so the clocks of worker and
//! dispatcher need not agree, and this side's end is never later than the other's. An
//! expired lease that nobody took is not lost: the agent runs on while dispatchers are away,
//! up to the outage grace. What leaves a mark outside (push, `complete`) needs
//! [`confirm_fresh`] first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{CallError, Held};

/// Part of the lease after which it is renewed.
const RENEW_PART: u32 = 3;

/// Shortest pause between heartbeats, whatever the lease says.
const SHORTEST_BEAT: Duration = Duration::from_millis(50);

/// What is known about a lease; clones share it.
#[derive(Debug, Clone)]
pub struct Lease {
    known: Arc<watch::Sender<Known>>,
    outage_grace: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// When the last renewing request was sent.
    renewed: Instant,
    /// How long that renewal lasts.
    length: Duration,
    /// When a dispatcher last answered anything.
    answered: Instant,
    gone: Option<Gone>,
}

impl Known {
    fn beat(&self) -> Duration {
        (self.length / RENEW_PART).max(SHORTEST_BEAT)
    }
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// A dispatcher said so.
    Lost,
    /// No dispatcher answered within the outage grace.
    Unreachable,
}

impl Lease {
    /// A lease as it was granted in answer to a request sent at `sent`.
    pub fn new(sent: Instant, expires_in_ms: u64, outage_grace: Duration) -> Self {
        let known = Known {
            renewed: sent,
            length: Duration::from_millis(expires_in_ms),
            answered: Instant::now(),
            gone: None,
        };
        Self {
            known: Arc::new(watch::Sender::new(known)),
            outage_grace,
        }
    }

    /// How long the run goes on while no dispatcher answers.
    pub fn outage_grace(&self) -> Duration {
        self.outage_grace
    }

    /// How long after a renewal the next one is due.
    pub fn beat(&self) -> Duration {
        self.known.borrow().beat()
    }

    /// It was renewed in answer to a request sent at `sent`.
    pub fn renewed(&self, sent: Instant, expires_in_ms: u64) {
        self.known.send_if_modified(|known| {
            let is_newer = sent > known.renewed;
            if is_newer {
                known.renewed = sent;
                known.length = Duration::from_millis(expires_in_ms);
            }
            is_newer
        });
    }

    /// A dispatcher answered something.
    pub fn answered(&self) {
        self.known.send_if_modified(|known| {
            known.answered = Instant::now();
            false
        });
    }

    /// A dispatcher said that it is lost.
    pub fn lose(&self) {
        self.end(Gone::Lost);
    }

    fn end(&self, gone: Gone) {
        self.known.send_if_modified(|known| {
            let is_first = known.gone.is_none();
            known.gone = known.gone.or(Some(gone));
            is_first
        });
    }

    /// Whether it is over already.
    pub fn is_gone(&self) -> Option<Gone> {
        self.known.borrow().gone
    }

    /// Waits until it is over.
    pub async fn gone(&self) -> Gone {
        let mut known = self.known.subscribe();
        let known = known.wait_for(|known| known.gone.is_some()).await;
        known
            .ok()
            .and_then(|known| known.gone)
            .unwrap_or(Gone::Lost)
    }
}

/// Renews the lease a third of its length after each renewal, until it is over. Ends it when
/// no dispatcher answers within the outage grace.
pub async fn keep(held: Held) -> Gone {
    let lease = held.lease().clone();
    let beats = async {
        loop {
            let known = *lease.known.borrow();
            let pause = known.beat();
            let due = known.renewed + pause;
            if Instant::now() < due {
                tokio::time::sleep_until(due).await;
                continue;
            }
            if let Err(error) = held.heartbeat().await {
                tracing::warn!(%error, "lease not renewed");
                tokio::time::sleep(pause).await;
            }
        }
    };
    let watchdog = async {
        loop {
            let until = lease.known.borrow().answered + lease.outage_grace;
            if Instant::now() >= until {
                tracing::error!("no dispatcher answered within the outage grace");
                lease.end(Gone::Unreachable);
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    tokio::select! {
        () = beats => {}
        () = watchdog => {}
        _ = lease.gone() => {}
    }
    lease.gone().await
}

/// Waits for a renewal that was asked for after this call; the execution is ours then.
///
/// # Errors
///
/// When the lease is gone, or the dispatcher refuses.
pub async fn confirm_fresh(held: &Held) -> Result<(), CallError> {
    held.heartbeat().await
}
