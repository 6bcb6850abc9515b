//! The worker's calls one by one, where the scripted dispatcher is too quick.

use std::sync::Arc;
use std::time::Duration;

use axum::{Json, Router};
use clawlink_shared::control::ArchiveFinish;
use clawlink_shared::id::ExecutionId;
use clawlink_shared::secret::Secret;
use clawlink_worker::client::{Client, Held};
use clawlink_worker::lease::Lease;
use clawlink_worker::proxy::Proxies;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::wait::slow_work;

/// Shorter than the storage takes here to join the parts.
const GRACE: Duration = Duration::from_millis(100);

/// How long that takes.
const JOINING: Duration = Duration::from_secs(1);

#[tokio::test]
async fn what_takes_longer_than_the_outage_grace_is_no_outage() {
    let router = Router::new().fallback(async || {
        slow_work(JOINING).await;
        Json(json!({}))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let client = Client::new(&[url], Secret::new("pool-token"), &Proxies::default()).unwrap();
    let lease = Lease::new(Instant::now(), 60_000, GRACE);
    let token = Secret::new("lease-token");
    let held = Held::new(Arc::new(client), ExecutionId(7), token, lease);
    let finish = ArchiveFinish { parts: Vec::new() };
    held.archive_finish(&finish).await.unwrap();
}
