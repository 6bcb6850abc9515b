//! The way there and back: parts, lapsed URLs, broken connections.

use clawlink_shared::control::ArchiveSource;
use clawlink_shared::execution::ErrorCode;
use clawlink_shared::secret::Secret;
use clawlink_worker::persist;
use tokio_util::sync::CancellationToken;

use super::store::{Fault, Store};
use super::tree::{noise, snapshot, write};
use super::{LIMITS, request, restore, save, storage};

#[tokio::test]
async fn a_small_session_is_one_object() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "work/a", "hello");
    let store = Store::start().await;
    store.fail([403, 500, 403].map(Fault::Status));
    save(&store, dir.path()).await.unwrap();
    let expected = [
        "grant true",
        "PUT archive",
        "grant true",
        "PUT archive",
        "PUT archive",
        "grant true",
        "PUT archive",
    ];
    assert_eq!(store.log(), expected);
    assert_eq!(store.content()["work/a"], b"hello");
}

#[tokio::test]
async fn a_large_session_goes_in_parts_with_renewed_urls() {
    let from = tempfile::tempdir().unwrap();
    write(from.path(), "work/noise", noise(12_000_000));
    let store = Store::start().await;
    store.fail([403, 503, 403].map(Fault::Status));
    let (done, _) = save(&store, from.path()).await.unwrap();
    let log = store.log();
    assert_eq!(log[0], "grant false");
    assert_eq!(log.last().unwrap(), "finish");
    assert!(log.contains(&"parts 1+1".to_owned()), "{log:?}");
    assert_eq!(
        log.iter().filter(|line| line.starts_with("PUT")).count(),
        3 + 3
    );

    let to = tempfile::tempdir().unwrap();
    store.fail([
        Fault::Status(403),
        Fault::Cut(1_000_000),
        Fault::Status(503),
        Fault::Cut(2_000_000),
    ]);
    restore(&store, &done, to.path()).await.unwrap();
    assert!(snapshot(&from.path().join("work")) == snapshot(&to.path().join("work")));
    let log = store.log();
    let tail = [
        "GET all", "source", "GET all", "GET rest", "GET rest", "GET rest",
    ];
    assert_eq!(log[log.len() - 6..], tail);
}

#[tokio::test]
async fn a_storage_that_stays_broken_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "work/noise", noise(9_000_000));
    for status in [403, 500, 400] {
        let store = Store::start().await;
        store.fail([Fault::Status(status); 30]);
        let failure = save(&store, dir.path()).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::StorageError);
        assert!(
            !failure.message.contains("signature"),
            "{}",
            failure.message
        );
        assert!(!store.log().contains(&"finish".to_owned()));
    }
}

#[tokio::test]
async fn a_failed_restore_leaves_nothing_and_says_whose_fault_it_is() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "work/a/noise", noise(2_000_000));
    write(dir.path(), "work/b", "x");
    let store = Store::start().await;
    let (done, _) = save(&store, dir.path()).await.unwrap();
    let good = store.source(&done);

    let other_sum = ArchiveSource {
        sha256: "0".repeat(64),
        ..good.clone()
    };
    let longer = ArchiveSource {
        size: good.size + 1,
        ..good.clone()
    };
    let shorter = ArchiveSource {
        size: good.size - 1,
        ..good.clone()
    };
    let gone = ArchiveSource {
        url: Secret::new(good.url.expose().replace("archive", "nothing")),
        ..good.clone()
    };
    let refused = ArchiveSource {
        url: Secret::new("http://127.0.0.1:1/archive?signature=hidden"),
        ..good.clone()
    };
    let cases = [
        (other_sum, vec![], ErrorCode::SessionUnavailable),
        (longer, vec![], ErrorCode::SessionUnavailable),
        (shorter, vec![], ErrorCode::SessionUnavailable),
        (gone, vec![], ErrorCode::SessionUnavailable),
        (refused, vec![], ErrorCode::StorageError),
        (
            good.clone(),
            vec![Fault::Cut(100_000); 12],
            ErrorCode::StorageError,
        ),
        (
            good.clone(),
            vec![Fault::Status(403); 12],
            ErrorCode::StorageError,
        ),
        (
            good.clone(),
            vec![Fault::Status(400)],
            ErrorCode::StorageError,
        ),
    ];
    for (source, faults, code) in cases {
        let store = store_with(&store, faults).await;
        let to = tempfile::tempdir().unwrap();
        let source = store
            .1
            .map_or(source.clone(), |url| ArchiveSource { url, ..source });
        let cancel = CancellationToken::new();
        let failure = persist::restore(&storage(), &store.0, &source, to.path(), LIMITS, &cancel)
            .await
            .unwrap_err();
        assert_eq!(failure.code, code, "{}", failure.message);
        assert!(
            !failure.message.contains("signature"),
            "{}",
            failure.message
        );
        assert!(snapshot(to.path()).len() == 1, "{}", failure.message);
    }
}

/// The same store, or with faults a fresh one that holds the same archive.
async fn store_with(store: &Store, faults: Vec<Fault>) -> (Store, Option<Secret>) {
    if faults.is_empty() {
        return (store.clone(), None);
    }
    let fresh = Store::start().await;
    let source = fresh.hold(store.archive());
    fresh.fail(faults);
    (fresh, Some(source.url))
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_a_storage_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "work/a", "x");
    let store = Store::start().await;
    let (done, _) = save(&store, dir.path()).await.unwrap();
    let in_a_file = dir.path().join("work/a/root");
    let failure = restore(&store, &done, &in_a_file).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::StorageError);
    let missing = request(&dir.path().join("missing"));
    let failure = persist::save(&storage(), &store, missing)
        .await
        .unwrap_err();
    assert_eq!(failure.code, ErrorCode::StorageError);
}
