//! Stopping in order: a soft token drains, a hard token aborts, a tracker knows who is left.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Handles to stop one process or one server; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    leaving: CancellationToken,
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// Fresh tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled before draining begins, where somebody must be told first: still serving, but
    /// whoever asks is told to send nothing more.
    pub fn leaving(&self) -> &CancellationToken {
        &self.leaving
    }

    /// Cancelled when draining begins: accept nothing new, finish what is running.
    pub fn soft(&self) -> &CancellationToken {
        &self.soft
    }

    /// Cancelled when waiting is over: drop everything.
    pub fn hard(&self) -> &CancellationToken {
        &self.hard
    }

    /// Every task is spawned on it, so that draining can wait for them.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Begins draining at the first SIGINT or SIGTERM, aborts at the second.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let this = self.clone();
        tokio::spawn(async move {
            for token in [&this.soft, &this.hard] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(())
    }

    /// Drains: waits for tracked tasks up to `grace`, then aborts. True if all ended in time.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.soft.cancel();
        self.tracker.close();
        let in_time = tokio::select! {
            () = self.tracker.wait() => true,
            () = tokio::time::sleep(grace) => false,
            () = self.hard.cancelled() => false,
        };
        self.hard.cancel();
        in_time
    }
}
