//! What an agent may do to its repository before the push: our token goes nowhere else,
//! nothing of it runs, and nothing outside of the session is read.

use std::fs;
use std::os::unix::fs::symlink;

use clawlink_fixtures::git_host::GitHost;
use clawlink_shared::execution::ErrorCode;

use super::{BRANCH, Bench, git_in};

#[tokio::test]
async fn configuration_decides_nothing() {
    let evil = GitHost::start().await.unwrap();
    evil.create_repo("app", &[("a", "1")]).await.unwrap();
    let bench = Bench::started(&[("a", "1")]).await;
    let marker = bench.dir.path().join("ran");
    let run = format!("touch {}", marker.display());
    let evil_base = evil.url("app").replace("/app.git", "");
    let home_base = bench.host.url("app").replace("/app.git", "");
    let included = bench.dir.path().join("included");
    fs::write(&included, format!("[core]\n\tfsmonitor = {run}\n")).unwrap();
    let config = format!(
        "[core]\n\tworktree = /\n\tfsmonitor = {run}\n\tsshCommand = {run}\n\thooksPath = {hooks}\n\teditor = {run}\n\
         [include]\n\tpath = {included}\n\
         [url \"{evil_base}\"]\n\tinsteadOf = {home_base}\n\tpushInsteadOf = {home_base}\n\
         [remote \"origin\"]\n\turl = {evil_url}\n\tpushurl = {evil_url}\n\tproxy = {evil_base}\n\
         [http]\n\tproxy = {evil_base}\n\
         [filter \"evil\"]\n\tclean = {run}\n\tsmudge = {run}\n\tprocess = {run}\n\
         [credential]\n\thelper = !{run}\n",
        hooks = bench.work().join(".git/hooks").display(),
        included = included.display(),
        evil_url = evil.url("app"),
    );
    fs::write(bench.work().join(".git/config"), config).unwrap();
    bench.write(".gitattributes", "* filter=evil\n");
    bench.write(".lfsconfig", &format!("[lfs]\n\turl = {evil_base}\n"));
    for hook in [
        "pre-commit",
        "commit-msg",
        "pre-push",
        "post-commit",
        "reference-transaction",
        "post-index-change",
    ] {
        use std::os::unix::fs::PermissionsExt as _;
        let path = bench.work().join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{run}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    bench.write("work", "1");
    bench.commit_and_push().await;
    assert_eq!(
        bench.tree().await,
        [
            "100644 .gitattributes",
            "100644 .lfsconfig",
            "100644 a",
            "100644 work"
        ]
    );
    assert_eq!(evil.log(), []);
    assert!(!marker.exists());
    bench.assert_no_token();
}

#[tokio::test]
async fn a_git_directory_that_is_not_our_own_is_refused() {
    let other = Bench::started(&[("secret", "1")]).await;
    let others_git = other.work().join(".git");
    type Trick = fn(&std::path::Path, &std::path::Path);
    let tricks: [(&str, Trick); 9] = [
        ("link", |git, other| {
            fs::remove_dir_all(git).unwrap();
            symlink(other, git).unwrap();
        }),
        ("file", |git, other| {
            fs::remove_dir_all(git).unwrap();
            fs::write(git, format!("gitdir: {}\n", other.display())).unwrap();
        }),
        ("gone", |git, _| fs::remove_dir_all(git).unwrap()),
        ("objects link", |git, other| {
            fs::remove_dir_all(git.join("objects")).unwrap();
            symlink(other.join("objects"), git.join("objects")).unwrap();
        }),
        ("pack link", |git, other| {
            fs::remove_dir_all(git.join("objects/pack")).unwrap();
            symlink(other.join("objects/pack"), git.join("objects/pack")).unwrap();
        }),
        ("alternates", |git, other| {
            fs::create_dir_all(git.join("objects/info")).unwrap();
            fs::write(
                git.join("objects/info/alternates"),
                other.join("objects").as_os_str().as_encoded_bytes(),
            )
            .unwrap();
        }),
        ("HEAD link", |git, _| {
            fs::remove_file(git.join("HEAD")).unwrap();
            symlink("/etc/passwd", git.join("HEAD")).unwrap();
        }),
        ("refs link", |git, other| {
            fs::remove_dir_all(git.join("refs")).unwrap();
            symlink(other.join("refs"), git.join("refs")).unwrap();
        }),
        ("HEAD huge", |git, _| {
            fs::write(git.join("HEAD"), "a".repeat(100_000)).unwrap();
        }),
    ];
    for (name, trick) in tricks {
        let bench = Bench::started(&[("a", "1")]).await;
        bench.write("work", "1");
        trick(&bench.work().join(".git"), &others_git);
        let failure = bench.commit("Work").await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::PushFailed, "{name}");
        assert!(
            failure.message.contains(".git"),
            "{name}: {}",
            failure.message
        );
        if !name.starts_with("HEAD") {
            let failure = bench.push().await.unwrap_err();
            assert_eq!(failure.code, ErrorCode::PushFailed, "{name}");
        }
        assert_eq!(bench.host.tip("app", BRANCH).await.unwrap(), None, "{name}");
    }
    assert_eq!(
        git_in(&other.work(), &["status", "--porcelain"]),
        "",
        "the other session is untouched"
    );
}

#[tokio::test]
async fn links_are_replaced_and_not_written_through() {
    let bench = Bench::started(&[("a", "1")]).await;
    let victim = bench.dir.path().join("victim");
    fs::write(&victim, "intact").unwrap();
    let git = bench.work().join(".git");
    let branch = git.join("refs/heads").join(BRANCH);
    let tip = fs::read_to_string(&branch).unwrap();
    fs::write(git.join("HEAD"), tip).unwrap();
    fs::remove_file(git.join("index")).unwrap();
    fs::remove_file(&branch).unwrap();
    symlink(bench.dir.path(), git.join("refs/remotes/evil")).unwrap();
    bench.write("work", "1");
    symlink(&victim, bench.work().join("out")).unwrap();
    symlink("..", bench.work().join("up")).unwrap();
    bench.commit_and_push().await;
    assert_eq!(fs::read_to_string(&victim).unwrap(), "intact");
    assert_eq!(
        bench.tree().await,
        ["100644 a", "120000 out", "120000 up", "100644 work"]
    );

    fs::remove_file(git.join("index")).unwrap();
    symlink(&victim, git.join("index")).unwrap();
    bench.write("work", "2");
    let failure = bench.commit("Work").await.unwrap_err();
    assert!(
        failure.message.contains(".git/index"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read_to_string(&victim).unwrap(), "intact");
}

#[tokio::test]
async fn nested_repositories_and_special_files_do_not_stop_a_commit() {
    let bench = Bench::started(&[("a", "1")]).await;
    bench.write("nested/file", "1");
    git_in(&bench.work().join("nested"), &["init", "-q"]);
    git_in(&bench.work().join("nested"), &["add", "."]);
    git_in(&bench.work().join("nested"), &["commit", "-qm", "Inner"]);
    bench.write("odd/.git", "gitdir: /etc\n");
    bench.write("odd/file", "1");
    bench.write("case/.GIT/config", "evil");
    let fifo = bench.work().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(bench.work().join("socket")).unwrap();
    bench.write("work", "1");
    let outcome = bench.commit("Work").await.unwrap();
    assert!(
        outcome.notes.iter().any(|note| note.contains("nested")),
        "{:?}",
        outcome.notes
    );
    assert!(
        outcome.notes.iter().any(|note| note.contains("pipe")),
        "{:?}",
        outcome.notes
    );
    bench.push().await.unwrap();
    assert_eq!(
        bench.tree().await,
        [
            "100644 a",
            "100644 nested/file",
            "100644 odd/file",
            "100644 work"
        ]
    );
}

#[tokio::test]
async fn rules_files_that_would_block_or_lead_away_are_refused() {
    for name in [".gitignore", ".gitattributes"] {
        let bench = Bench::started(&[("a", "1")]).await;
        bench.write("sub/work", "1");
        let path = bench.work().join("sub").join(name);
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let failure = bench.commit("Work").await.unwrap_err();
        assert!(failure.message.contains(name), "{}", failure.message);

        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(bench.commit("Work").await.is_err());
    }
}

#[tokio::test]
async fn missing_objects_and_forged_facts_only_fail_the_push() {
    let bench = Bench::started(&[("a", "1")]).await;
    bench.write("work", "only here");
    bench.agent(&["add", "."]);
    bench.agent(&["commit", "-qm", "By the agent"]);
    let blob = bench.agent(&["rev-parse", "HEAD:work"]);
    let object = bench
        .work()
        .join(".git/objects")
        .join(&blob[..2])
        .join(blob[2..].trim());
    fs::remove_file(object).unwrap();
    fs::remove_file(bench.work().join("work")).unwrap();
    bench.commit("Work").await.unwrap();
    let failure = bench.push().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::PushFailed);

    let bench = Bench::started(&[("a", "1")]).await;
    fs::write(bench.work().join(".git/shallow"), "not a hash\n").unwrap();
    assert_eq!(
        bench.commit("Work").await.unwrap_err().code,
        ErrorCode::PushFailed
    );
}

#[tokio::test]
async fn a_secret_in_a_file_a_name_or_a_message_stops_the_push() {
    for (place, named) in [
        ("content", "\"deep/leak\""),
        ("name", "the name of a file"),
        ("message", "the message"),
    ] {
        let bench = Bench::started(&[("a", "1")]).await;
        let token = bench.host.token();
        match place {
            "content" => bench.write("deep/leak", &format!("the token is {token}\n")),
            "name" => bench.write(&token, "1"),
            _ => bench.write("file", "1"),
        }
        if place == "message" {
            bench.agent(&["add", "."]);
            bench.agent(&["commit", "-qm", &token]);
            bench.write("file", "2");
        }
        bench.commit("Work").await.unwrap();
        let failure = bench.push().await.unwrap_err();
        assert!(
            failure.message.contains("holds a secret"),
            "{}",
            failure.message
        );
        assert!(failure.message.contains(named), "{}", failure.message);
        assert!(!failure.message.contains(&token));
        assert_eq!(
            bench.host.tip("app", BRANCH).await.unwrap(),
            None,
            "{place}"
        );
    }
}

#[tokio::test]
async fn gitmodules_of_the_agent_is_not_read_as_configuration() {
    let bench = Bench::started(&[("a", "1")]).await;
    let pipe = bench.dir.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let include = format!("[include]\n\tpath = {}\n", pipe.display());
    bench.write(
        ".gitmodules",
        &format!("{include}[submodule \"../x\"]\n\tpath = a\n\turl = -x\n"),
    );
    bench.write("work", "1");
    bench.commit_and_push().await;
    assert_eq!(
        bench.tree().await,
        ["100644 .gitmodules", "100644 a", "100644 work"]
    );
}

#[tokio::test]
async fn no_folder_is_made_behind_a_link() {
    for name in ["refs/heads", "refs/remotes"] {
        let bench = Bench::started(&[("a", "1")]).await;
        bench.write("work", "1");
        let outside = tempfile::tempdir().unwrap();
        let link = bench.work().join(".git").join(name);
        fs::remove_dir_all(&link).unwrap();
        symlink(outside.path(), &link).unwrap();
        // Whether there is anything to push is another matter.
        let _refused = bench.commit("Work").await;
        let _refused = bench.push().await;
        let made = fs::read_dir(outside.path()).unwrap().count();
        assert_eq!(made, 0, "{name}");
    }
}
