//! Requests without a valid credential, counted per minute and address: whoever knocks
//! a million times costs a few rows, and refusing costs no round trip to Postgres.
//!
//! Counts wait in memory for at most one tick; a crash loses that much and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::store;
use crate::app::App;

/// Addresses that a replica counts apart in a minute; what comes from more is counted together.
const MAX_ADDRESSES: usize = 1000;
/// What those beyond the bound are counted as.
const OTHERS: &str = "others";
/// How long addresses are counted apart before others take their place.
const MINUTE: Duration = Duration::from_secs(60);
/// How long counts are kept.
const KEEP: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Counts forgotten in one statement.
const FORGET_BATCH: i64 = 5000;

/// Counts that are not in Postgres yet.
#[derive(Debug, Default)]
pub struct Denials(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    waiting: BTreeMap<String, i64>,
    /// Who is counted apart, and since when they are those.
    apart: BTreeSet<String>,
    since: Option<Instant>,
}

impl Denials {
    /// Counts a refusal.
    pub fn count(&self, address: Option<IpAddr>) {
        self.add(name(address), 1);
    }

    fn add(&self, name: String, count: i64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.since.is_none_or(|since| since.elapsed() >= MINUTE) {
            counts.since = Some(Instant::now());
            counts.apart.clear();
        }
        let is_full = counts.apart.len() >= MAX_ADDRESSES && !counts.apart.contains(&name);
        let name = if is_full { OTHERS.to_owned() } else { name };
        if !is_full {
            counts.apart.insert(name.clone());
        }
        *counts.waiting.entry(name).or_default() += count;
    }

    fn take(&self) -> BTreeMap<String, i64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut counts.waiting)
    }
}

/// Who has a whole network of IPv6 addresses is one stranger.
fn name(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64 << 64;
            format!("{}/64", std::net::Ipv6Addr::from_bits(network))
        }
    }
}

/// Writes what was counted; keeps it for the next time if that fails.
async fn flush(app: &App) -> anyhow::Result<()> {
    let counts = app.denials.take();
    if counts.is_empty() {
        return Ok(());
    }
    let (addresses, numbers): (Vec<String>, Vec<i64>) = counts.into_iter().unzip();
    let written = async {
        let mut db = app.db.acquire().await?;
        store::denials::add(&mut db, &addresses, &numbers).await
    };
    let written = written.await;
    if written.is_err() {
        for (address, number) in addresses.into_iter().zip(numbers) {
            app.denials.add(address, number);
        }
    }
    written
}

/// Forgets counts that nobody looks at any more.
pub(super) async fn forget(app: &App) -> anyhow::Result<()> {
    let mut db = app.db.acquire().await?;
    while store::denials::forget(&mut db, KEEP, FORGET_BATCH).await? == FORGET_BATCH as u64 {}
    Ok(())
}

/// Flushes at every tick until the process drains, and then once more.
pub(super) async fn flush_loop(app: App) {
    loop {
        let is_last = app.shutdown.soft().is_cancelled();
        if let Err(error) = flush(&app).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "refused strangers not counted"
            );
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(app.tuning.tick) => {}
            () = app.shutdown.soft().cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_counts_as_one_stranger_and_there_is_a_bound() {
        let denials = Denials::default();
        for host in [
            "2001:db8::1",
            "2001:db8::2",
            "::ffff:192.0.2.1",
            "192.0.2.1",
        ] {
            denials.count(Some(host.parse().expect("an address")));
        }
        denials.count(None);
        let counts = denials.take();
        let counts: Vec<_> = counts.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(
            counts,
            [("192.0.2.1", 2), ("2001:db8::/64", 2), ("unknown", 1)]
        );
        // Also when it was written down in between.
        let denials = Denials::default();
        let mut rows = 0;
        for half in 0..2 {
            for n in 0..MAX_ADDRESSES {
                let bits = u32::try_from(half * MAX_ADDRESSES + n).expect("small");
                denials.count(Some(IpAddr::V4(bits.into())));
            }
            rows += denials.take().len();
        }
        assert_eq!(rows, MAX_ADDRESSES + 1);
    }
}
