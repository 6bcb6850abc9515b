//! Cloning.

use std::os::unix::fs::PermissionsExt;

use clawlink_fixtures::git_host::GitHost;
use clawlink_shared::execution::ErrorCode;
use clawlink_worker::proxy::Proxies;
use clawlink_worker::workspace::git::{self, GitAccess, is_public};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{BRANCH, Bench, GIB, access, blocking};

#[tokio::test]
async fn a_shallow_clone_has_the_files_and_one_commit() {
    let mut bench = Bench::new(&[("README.md", "one\n")]).await;
    bench
        .host
        .commit("app", "main", &[("src/a.txt", "two\n")], "Second")
        .await
        .unwrap();
    bench.repository.depth = 1;
    let cloned = bench.clone().await.unwrap();
    assert_eq!(cloned.branch, "main");
    assert_eq!(cloned.commit, bench.host.tip("app", "main").await.unwrap());
    assert!(cloned.notes.is_empty(), "{:?}", cloned.notes);
    assert_eq!(
        std::fs::read_to_string(bench.work().join("src/a.txt")).unwrap(),
        "two\n"
    );
    assert_eq!(bench.agent(&["rev-list", "--count", "HEAD"]).trim(), "1");
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
    bench.agent(&["fsck"]);
    bench.assert_no_token();
}

#[tokio::test]
async fn a_full_clone_has_the_history_and_all_branches() {
    let mut bench = Bench::new(&[("README.md", "one\n")]).await;
    bench
        .host
        .commit("app", "main", &[("b", "2")], "Second")
        .await
        .unwrap();
    bench
        .host
        .commit("app", "other", &[("c", "3")], "Third")
        .await
        .unwrap();
    bench.repository.depth = 0;
    bench.clone().await.unwrap();
    assert_eq!(bench.agent(&["rev-list", "--count", "HEAD"]).trim(), "2");
    assert!(bench.agent(&["branch", "-r"]).contains("origin/other"));
    assert!(!bench.work().join(".git/shallow").exists());
}

#[tokio::test]
async fn a_branch_is_taken_when_named_and_replaced_when_missing() {
    let mut bench = Bench::new(&[("a", "1")]).await;
    bench
        .host
        .commit("app", "dev", &[("b", "2")], "On dev")
        .await
        .unwrap();
    bench.repository.branch = Some("dev".to_owned());
    assert_eq!(bench.clone().await.unwrap().branch, "dev");
    assert!(bench.work().join("b").exists());

    let mut bench = Bench::new(&[("a", "1")]).await;
    bench.repository.branch = Some("gone".to_owned());
    let cloned = bench.clone().await.unwrap();
    assert_eq!(cloned.branch, "main");
    assert_eq!(
        cloned.notes,
        ["Branch gone does not exist; using the default branch main."]
    );
}

#[tokio::test]
async fn odd_names_links_and_executable_files_survive_both_ways() {
    let bench = Bench::new(&[("ünïcödé/файл 名.txt", "hallo\n")]).await;
    let tree = bench.host.check_out("app", "main").await.unwrap();
    std::os::unix::fs::symlink("ünïcödé/файл 名.txt", tree.path().join("link")).unwrap();
    std::fs::write(tree.path().join("run.sh"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(
        tree.path().join("run.sh"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    bench.host.commit_tree(tree, "main", "Odd").await.unwrap();
    bench.start().await;
    let work = bench.work();
    assert_eq!(
        std::fs::read_to_string(work.join("link")).unwrap(),
        "hallo\n"
    );
    assert_ne!(
        work.join("run.sh").metadata().unwrap().permissions().mode() & 0o100,
        0
    );

    use std::os::unix::ffi::OsStrExt as _;
    std::fs::create_dir(work.join("new\ndir")).unwrap();
    std::fs::write(work.join("new\ndir/-x \"q\""), "1").unwrap();
    let raw = std::ffi::OsStr::from_bytes(b"not-\xff-utf8");
    std::fs::create_dir(work.join(raw)).unwrap();
    std::fs::write(work.join(raw).join("f"), "1").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", work.join("outside")).unwrap();
    std::fs::set_permissions(work.join("run.sh"), std::fs::Permissions::from_mode(0o644)).unwrap();
    bench.commit_and_push().await;
    let tree = bench.tree().await;
    for expected in [
        "120000 link",
        "120000 outside",
        "100644 run.sh",
        "100644 new\ndir/-x \"q\"",
        "100644 not-\u{fffd}-utf8/f",
        "100644 ünïcödé/файл 名.txt",
    ] {
        assert!(
            tree.iter().any(|entry| entry == expected),
            "{expected}: {tree:?}"
        );
    }
    assert_eq!(bench.file("outside").await, "/etc/passwd");
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn an_empty_repository_gets_its_branch_with_the_first_commit() {
    let bench = Bench::started(&[]).await;
    let nothing = bench.commit("Work").await.unwrap();
    assert_eq!((nothing.tip, nothing.unpushed), (None, false));
    bench.write("hello.txt", "hello\n");
    bench.commit_and_push().await;
    assert_eq!(bench.tree().await, ["100644 hello.txt"]);
    assert_eq!(bench.host.branches("app").await.unwrap(), [BRANCH]);
}

#[tokio::test]
async fn a_directory_stays_inside_the_repository() {
    let bench = Bench::new(&[("sub/dir/file", "1")]).await;
    bench.clone().await.unwrap();
    std::os::unix::fs::symlink("/tmp", bench.work().join("away")).unwrap();
    let inside = git::working_directory(&bench.work(), Some("sub/dir")).unwrap();
    assert!(inside.join("file").exists());
    for refused in [
        "../..",
        "/etc",
        "sub/../..",
        "away",
        "missing",
        "sub/dir/file",
    ] {
        let failure = git::working_directory(&bench.work(), Some(refused)).unwrap_err();
        assert_eq!(failure.code, ErrorCode::ValidationError, "{refused}");
    }
}

#[tokio::test]
async fn too_large_is_said_before_files_are_written() {
    let big = "0123456789abcdef".repeat(4096);
    let bench = Bench::new(&[("big", &big), ("b", "2"), ("c", "3")]).await;
    let failure = bench.clone_at_most(60_000, 100).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::RepoTooLarge);
    assert!(!bench.work().join("big").exists());

    let bench = Bench::new(&[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let failure = bench.clone_at_most(GIB, 2).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::RepoTooLarge);
    assert!(!bench.work().join("a").exists());
    std::fs::remove_dir_all(bench.work()).unwrap();
    let failure = bench.clone_at_most(100, 100).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::RepoTooLarge);
}

#[tokio::test]
async fn refusals_have_their_codes_and_no_token() {
    let mut bench = Bench::new(&[("a", "1")]).await;
    let good = bench.host.token();
    bench.access = access(&bench.repository.url, None);
    assert_eq!(
        bench.clone().await.unwrap_err().code,
        ErrorCode::RepoAuthFailed
    );
    bench.access = access(&bench.repository.url, Some("wrong-token"));
    let failure = bench.clone().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::RepoAuthFailed);
    assert!(
        failure.message.contains("Bad credentials"),
        "{}",
        failure.message
    );
    assert!(!failure.message.contains("wrong-token"));
    bench.access = access(&bench.host.url("nothing"), Some(&good));
    assert_eq!(
        bench.clone().await.unwrap_err().code,
        ErrorCode::RepoNotFound
    );
    bench.access = access("http://127.0.0.1:1/x.git", Some(&good));
    assert_eq!(
        bench.clone().await.unwrap_err().code,
        ErrorCode::RepoNotFound
    );
}

/// The host begins an answer, or none, and says nothing more.
#[tokio::test]
async fn a_silent_host_does_not_hold_a_cancelled_clone() {
    for begun in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n001e# service",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/app.git", listener.local_addr().unwrap());
        let mut bench = Bench::new(&[]).await;
        bench.access = access(&url, None);
        let (access, repository) = (bench.access.clone(), bench.repository.clone());
        let (into, cancel) = (bench.work(), CancellationToken::new());
        let token = cancel.clone();
        let cloning = tokio::spawn(blocking(move || {
            let request = git::CloneRequest {
                repository: &repository,
                working_branch: None,
                into: &into,
                max_bytes: GIB,
                max_files: 10,
            };
            git::clone(&access, request, &token, &mut |_| {}).unwrap_err()
        }));
        let (mut stream, _) = listener.accept().await.unwrap();
        // An answer before the question would be a fault of its own.
        stream.read_u8().await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        cancel.cancel();
        let failure = cloning.await.unwrap();
        assert_eq!(failure.code, ErrorCode::Interrupted, "{}", failure.message);
    }
}

#[tokio::test]
async fn a_redirect_keeps_the_token_at_home() {
    let home = GitHost::start().await.unwrap();
    home.create_repo("app", &[("a", "1")]).await.unwrap();
    home.redirect("old", &home.url("app"));
    let away = GitHost::start().await.unwrap();
    away.create_repo("app", &[("a", "1")]).await.unwrap();

    let mut bench = Bench::on(home);
    bench.access = access(&bench.host.url("old"), Some(&bench.host.token()));
    bench.clone().await.unwrap();

    bench.host.redirect("old", &away.url("app"));
    std::fs::remove_dir_all(bench.work()).unwrap();
    assert_eq!(
        bench.clone().await.unwrap_err().code,
        ErrorCode::RepoAuthFailed
    );
    assert!(away.log().iter().all(|asked| !asked.with_credentials));
    assert!(!away.log().is_empty());

    bench.host.redirect("old", "file:///etc");
    assert_eq!(
        bench.clone().await.unwrap_err().code,
        ErrorCode::ValidationError
    );
}

#[tokio::test]
async fn addresses_that_are_not_public_https_are_refused() {
    for url in [
        "file:///etc",
        "ext::sh -c id",
        "ssh://git@github.com/a/b",
        "git@github.com:a/b.git",
        "/etc",
        "../up",
        "ftp://example.com/a",
        "http://example.com/a.git",
        "https://user:secret@example.com/a.git",
        "https://token@example.com/a.git",
        "https://example.com/a.git?x=1",
        "https://127.0.0.1/a.git",
        "https://0x7f.1/a.git",
        "https://2130706433/a.git",
        "https://10.0.0.1/a.git",
        "https://169.254.169.254/latest",
        "https://100.64.1.1/a.git",
        "https://[::1]/a.git",
        "https://[::ffff:10.0.0.1]/a.git",
        "https://[fd00::1]/a.git",
        "https://[fe80::1]/a.git",
        "https://[64:ff9b::a00:1]/a.git",
    ] {
        let failure = GitAccess::new(url, None, false, &Proxies::default()).unwrap_err();
        assert_eq!(failure.code, ErrorCode::ValidationError, "{url}");
        assert!(!failure.message.contains("secret"), "{}", failure.message);
    }
    for url in [
        "https://169.254.169.254/latest",
        "http://0.0.0.0/a",
        "file:///etc",
    ] {
        assert!(
            GitAccess::new(url, None, true, &Proxies::default()).is_err(),
            "{url}"
        );
    }
    assert!(GitAccess::new("https://github.com/a/b", None, false, &Proxies::default()).is_ok());
    assert!(is_public("140.82.121.4".parse().unwrap()));
    assert!(is_public("2606:50c0:8000::153".parse().unwrap()));
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused() {
    let mut bench = Bench::new(&[("a", "1")]).await;
    bench.access = GitAccess::new(
        "https://localhost/app.git",
        None,
        false,
        &Proxies::default(),
    )
    .unwrap();
    let failure = bench.clone().await.unwrap_err();
    assert_eq!(
        failure.code,
        ErrorCode::ValidationError,
        "{}",
        failure.message
    );
    assert!(failure.message.contains("private"), "{}", failure.message);
}
