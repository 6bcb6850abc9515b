//! Archives made by an enemy: refused as `session_unavailable`, nothing left, nothing outside
//! the session root touched.

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use clawlink_worker::persist::{self, RestoreLimits};
use tar::{EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::storage;
use super::store::Store;
use super::tree::{snapshot, write};

/// An archive in the making, with no check of anything.
#[derive(Default)]
struct Evil(Vec<u8>);

impl Evil {
    fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let size = content.len() as u64;
        self.head(kind, path, link, size);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn head(&mut self, kind: EntryType, path: &str, link: &str, size: u64) {
        let mut header = Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o6777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn file(self, path: &str) -> Self {
        self.entry(EntryType::Regular, path, "", b"evil")
    }

    fn compressed(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        zstd::encode_all(&self.0[..], 3).unwrap()
    }
}

/// Restores below a directory that has a neighbour; answers the failure.
async fn refuse(archive: Vec<u8>) -> Failure {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "neighbour/file", "untouched");
    let root = dir.path().join("session");
    let before = snapshot(&dir.path().join("neighbour"));
    let store = Store::start().await;
    let source = store.hold(archive);
    let limits = RestoreLimits {
        max_bytes: 10_000_000,
        max_files: 100,
    };
    let cancel = CancellationToken::new();
    let failure = persist::restore(&storage(), &store, &source, &root, limits, &cancel)
        .await
        .unwrap_err();
    assert_eq!(
        failure.code,
        ErrorCode::SessionUnavailable,
        "{}",
        failure.message
    );
    assert_eq!(snapshot(&root).len(), 1, "{}", failure.message);
    assert!(before == snapshot(&dir.path().join("neighbour")));
    assert_eq!(dir.path().read_dir().unwrap().count(), 2);
    failure
}

#[tokio::test]
async fn names_outside_the_session_are_refused() {
    for path in [
        "/work/a",
        "/etc/passwd",
        "../neighbour/x",
        "work/../../neighbour/x",
        "work/..",
        "work/./a",
        "work//a",
        "work",
        "tmp/a",
        "a",
        "",
    ] {
        refuse(Evil::default().file(path).compressed()).await;
    }
    // Also when the name is a long one.
    let long = Evil::default()
        .entry(
            EntryType::GNULongName,
            "././@LongLink",
            "",
            b"work/../../neighbour/x\0",
        )
        .file("work/innocent");
    refuse(long.compressed()).await;
}

#[tokio::test]
async fn nothing_is_written_through_or_over_a_link() {
    let link = |target: &str| Evil::default().entry(EntryType::Symlink, "work/l", target, b"");
    refuse(link("../../neighbour").file("work/l/file").compressed()).await;
    refuse(link("../../neighbour/file").file("work/l").compressed()).await;
    refuse(
        link("/tmp")
            .entry(EntryType::Directory, "work/l/", "", b"")
            .compressed(),
    )
    .await;
    refuse(
        link("a")
            .entry(EntryType::Symlink, "work/l", "b", b"")
            .compressed(),
    )
    .await;
    refuse(Evil::default().file("work/a").file("work/a").compressed()).await;
    refuse(Evil::default().file("work/a").file("work/a/b").compressed()).await;
    for (path, target) in [("work", "/tmp"), ("home", "/tmp"), ("home/.claude", "/tmp")] {
        let top = Evil::default().entry(EntryType::Symlink, path, target, b"");
        refuse(top.compressed()).await;
    }
}

#[tokio::test]
async fn other_kinds_of_entry_are_refused() {
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::Continuous,
    ] {
        let archive = Evil::default().file("work/a");
        let archive = archive.entry(kind, "work/b", "../../neighbour/file", b"");
        refuse(archive.compressed()).await;
    }
}

#[tokio::test]
async fn bombs_are_refused() {
    let mut bomb = Evil::default();
    bomb.head(EntryType::Regular, "work/zeros", "", 1 << 40);
    bomb.0.resize(1 << 20, 0);
    refuse(bomb.compressed()).await;

    let zeros = vec![0; 6_000_000];
    let two = Evil::default()
        .entry(EntryType::Regular, "work/a", "", &zeros)
        .entry(EntryType::Regular, "work/b", "", &zeros);
    refuse(two.compressed()).await;

    let many = (0..200).fold(Evil::default(), |evil, n| evil.file(&format!("work/{n}")));
    refuse(many.compressed()).await;

    let same = (0..600).fold(Evil::default(), |evil, _| {
        evil.entry(EntryType::Directory, "work/", "", b"")
    });
    refuse(same.compressed()).await;

    let long_name = vec![b'a'; 1_000_000];
    let name = Evil::default().entry(EntryType::GNULongName, "././@LongLink", "", &long_name);
    refuse(name.file("work/a").compressed()).await;

    let deep = format!("work/{}\0", "d/".repeat(300));
    let deep = Evil::default().entry(EntryType::GNULongName, "././@L", "", deep.as_bytes());
    refuse(deep.file("work/a").compressed()).await;

    let mut trailer = Evil::default().file("work/a").0;
    trailer.resize(1 << 20, 0);
    refuse(zstd::encode_all(&trailer[..], 3).unwrap()).await;
}

#[tokio::test]
async fn damaged_archives_are_refused() {
    let good = Evil::default().file("work/a").compressed();
    refuse(good[..good.len() / 2].to_vec()).await;
    refuse(b"not zstd at all".to_vec()).await;
    refuse(zstd::encode_all(&[b'x'; 4096][..], 3).unwrap()).await;
    let mut cut = Evil::default();
    cut.head(EntryType::Regular, "work/a", "", 4000);
    refuse(zstd::encode_all(&cut.0[..], 3).unwrap()).await;
    let mut second_frame = good.clone();
    second_frame.extend_from_slice(b"rubbish behind the archive");
    refuse(second_frame).await;
}

#[tokio::test]
async fn set_user_id_bits_do_not_survive() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start().await;
    let source = store.hold(Evil::default().file("work/a").compressed());
    let cancel = CancellationToken::new();
    let limits = super::LIMITS;
    let restored = persist::restore(&storage(), &store, &source, dir.path(), limits, &cancel).await;
    assert_eq!(restored.unwrap().files, 2);
    let mode = std::os::unix::fs::MetadataExt::mode(&dir.path().join("work/a").metadata().unwrap());
    assert_eq!(mode & 0o7777, 0o777);
}
