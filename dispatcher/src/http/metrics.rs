//! `GET /metrics` in Prometheus' text format.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::header;
use axum::response::IntoResponse;
use clawlink_shared::shutdown::Shutdown;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// The process's one recorder; the `metrics` crate allows no second.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Samples of histograms are kept one by one until they are folded, this often.
const FOLD_EVERY: Duration = Duration::from_secs(5);

/// Upper bounds of histograms, in seconds; the same everywhere, so that replicas can be summed.
const BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    1800.0,
];

/// Starts recording, and folding what was recorded until draining begins.
pub fn install(shutdown: &Shutdown) {
    let recorder = RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).ok()?;
        builder.install_recorder().ok()
    });
    let Some(recorder) = recorder else { return };
    let soft = shutdown.soft().clone();
    shutdown.tracker().spawn(async move {
        while soft
            .run_until_cancelled(tokio::time::sleep(FOLD_EVERY))
            .await
            .is_some()
        {
            recorder.run_upkeep();
        }
    });
}

/// Renders what was recorded.
pub async fn metrics() -> impl IntoResponse {
    let text = RECORDER
        .get()
        .and_then(Option::as_ref)
        .map(PrometheusHandle::render)
        .unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
