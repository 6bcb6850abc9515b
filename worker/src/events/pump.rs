//! From drafts to acknowledged events.
//!
//! ```text
//! EventSink ─▶ scribe: redact, number, cut ─▶ spool on disk ─▶ courier: one batch in flight
//! ```
//!
//! The scribe has a thread of its own, because it computes and writes. The courier sends the
//! first event at once and lets the next ones gather for a few milliseconds; it reads what is
//! not acknowledged back from the disk and repeats it, until the dispatcher has all of it.
//! What must never happen: a number is skipped, used twice, or sent before its predecessor.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clawlink_shared::control::{MAX_BATCH_BYTES, MAX_EVENT_BYTES};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::line::{Cleaner, encode, substitute};
use super::spool::{Full, Spool};
use super::{Draft, SPOOL_BYTES};
use crate::client::{CallError, Held};
use crate::lease::Gone;
use crate::redact::Redactor;

/// How long events gather after a batch has gone out.
const GATHER: Duration = Duration::from_millis(3);

/// Pause before a full disk, or a dispatcher that answered nonsense, is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Failures one after the other, none of them an outage, after which the run is given up: no
/// dispatcher takes its events any more.
const MOST_FAILURES: u32 = 60;

/// Flushes that may wait at once.
const FLUSHES: usize = 4;

/// The running pump of one attempt.
#[derive(Debug)]
pub struct Pump {
    flushes: mpsc::Sender<oneshot::Sender<()>>,
    shared: Arc<Shared>,
    held: Held,
    _delivering: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    spool: Mutex<Spool>,
    /// The highest number in the spool.
    written: watch::Sender<u64>,
    /// The highest number that is acknowledged.
    acked: watch::Sender<u64>,
}

impl Shared {
    fn spool(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pump {
    /// Starts it; what is not acknowledged is kept in files in `dir`.
    pub fn start(
        drafts: mpsc::Receiver<Draft>,
        redactor: Redactor,
        held: Held,
        dir: &Path,
    ) -> Self {
        let shared = Arc::new(Shared {
            spool: Mutex::new(Spool::new(dir.to_owned(), SPOOL_BYTES)),
            written: watch::Sender::new(0),
            acked: watch::Sender::new(0),
        });
        let (flushes, flush_requests) = mpsc::channel(FLUSHES);
        let scribe = Scribe {
            cleaner: Cleaner::new(redactor),
            shared: shared.clone(),
            held: held.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        let writing = scribe.write_all(drafts, flush_requests).in_current_span();
        tokio::task::spawn_blocking(move || runtime.block_on(writing));
        let delivering = deliver(shared.clone(), held.clone()).in_current_span();
        Self {
            flushes,
            shared,
            held,
            _delivering: AbortOnDropHandle::new(tokio::spawn(delivering)),
        }
    }

    /// Waits until everything emitted before is committed; answers the highest number.
    ///
    /// # Errors
    ///
    /// When the lease is gone before that.
    pub async fn flush(&self) -> Result<u64, Gone> {
        let delivered = async {
            let (done, written) = oneshot::channel();
            let _scribe_gone = self.flushes.send(done).await;
            let _scribe_gone = written.await;
            let last = *self.shared.written.borrow();
            let mut acked = self.shared.acked.subscribe();
            let _never_closed = acked.wait_for(|&acked| acked >= last).await;
            last
        };
        tokio::select! {
            last = delivered => Ok(last),
            gone = self.held.lease().gone() => Err(gone),
        }
    }
}

/// Turns drafts into numbered lines.
struct Scribe {
    cleaner: Cleaner,
    shared: Arc<Shared>,
    held: Held,
}

impl Scribe {
    async fn write_all(
        mut self,
        mut drafts: mpsc::Receiver<Draft>,
        mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        let lease = self.held.lease().clone();
        loop {
            tokio::select! {
                draft = drafts.recv() => match draft {
                    Some(draft) => self.take(draft).await,
                    None => break,
                },
                Some(done) = flushes.recv() => {
                    // What was emitted before the flush is in the channel already.
                    while let Ok(draft) = drafts.try_recv() {
                        self.take(draft).await;
                    }
                    if let Some(held) = self.cleaner.held() {
                        self.write(&held).await;
                    }
                    let _nobody_waits = done.send(());
                }
                _ = lease.gone() => return,
            }
        }
        if let Some(held) = self.cleaner.held() {
            self.write(&held).await;
        }
    }

    async fn take(&mut self, draft: Draft) {
        for event in self.cleaner.clean(draft) {
            self.write(&event).await;
        }
    }

    /// Writes one event, waiting for room as long as the lease lives.
    async fn write(&mut self, event: &Draft) {
        let n = *self.shared.written.borrow() + 1;
        let line = encode(n, event);
        let mut acked = self.shared.acked.subscribe();
        while self.held.lease().is_gone().is_none() {
            let refused = self.shared.spool().append(&line);
            match refused {
                Ok(()) => {
                    self.shared.written.send_replace(n);
                    return;
                }
                Err(Full::Bound) => {
                    tokio::select! {
                        _ = acked.changed() => {}
                        _ = self.held.lease().gone() => {}
                    }
                }
                Err(Full::Disk(error)) => {
                    tracing::warn!(%error, "event spool takes nothing");
                    tokio::select! {
                        _ = acked.changed() => {}
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    }
}

/// Sends what is in the spool until the lease is over.
async fn deliver(shared: Arc<Shared>, held: Held) {
    let mut written = shared.written.subscribe();
    let lease = held.lease().clone();
    let mut courier = Courier {
        shared: &shared,
        held: &held,
        refused: BTreeMap::new(),
        most: MAX_BATCH_BYTES,
    };
    let mut failures = 0;
    while failures < MOST_FAILURES {
        let acked = *shared.acked.borrow();
        tokio::select! {
            waiting = written.wait_for(|&written| written > acked) => {
                if waiting.is_err() { return; }
            }
            _ = lease.gone() => return,
        }
        match courier.send_oldest().await {
            Ok(()) => {
                failures = 0;
                tokio::time::sleep(GATHER).await;
            }
            Err(error) => {
                if lease.is_gone().is_some() {
                    return;
                }
                tracing::error!(%error, "events are not taken");
                failures += 1;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    lease.lose();
}

struct Courier<'a> {
    shared: &'a Shared,
    held: &'a Held,
    /// Events that the dispatcher will never take, and why. All are in the batch in flight.
    refused: BTreeMap<u64, String>,
    /// Bytes of the next batch; fewer after a refusal that did not name an event.
    most: usize,
}

impl Courier<'_> {
    /// One batch, once; an error leaves everything as it was.
    async fn send_oldest(&mut self) -> anyhow::Result<()> {
        let first = *self.shared.acked.borrow() + 1;
        let stored = self.shared.spool().oldest(MAX_BATCH_BYTES)?;
        let mut lines = Vec::with_capacity(stored.len().min(self.most));
        let mut ends = Vec::new();
        for line in stored.split_inclusive(|&byte| byte == b'\n') {
            let n = first + ends.len() as u64;
            let before = lines.len();
            match self.refused.get(&n) {
                Some(reason) => lines.extend_from_slice(&substitute(n, &kind_of(line), reason)),
                None => lines.extend_from_slice(line),
            }
            if before > 0 && lines.len() > self.most {
                lines.truncate(before);
                break;
            }
            ends.push(ends.last().copied().unwrap_or(0) + line.len() as u64);
        }
        match self.held.events(lines.into()).await {
            Ok(acked) => self.acknowledged(first, acked, &ends),
            Err(CallError::EventRefused { n, reason }) => self.refuse(first, n, reason, &ends),
            Err(CallError::Refused {
                status: status @ (400 | 413 | 422),
                detail,
                ..
            }) => self.refuse(first, None, format!("{status} {detail}"), &ends),
            Err(error) => Err(error.into()),
        }
    }

    /// `ends[i]` is where the line of event `first + i` ends in the spool.
    fn acknowledged(&mut self, first: u64, acked: u64, ends: &[u64]) -> anyhow::Result<()> {
        anyhow::ensure!(
            acked + 1 >= first,
            "the dispatcher has events up to {acked} only, after it had acknowledged {}",
            first - 1
        );
        let count = usize::try_from(acked + 1 - first)?.min(ends.len());
        anyhow::ensure!(count > 0, "the dispatcher took none of the batch");
        self.shared.spool().forget(ends[count - 1]);
        let acked = first - 1 + count as u64;
        self.refused.retain(|&n, _| n > acked);
        self.most = MAX_BATCH_BYTES;
        self.shared.acked.send_replace(acked);
        Ok(())
    }

    fn refuse(
        &mut self,
        first: u64,
        n: Option<u64>,
        reason: String,
        ends: &[u64],
    ) -> anyhow::Result<()> {
        let batch = first..first + ends.len() as u64;
        let sent = usize::try_from(ends.last().copied().unwrap_or(0))?;
        match n
            .filter(|n| batch.contains(n))
            .or((ends.len() == 1).then_some(first))
        {
            Some(n) => {
                tracing::warn!(n, reason, "event refused by its content");
                let was_replaced = self.refused.insert(n, reason).is_some();
                anyhow::ensure!(!was_replaced, "event {n} is refused whatever it says");
            }
            // It does not say which: the next batch is half of this one, down to one event.
            None => self.most = sent / 2,
        }
        Ok(())
    }
}

fn kind_of(line: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_slice(line).map_or_else(|_| "unknown".into(), |Kind { kind }| kind)
}

const _: () = assert!(MAX_EVENT_BYTES < MAX_BATCH_BYTES, "a batch holds an event");
