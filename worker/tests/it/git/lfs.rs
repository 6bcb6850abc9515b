//! Git LFS: content in the working tree, pointers in commits, and where the token goes.

use std::fs;

use clawlink_fixtures::git_host::{GitHost, pointer};
use clawlink_worker::proxy::Proxies;
use clawlink_worker::workspace::git::{self, GitAccess};

use super::{BRANCH, Bench};

const ATTRIBUTES: (&str, &str) = (
    ".gitattributes",
    "*.bin filter=lfs diff=lfs merge=lfs -text\n",
);

/// A repository whose `a.bin` and `folder/b.bin` have their content on the host.
async fn bench() -> Bench {
    let host = GitHost::start().await.unwrap();
    let (a, b) = (
        host.store_lfs("content of a"),
        host.store_lfs("content of b"),
    );
    let files = [
        ATTRIBUTES,
        ("a.bin", a.as_str()),
        ("folder/b.bin", b.as_str()),
        ("plain.txt", a.as_str()),
    ];
    host.create_repo("app", &files).await.unwrap();
    Bench::on(host)
}

fn read(bench: &Bench, path: &str) -> String {
    fs::read_to_string(bench.work().join(path)).unwrap()
}

/// What the host was asked for besides git itself, with whether a token came along.
fn transfers(host: &GitHost) -> Vec<(String, bool)> {
    let log = host.log().into_iter();
    log.filter(|asked| asked.what.contains("lfs"))
        .map(|asked| {
            let what = asked.what.split('?').next().unwrap().to_owned();
            (what, asked.with_credentials)
        })
        .collect()
}

#[tokio::test]
async fn a_clone_has_the_content_and_git_sees_no_change() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = bench().await;
    let work = bench.host.check_out("app", "main").await.unwrap();
    let script = work.path().join("a.bin");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    bench
        .host
        .commit_tree(work, "main", "Executable")
        .await
        .unwrap();
    let cloned = bench.clone().await.unwrap();
    assert_eq!(cloned.notes, [] as [&str; 0]);
    assert_eq!(read(&bench, "a.bin"), "content of a");
    assert_eq!(read(&bench, "folder/b.bin"), "content of b");
    assert_eq!(read(&bench, "plain.txt"), pointer("content of a"));
    let mode = fs::metadata(bench.work().join("a.bin"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o111, 0o111);
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
    bench.assert_no_token();

    git::start_branch(&bench.work(), BRANCH).unwrap();
    let outcome = bench.commit("Work").await.unwrap();
    assert!(!outcome.committed, "{outcome:?}");
    bench.write("plain.txt", "1");
    let before = transfers(&bench.host).len();
    bench.commit_and_push().await;
    assert_eq!(
        transfers(&bench.host).len(),
        before,
        "nothing was asked again"
    );
    assert_eq!(bench.file("a.bin").await, pointer("content of a"));
}

#[tokio::test]
async fn changed_and_new_files_are_uploaded_and_their_pointers_pushed() {
    let bench = bench().await;
    bench.start().await;
    bench.write("a.bin", "changed");
    bench.write("new.bin", "new");
    bench.write("twin.bin", "new");
    bench.write("empty.bin", "");
    fs::rename(
        bench.work().join("folder/b.bin"),
        bench.work().join("moved.bin"),
    )
    .unwrap();
    let outcome = bench.commit("Work").await.unwrap();
    assert_eq!(outcome.notes, [] as [&str; 0]);
    bench.push().await.unwrap();
    for (path, content) in [
        ("a.bin", "changed"),
        ("new.bin", "new"),
        ("twin.bin", "new"),
        ("moved.bin", "content of b"),
    ] {
        assert_eq!(bench.file(path).await, pointer(content));
        assert_eq!(
            bench.host.lfs_content(&pointer(content)).as_deref(),
            Some(content)
        );
    }
    assert_eq!(bench.file("empty.bin").await, "");
    assert_eq!(read(&bench, "a.bin"), "changed");
    let puts = transfers(&bench.host);
    let puts = puts.iter().filter(|(what, _)| what.starts_with("PUT"));
    assert_eq!(puts.count(), 2, "one for each content that the host lacked");
    assert!(!bench.commit("Again").await.unwrap().committed);
}

#[tokio::test]
async fn what_cannot_be_uploaded_is_left_out_and_named() {
    let bench = bench().await;
    bench.start().await;
    bench.host.refuse_lfs("Over the quota");
    bench.write("a.bin", "changed");
    bench.write("new.bin", "new");
    bench.write("note.txt", "text");
    let outcome = bench.commit("Work").await.unwrap();
    let note = outcome.notes.join("\n");
    assert!(
        note.contains("a.bin") && note.contains("new.bin") && note.contains("Over the quota"),
        "{note}"
    );
    bench.push().await.unwrap();
    assert_eq!(bench.file("a.bin").await, pointer("content of a"));
    assert_eq!(bench.file("note.txt").await, "text");
    assert!(!bench.tree().await.concat().contains("new.bin"));
    assert_eq!(read(&bench, "a.bin"), "changed");

    bench.host.expire_token();
    let outcome = bench.commit("Work").await.unwrap();
    assert!(outcome.notes[0].contains("401"), "{:?}", outcome.notes);
}

#[tokio::test]
async fn a_secret_is_not_uploaded() {
    let bench = bench().await;
    bench.start().await;
    let content = format!("{}{}", "x".repeat(70_000), bench.host.token());
    bench.write("a.bin", &content);
    let outcome = bench.commit("Work").await.unwrap();
    assert!(outcome.notes[0].contains("secret"), "{:?}", outcome.notes);
    assert_eq!(bench.host.lfs_content(&pointer(&content)), None);
}

#[tokio::test]
async fn wrong_and_missing_content_leaves_the_pointer() {
    let bench = bench().await;
    let a = pointer("content of a");
    let lost = pointer("lost");
    let files = [("lost.bin", lost.as_str())];
    bench
        .host
        .commit("app", "main", &files, "More")
        .await
        .unwrap();
    for wrong in ["something else", "content of A"] {
        bench.host.falsify_lfs(&a, wrong);
        if bench.work().exists() {
            fs::remove_dir_all(bench.work()).unwrap();
        }
        let cloned = bench.clone().await.unwrap();
        let note = &cloned.notes[0];
        assert!(note.starts_with("2 Git LFS files"), "{note}");
        assert!(note.contains("a.bin (what came"), "{note}");
        assert!(note.contains("lost.bin (Object does not exist"), "{note}");
        assert_eq!(read(&bench, "a.bin"), a);
        assert_eq!(read(&bench, "lost.bin"), lost);
        assert_eq!(read(&bench, "folder/b.bin"), "content of b");
        assert_eq!(bench.agent(&["status", "--porcelain"]), "");
    }
}

#[tokio::test]
async fn content_counts_as_files_of_the_session() {
    let bench = bench().await;
    let big = bench.host.store_lfs(&"x".repeat(5000));
    let files = [("big.bin", big.as_str())];
    bench
        .host
        .commit("app", "main", &files, "Big")
        .await
        .unwrap();
    let cloned = bench.clone_at_most(4000, 100).await.unwrap();
    let note = &cloned.notes[0];
    assert!(note.contains("big.bin (it exceeds the bytes"), "{note}");
    assert_eq!(read(&bench, "big.bin"), big);
    assert_eq!(read(&bench, "a.bin"), "content of a");
}

#[tokio::test]
async fn another_host_gets_the_given_headers_and_no_token() {
    let bench = bench().await;
    let storage = GitHost::start().await.unwrap();
    storage.store_lfs("content of a");
    storage.store_lfs("content of b");
    bench.host.transfer_lfs_at(&storage.base_url());
    bench.start().await;
    assert_eq!(read(&bench, "a.bin"), "content of a");
    bench.write("new.bin", "new");
    bench.commit_and_push().await;
    assert!(storage.lfs_content(&pointer("new")).is_some());
    let seen = transfers(&storage);
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.iter().all(|(_, with_token)| !with_token), "{seen:?}");
    let own = transfers(&bench.host);
    assert!(own.iter().all(|(_, with_token)| *with_token), "{own:?}");
}

#[tokio::test]
async fn a_redirected_batch_takes_no_token_along() {
    let bench = bench().await;
    let other = GitHost::start().await.unwrap();
    other.create_repo("app", &[("a", "1")]).await.unwrap();
    bench.start().await;
    bench.host.redirect("app", &other.url("app"));
    bench.write("new.bin", "new");
    let outcome = bench.commit("Work").await.unwrap();
    assert!(outcome.notes[0].contains("401"), "{:?}", outcome.notes);
    let seen = transfers(&other);
    assert_eq!(
        seen,
        [("POST /app.git/info/lfs/objects/batch".to_owned(), false)]
    );
}

#[tokio::test]
async fn addresses_that_may_not_be_dialled_are_refused() {
    let bench = bench().await;
    for base in [
        "http://169.254.169.254",
        "file:///etc",
        "http://u:p@127.0.0.1",
    ] {
        bench.host.transfer_lfs_at(base);
        if bench.work().exists() {
            fs::remove_dir_all(bench.work()).unwrap();
        }
        let cloned = bench.clone().await.unwrap();
        assert!(
            cloned.notes[0].starts_with("2 Git LFS files were left"),
            "{base}: {:?}",
            cloned.notes
        );
        assert_eq!(read(&bench, "a.bin"), pointer("content of a"));
    }
}

#[tokio::test]
async fn configuration_of_the_repository_is_ignored() {
    let evil = GitHost::start().await.unwrap();
    let bench = bench().await;
    let url = format!("[lfs]\n\turl = {}/evil.git/info/lfs\n", evil.base_url());
    let files = [(".lfsconfig", url.as_str())];
    bench
        .host
        .commit("app", "main", &files, "Config")
        .await
        .unwrap();
    bench.start().await;
    assert_eq!(read(&bench, "a.bin"), "content of a");
    bench.agent(&["config", "lfs.url", &format!("{}/x", evil.base_url())]);
    bench.agent(&["config", "remote.origin.lfsurl", &evil.base_url()]);
    bench.write("new.bin", "new");
    bench.commit_and_push().await;
    assert!(bench.host.lfs_content(&pointer("new")).is_some());
    assert_eq!(evil.log(), []);
}

#[tokio::test]
async fn a_pointer_of_the_agents_own_commit_gets_its_content_uploaded() {
    let bench = bench().await;
    bench.start().await;
    // As `git-lfs` leaves it: the pointer is committed, the file has the content.
    bench.write("own.bin", &pointer("own"));
    bench.agent(&["add", "own.bin"]);
    bench.agent(&["commit", "-q", "-m", "Own"]);
    bench.write("own.bin", "own");
    bench.commit_and_push().await;
    assert_eq!(bench.file("own.bin").await, pointer("own"));
    assert_eq!(
        bench.host.lfs_content(&pointer("own")).as_deref(),
        Some("own")
    );
}

#[tokio::test]
async fn content_that_was_committed_by_mistake_stays_until_it_changes() {
    let bench = bench().await;
    let raw = [("raw.bin", "raw content")];
    bench.host.commit("app", "main", &raw, "Raw").await.unwrap();
    bench.start().await;
    bench.write("note.txt", "1");
    let outcome = bench.commit("Work").await.unwrap();
    assert_eq!(outcome.notes, [] as [&str; 0]);
    bench.write("raw.bin", "changed");
    bench.write("own.bin", "own");
    bench.agent(&["add", "own.bin"]);
    bench.agent(&["commit", "-q", "-m", "Own"]);
    let outcome = bench.commit("Work").await.unwrap();
    assert!(outcome.notes[0].contains("own.bin"), "{:?}", outcome.notes);
    bench.push().await.unwrap();
    assert_eq!(bench.file("raw.bin").await, pointer("changed"));
    assert_eq!(bench.file("own.bin").await, pointer("own"));
}

#[tokio::test]
async fn links_are_left_alone() {
    let bench = bench().await;
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("b.bin"), pointer("content of b")).unwrap();
    let work = bench.host.check_out("app", "main").await.unwrap();
    fs::remove_dir_all(work.path().join("folder")).unwrap();
    std::os::unix::fs::symlink(&outside, work.path().join("folder")).unwrap();
    std::os::unix::fs::symlink("a.bin", work.path().join("link.bin")).unwrap();
    bench.host.commit_tree(work, "main", "Links").await.unwrap();
    bench.clone().await.unwrap();
    assert_eq!(
        fs::read_to_string(outside.join("b.bin")).unwrap(),
        pointer("content of b")
    );
    assert!(bench.work().join("link.bin").is_symlink());
}

#[tokio::test]
async fn without_a_token_a_public_repository_is_filled() {
    let mut bench = bench().await;
    bench.host.make_public();
    bench.access = GitAccess::new(&bench.repository.url, None, true, &Proxies::default()).unwrap();
    bench.start().await;
    assert_eq!(read(&bench, "a.bin"), "content of a");
    bench.write("a.bin", "changed");
    let outcome = bench.commit("Work").await.unwrap();
    assert!(outcome.notes[0].contains("401"), "{:?}", outcome.notes);
}
