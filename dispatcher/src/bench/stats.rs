//! Durations as percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Nothing that is measured takes longer; longer durations count as this.
const LONGEST: Duration = Duration::from_secs(600);

/// Durations, kept to three digits.
pub struct Samples(Histogram<u64>);

/// What is said about [`Samples`], in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// 95 of 100 are at most this.
    pub p95: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// None is longer.
    pub max: f64,
}

impl Samples {
    /// None yet.
    pub fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).expect("ten minutes fit into 64 bits");
        Self(Histogram::new_with_bounds(1, longest, 3).expect("the bounds are in order"))
    }

    /// Adds one.
    pub fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanos);
    }

    /// Joins those of another task.
    pub fn join(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all samples have the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles; none without samples.
    pub fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e6;
        (self.count() > 0).then(|| Percentiles {
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: self.0.max() as f64 / 1e6,
        })
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new()
    }
}
