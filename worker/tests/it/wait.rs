//! The one place where tests wait: for a condition, with a bound, never for time to pass.

use std::time::{Duration, Instant};

/// Longest that a test waits for something it expects.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `is_so`; fails the test if that does not happen.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        tokio::time::sleep(LOOK).await;
    }
}

/// What a double's work takes that is slow on purpose; no test waits this way for something.
pub(crate) async fn slow_work(time: Duration) {
    tokio::time::sleep(time).await;
}
