//! Session archives against an object store over HTTP.

mod hostile;
mod store;
mod transfer;
mod travels;
mod tree;

use std::path::Path;
use std::time::Duration;

use clawlink_shared::control::{ArchiveDone, Failure};
use clawlink_shared::secret::Secret;
use clawlink_worker::persist::{self, RestoreLimits, Restored, SaveRequest, Storage};
use clawlink_worker::redact::Redactor;
use store::Store;
use tokio_util::sync::CancellationToken;

/// The secret that these tests know.
const SECRET: &str = "sk-tell-nobody-0123456789";

const LIMITS: RestoreLimits = RestoreLimits {
    max_bytes: 1 << 30,
    max_files: 10_000,
};

/// An impatient way to the store.
fn storage() -> Storage {
    Storage {
        http: reqwest::Client::new(),
        retry_base: Duration::from_millis(1),
    }
}

fn request(root: &Path) -> SaveRequest {
    SaveRequest {
        session_root: root.to_owned(),
        own_state: None,
        include_ignored: false,
        max_bytes: LIMITS.max_bytes,
        max_files: LIMITS.max_files,
        secrets: Redactor::new([&Secret::new(SECRET)]),
    }
}

async fn save(store: &Store, root: &Path) -> Result<(ArchiveDone, Vec<String>), Failure> {
    persist::save(&storage(), store, request(root)).await
}

async fn restore(store: &Store, done: &ArchiveDone, root: &Path) -> Result<Restored, Failure> {
    let source = store.source(done);
    let cancel = CancellationToken::new();
    persist::restore(&storage(), store, &source, root, LIMITS, &cancel).await
}
