//! Waiting for a condition instead of for time.

use std::future::Future;
use std::time::Duration;

/// How long [`eventually`] looks before it fails the test.
const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Looks until `condition` gives a value; fails the test when it never does.
pub(crate) async fn eventually<T, F>(what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let looking = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(value) => value,
        Err(_) => panic!("this did not come true in {PATIENCE:?}: {what}"),
    }
}

/// Whether anybody waits for a lock in this database.
pub(crate) async fn is_lock_awaited(db: &sqlx::PgPool) -> bool {
    let awaited = "select exists (select from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock')";
    sqlx::query_scalar(awaited).fetch_one(db).await.unwrap()
}
