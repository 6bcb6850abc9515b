//! What travels, as it is, and what never does.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use clawlink_shared::execution::ErrorCode;
use clawlink_worker::persist;
use proptest::prelude::*;

use super::store::Store;
use super::tree::{dress, link, noise, snapshot, write};
use super::{SECRET, request, restore, save, storage};

/// Saves a tree and answers what is in the archive, and the notes.
async fn saved(root: &Path, include_ignored: bool) -> (Vec<String>, Vec<String>) {
    let store = Store::start().await;
    let mut request = request(root);
    request.include_ignored = include_ignored;
    let (_, notes) = persist::save(&storage(), &store, request).await.unwrap();
    (store.content().into_keys().collect(), notes)
}

/// Commits nothing, but tracks these files.
fn track(work: &Path, paths: &[&str]) {
    let repository = git2::Repository::init(work).unwrap();
    let mut index = repository.index().unwrap();
    for path in paths {
        index.add_path(Path::new(path)).unwrap();
    }
    index.write().unwrap();
}

#[tokio::test]
async fn work_and_agent_state_travel_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in [
        "work/a.txt",
        "work/.npmrc",
        "work/sub/.ssh/id_ed25519",
        "work/.docker/config.json",
        "home/.claude/projects/-work/session.jsonl",
        "home/.claude/.credentials.json",
        "home/.claude/projects/.netrc",
        "home/.claude.json",
        "home/.cache/big",
        "tmp/scratch",
        "other",
    ] {
        write(root, path, "x");
    }
    link(root, "home/.claude/projects/out", b"/etc");
    std::fs::create_dir(root.join("work/empty")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("work/s.sock")).unwrap();
    let fifo = root.join("work/pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();

    let (names, notes) = saved(root, true).await;
    assert_eq!(
        names,
        [
            "home/.claude/projects/",
            "home/.claude/projects/-work/",
            "home/.claude/projects/-work/session.jsonl",
            "work/",
            "work/.docker/",
            "work/a.txt",
            "work/empty/",
            "work/sub/",
        ]
    );
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("home/.claude/projects/out"));
}

#[tokio::test]
async fn ignored_files_stay_unless_tracked_or_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    for path in [
        "src/main.rs",
        "target/debug/big",
        "target/kept/tracked.txt",
        "target/kept/untracked.txt",
        "a.log",
        "important.log",
        "sub/b.log",
        "sub/local",
        "excluded",
        ".npmrc",
        "deep/target",
    ] {
        write(&work, path, "x");
    }
    write(
        &work,
        ".gitignore",
        "/target/\n*.log\n!important.log\n.npmrc\n",
    );
    write(&work, "sub/.gitignore", "!b.log\n/local\n");
    track(&work, &["src/main.rs", "target/kept/tracked.txt", ".npmrc"]);
    write(&work, ".git/info/exclude", "excluded\n");
    write(&work, ".git/index.lock", "left by a killed git");
    // What no rule of ours may be led by.
    write(
        &work,
        ".git/config",
        "[core]\n\texcludesFile = /dev/zero\n\tworktree = /etc\n",
    );
    // A repository of its own has rules of its own.
    write(&work, "inner/x.log", "x");
    track(&work.join("inner"), &[]);

    let (names, notes) = saved(dir.path(), false).await;
    let tree = |name: &&String| !name.contains("/.git/") && !name.ends_with('/');
    assert_eq!(
        names.iter().filter(tree).collect::<Vec<_>>(),
        [
            "work/.gitignore",
            "work/.npmrc",
            "work/deep/target",
            "work/important.log",
            "work/inner/x.log",
            "work/src/main.rs",
            "work/sub/.gitignore",
            "work/sub/b.log",
            "work/target/kept/tracked.txt",
        ]
    );
    assert!(names.contains(&"work/.git/index".to_owned()));
    assert!(!names.contains(&"work/.git/index.lock".to_owned()));
    assert!(notes.is_empty(), "{notes:?}");

    let (names, _) = saved(dir.path(), true).await;
    assert!(names.contains(&"work/target/debug/big".to_owned()));
}

#[tokio::test]
async fn hostile_rules_files_do_not_hold_the_worker_up() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    write(&work, "a.log", "x");
    write(&work, "sub/b", "x");
    track(&work, &["sub/b"]);
    link(&work, ".gitignore", b"/dev/zero");
    let pipe = work.join("sub/.gitignore");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    write(&work, ".git/index", "no index at all");
    let (names, _) = saved(dir.path(), false).await;
    assert!(names.contains(&"work/a.log".to_owned()));
    assert!(names.contains(&"work/sub/b".to_owned()));
}

#[tokio::test]
async fn secrets_do_not_travel() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut big = vec![b'a'; 3 * 1024 * 1024];
    // Across the edge of the buffer.
    big[1024 * 1024 - 5..][..SECRET.len()].copy_from_slice(SECRET.as_bytes());
    write(root, "work/small.env", format!("KEY={SECRET}\n"));
    write(root, "work/big.bin", &big);
    write(root, "work/fine.txt", "fine");
    write(
        root,
        "work/.git/config",
        format!("url = https://{SECRET}@host/\n"),
    );
    write(root, &format!("work/{SECRET}.txt"), "fine");
    link(root, "work/link", SECRET.as_bytes());
    write(
        root,
        "home/.claude/projects/p/s.jsonl",
        format!("{{\"k\":\"{SECRET}\"}}"),
    );
    write(root, "home/.claude/projects/p/big.jsonl", &big);

    let store = Store::start().await;
    let (_, notes) = save(&store, root).await.unwrap();
    let content = store.content();
    let stars = "*".repeat(SECRET.len());
    let state = &content["home/.claude/projects/p/s.jsonl"];
    assert_eq!(
        String::from_utf8_lossy(state),
        format!("{{\"k\":\"{stars}\"}}")
    );
    big[1024 * 1024 - 5..][..SECRET.len()].fill(b'*');
    assert!(content["home/.claude/projects/p/big.jsonl"] == big);
    assert!(content.contains_key("work/fine.txt"));
    for (name, content) in &content {
        let lossy = String::from_utf8_lossy(content);
        assert!(!name.contains(SECRET) && !lossy.contains(SECRET), "{name}");
    }
    for missing in ["work/small.env", "work/big.bin", "work/link"] {
        assert!(!content.contains_key(missing));
        assert!(
            notes.iter().any(|note| note.contains(missing)),
            "{missing}: {notes:?}"
        );
    }
    assert_eq!(notes.len(), 7, "{notes:?}");
    assert!(notes.iter().all(|note| !note.contains(SECRET)));
}

#[tokio::test]
async fn a_session_over_its_bounds_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "work/a", noise(2000));
    write(dir.path(), "work/b", "x");
    let store = Store::start().await;
    for (max_bytes, max_files) in [(1999, 100), (1 << 20, 2)] {
        let mut request = request(dir.path());
        (request.max_bytes, request.max_files) = (max_bytes, max_files);
        let saved = persist::save(&storage(), &store, request).await;
        assert_eq!(saved.unwrap_err().code, ErrorCode::StorageError);
    }
    assert!(store.log().is_empty());
}

#[tokio::test]
async fn a_tree_that_changes_meanwhile_still_makes_a_sound_archive() {
    let dir = tempfile::tempdir().unwrap();
    let churn = dir.path().join("work/churn");
    write(&churn, "grows", noise(3_000_000));
    write(&churn, "shrinks", noise(3_000_000));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let changing = std::thread::spawn(move || {
        let mut length = 0_u64;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            length = (length + 777_777) % 4_000_000;
            for name in ["grows", "shrinks"] {
                let file = std::fs::File::options().write(true).open(churn.join(name));
                file.unwrap().set_len(length).unwrap();
            }
            std::fs::write(churn.join("comes"), "and").unwrap();
            std::fs::remove_file(churn.join("comes")).unwrap();
        }
    });
    let store = Store::start().await;
    for _ in 0..8 {
        let (done, _) = save(&store, dir.path()).await.unwrap();
        let to = tempfile::tempdir().unwrap();
        restore(&store, &done, to.path()).await.unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    changing.join().unwrap();
}

/// One thing to put into a random tree.
#[derive(Debug, Clone)]
enum Seed {
    File(PathBuf, Vec<u8>, u32, u32),
    Directory(PathBuf),
    Link(PathBuf, Vec<u8>),
}

fn name() -> impl Strategy<Value = OsString> {
    let byte = prop::sample::select(b"ab *?[]!\\\n\xc3\xa9\xff-".to_vec());
    prop::collection::vec(byte, 1..120).prop_map(OsString::from_vec)
}

fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(name(), 1..5).prop_map(PathBuf::from_iter)
}

fn seed() -> impl Strategy<Value = Seed> {
    let content = prop::collection::vec(any::<u8>(), 0..3000);
    let mode = prop::sample::select(vec![0o644, 0o755, 0o600, 0o444]);
    prop_oneof![
        (path(), content, mode, any::<u32>()).prop_map(|(p, c, m, t)| Seed::File(p, c, m, t)),
        path().prop_map(Seed::Directory),
        (path(), path()).prop_map(|(p, t)| Seed::Link(p, t.into_os_string().into_vec())),
        path().prop_map(|p| Seed::Link(p, b"/etc/../..//passwd/".to_vec())),
    ]
}

/// Plants what can be planted: names may collide.
fn plant(work: &Path, seed: &Seed) -> std::io::Result<()> {
    let (Seed::File(path, ..) | Seed::Directory(path) | Seed::Link(path, _)) = seed;
    let path = work.join(path);
    std::fs::create_dir_all(path.parent().unwrap())?;
    match seed {
        Seed::File(_, content, mode, mtime) => {
            if path.symlink_metadata().is_err() {
                std::fs::write(&path, content)?;
                dress(&path, *mode, u64::from(*mtime));
            }
            Ok(())
        }
        Seed::Directory(_) => std::fs::create_dir_all(path),
        Seed::Link(_, target) => {
            std::os::unix::fs::symlink(OsString::from_vec(target.clone()), path)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_tree_comes_back_as_it_was(seeds in prop::collection::vec(seed(), 0..20)) {
        let from = tempfile::tempdir().unwrap();
        let work = from.path().join("work");
        std::fs::create_dir(&work).unwrap();
        for seed in &seeds {
            let _collided = plant(&work, seed);
        }
        let to = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (notes, restored) = runtime.block_on(async {
            let store = Store::start().await;
            let (done, notes) = save(&store, from.path()).await.unwrap();
            (notes, restore(&store, &done, to.path()).await.unwrap())
        });
        let before = snapshot(&work);
        prop_assert_eq!(notes, Vec::<String>::new());
        prop_assert_eq!(restored.files, before.len() as u64);
        prop_assert!(before == snapshot(&to.path().join("work")));
    }
}
