//! Housekeeping of secrets: what an old key sealed is sealed with the current one, and what
//! ended executions were given is forgotten. Any replica does it at any time.

use std::time::Duration;

use sqlx::PgConnection;
use tracing::Instrument;

use super::store::{reseal, uses};
use crate::agents;
use crate::app::App;
use crate::executions::references;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// Sealed texts replaced at one time.
const BATCH: i64 = 100;
/// Uses forgotten in one round.
const FORGET_BATCH: i64 = 1000;

/// A sealed text that does not begin with the current key's id.
#[derive(Debug)]
pub(crate) struct Stale {
    /// Of its row.
    pub(crate) id: i64,
    /// What it is sealed for.
    pub(crate) owner: Vec<u8>,
    /// Nonce and ciphertext, perhaps after the id of another key.
    pub(crate) sealed: Vec<u8>,
}

/// What a round found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    /// Texts that the old key had sealed; they have the current seal now.
    pub resealed: u64,
    /// Texts that neither key opens.
    pub broken: u64,
}

/// Starts the loop.
pub fn spawn_loops(app: &App) {
    app.shutdown.tracker().spawn(housekeeping(app.clone()));
}

async fn housekeeping(app: App) {
    let mut last = None;
    loop {
        match round(&app)
            .instrument(tracing::debug_span!("secrets"))
            .await
        {
            Ok(done) => {
                tell(&app, done, last);
                last = Some(done);
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "housekeeping of secrets failed"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}

/// Says what changed since the last round.
fn tell(app: &App, done: Round, last: Option<Round>) {
    metrics::counter!("clawlink_resealed_total").increment(done.resealed);
    metrics::gauge!("clawlink_sealed_with_old_key").set((done.resealed + done.broken) as f64);
    if !app.keys.is_being_replaced() || last == Some(done) {
        return;
    }
    let (resealed, broken) = (done.resealed, done.broken);
    if broken > 0 {
        tracing::error!(broken, "neither secret key opens some sealed texts");
    } else if resealed > 0 {
        tracing::info!(resealed, "sealed with the current secret key");
    } else {
        tracing::info!(
            "nothing is sealed with the old secret key any more; CLAWLINK_SECRET_KEY_OLD may go a \
             day after no replica has it as its CLAWLINK_SECRET_KEY"
        );
    }
}

/// One round. Without a second key there is nothing to seal again.
pub async fn round(app: &App) -> anyhow::Result<Round> {
    let mut db = app.db.acquire().await?;
    uses::forget(&mut db, FORGET_BATCH).await?;
    drop(db);
    let mut done = Round::default();
    if app.keys.is_being_replaced() {
        for kind in [Kind::Secret, Kind::AgentKey, Kind::Credentials] {
            reseal_all(app, kind, &mut done).await?;
        }
    }
    Ok(done)
}

/// Where sealed texts are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Secret,
    AgentKey,
    Credentials,
}

impl Kind {
    async fn stale(
        self,
        db: &mut PgConnection,
        current: &[u8],
        after: i64,
    ) -> anyhow::Result<Vec<Stale>> {
        match self {
            Self::Secret => reseal::stale(db, current, after, BATCH).await,
            Self::AgentKey => agents::stale_seals(db, current, after, BATCH).await,
            Self::Credentials => references::stale_seals(db, current, after, BATCH).await,
        }
    }

    async fn replace(
        self,
        db: &mut PgConnection,
        stale: &Stale,
        sealed: &[u8],
    ) -> anyhow::Result<()> {
        match self {
            Self::Secret => reseal::replace(db, stale, sealed).await,
            Self::AgentKey => agents::replace_seal(db, stale, sealed).await,
            Self::Credentials => references::replace_seal(db, stale, sealed).await,
        }
    }
}

/// Goes once through all rows of a kind, a batch at a time; ends early when the process drains.
async fn reseal_all(app: &App, kind: Kind, done: &mut Round) -> anyhow::Result<()> {
    let keys = &app.keys;
    let mut after = 0;
    while !app.shutdown.soft().is_cancelled() {
        let mut db = app.db.acquire().await?;
        let batch = kind.stale(&mut db, keys.current_id(), after).await?;
        let Some(last) = batch.last() else { break };
        after = last.id;
        for stale in &batch {
            let Ok(text) = keys.open(&stale.owner, &stale.sealed) else {
                done.broken += 1;
                continue;
            };
            if !keys.is_by_current(&stale.owner, &stale.sealed) {
                done.resealed += 1;
            }
            let sealed = keys.seal(&stale.owner, &text);
            kind.replace(&mut db, stale, &sealed).await?;
        }
    }
    Ok(())
}
