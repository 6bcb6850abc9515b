//! Chaining: entries get their place and their link after they are committed, by whichever
//! replica holds the lock, so that no transaction ever waits for the chain.
//!
//! Nothing is chained before everything that belongs in front of it is known: only entries of
//! transactions older than the oldest one that still runs. A transaction that runs for hours
//! delays the chain by hours; it never makes it skip an entry.

use tracing::Instrument;

use super::link::{ChainKey, GENESIS};
use super::store;
use crate::app::App;

/// Entries chained in one transaction.
const BATCH: i64 = 1000;

/// Chains what can be chained now, at most one batch; answers how many entries that were.
/// None while another replica is at it.
pub async fn extend(app: &App) -> anyhow::Result<usize> {
    let mut tx = app.db.begin().await?;
    if !store::chain::try_lock(&mut tx).await? {
        return Ok(0);
    }
    let entries = store::chain::waiting(&mut tx, BATCH).await?;
    if entries.is_empty() {
        return Ok(0);
    }
    let keys = ChainKey::all(&app.keys);
    let key = keys.first().expect("there is always a current key");
    let head = store::chain::head(&mut tx).await?;
    let (last, mut hash) = head.unwrap_or((0, GENESIS));
    let mut ids = Vec::with_capacity(entries.len());
    let mut hashes = Vec::with_capacity(entries.len());
    for (position, entry) in (last + 1..).zip(&entries) {
        hash = entry.link(key, &hash, position);
        ids.push(entry.id);
        hashes.push(hash.to_vec());
    }
    store::chain::append(&mut tx, last + 1, &ids, &hashes, &key.id).await?;
    tx.commit().await?;
    Ok(entries.len())
}

/// Extends the chain at every tick until the process drains.
pub(super) async fn chain_loop(app: App) {
    loop {
        let extended = extend(&app).instrument(tracing::debug_span!("audit.chain"));
        match extended.await {
            // There may be more.
            Ok(chained) if chained as i64 == BATCH && !app.shutdown.soft().is_cancelled() => {
                continue;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "audit entries not chained");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => return,
        }
    }
}
