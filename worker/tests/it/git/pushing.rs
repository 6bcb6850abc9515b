//! Committing and pushing.

use clawlink_shared::execution::ErrorCode;

use super::{BRANCH, Bench, access};

#[tokio::test]
async fn a_shallow_clone_pushes_what_changed() {
    let bench = Bench::new(&[("a", "1"), ("b", "2"), ("dir/c", "3")]).await;
    bench
        .host
        .commit("app", "main", &[("a", "2")], "Second")
        .await
        .unwrap();
    bench.start().await;
    bench.write("new file.txt", "hello\n");
    bench.write("a", "3");
    std::fs::remove_file(bench.work().join("b")).unwrap();
    let outcome = bench.commit("Subject\n\nTrailer: yes\n").await.unwrap();
    assert!(outcome.committed);
    let pushed = bench.push().await.unwrap();
    assert_eq!(Some(pushed.tip), outcome.tip);
    assert_eq!(
        bench.tree().await,
        ["100644 a", "100644 dir/c", "100644 new file.txt"]
    );
    assert_eq!(bench.file("a").await, "3");
    assert_eq!(
        bench.host.message("app", BRANCH).await.unwrap().trim(),
        "Subject\n\nTrailer: yes"
    );
    assert_eq!(
        bench.host.history("app", BRANCH).await.unwrap(),
        ["Subject", "Second", "First commit"]
    );
    let author = bench
        .host
        .ask("app", &["log", "-1", "--format=%an %ce", BRANCH])
        .await
        .unwrap();
    assert_eq!(author.trim(), "Clawlink clawlink@example.com");
    bench.host.ask("app", &["fsck", "--strict"]).await.unwrap();
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
    assert_eq!(bench.agent(&["branch", "--show-current"]).trim(), BRANCH);
    bench.agent(&["fsck"]);
    bench.assert_no_token();

    let again = bench.commit("Work").await.unwrap();
    assert_eq!((again.committed, again.unpushed), (false, false));
    assert!(bench.push().await.unwrap().was_there);
    bench.write("later", "x");
    bench.commit_and_push().await;
    assert_eq!(bench.file("later").await, "x");
}

#[tokio::test]
async fn only_what_the_remote_lacks_is_sent_although_it_moved_on() {
    let content = "0123456789\n".repeat(20_000);
    let files: Vec<(String, String)> = (0..20)
        .map(|n| (format!("f{n}"), format!("{n}{content}")))
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(p, c)| (p.as_str(), c.as_str()))
        .collect();
    for depth in [0, 1] {
        let mut bench = Bench::new(&files).await;
        bench.repository.depth = depth;
        bench.start().await;
        bench
            .host
            .commit("app", "main", &[("moved", "on")], "Moved on")
            .await
            .unwrap();
        bench.write("new", "1");
        let before = bench
            .host
            .ask("app", &["count-objects", "-v"])
            .await
            .unwrap();
        bench.commit_and_push().await;
        let after = bench
            .host
            .ask("app", &["count-objects", "-v"])
            .await
            .unwrap();
        let count = |text: &str| -> u32 {
            text.lines()
                .filter_map(|line| line.split_once(": "))
                .filter(|(key, _)| matches!(*key, "count" | "in-pack"))
                .map(|(_, n)| n.parse::<u32>().unwrap())
                .sum()
        };
        assert_eq!(count(&after) - count(&before), 3, "depth {depth}");
    }
}

#[tokio::test]
async fn the_agents_own_commits_are_pushed() {
    let bench = Bench::started(&[("a", "1")]).await;
    bench.write("mine", "1");
    bench.agent(&["add", "."]);
    bench.agent(&["commit", "-qm", "By the agent"]);
    let outcome = bench.commit("Work").await.unwrap();
    assert_eq!((outcome.committed, outcome.unpushed), (false, true));
    bench.push().await.unwrap();
    assert_eq!(
        bench.host.history("app", BRANCH).await.unwrap(),
        ["By the agent", "First commit"]
    );
}

#[tokio::test]
async fn commits_on_another_branch_or_none_end_on_the_sessions_branch() {
    for switch in [
        &["checkout", "-q", "-b", "own"][..],
        &["checkout", "-q", "--detach"],
    ] {
        let bench = Bench::started(&[("a", "1")]).await;
        bench.agent(switch);
        bench.write("mine", "1");
        bench.agent(&["add", "."]);
        bench.agent(&["commit", "-qm", "By the agent"]);
        bench.write("left", "1");
        bench.commit_and_push().await;
        assert_eq!(
            bench.host.history("app", BRANCH).await.unwrap(),
            ["Work", "By the agent", "First commit"]
        );
        assert_eq!(
            bench.tree().await,
            ["100644 a", "100644 left", "100644 mine"]
        );
    }
    let bench = Bench::started(&[("a", "1")]).await;
    bench.write("one", "1");
    bench.agent(&["add", "."]);
    bench.agent(&["commit", "-qm", "On the branch"]);
    bench.agent(&["checkout", "-q", "-b", "own", "HEAD~"]);
    bench.write("two", "2");
    bench.agent(&["add", "."]);
    bench.agent(&["commit", "-qm", "Beside it"]);
    bench.commit_and_push().await;
    let history = bench.host.history("app", BRANCH).await.unwrap();
    for subject in ["On the branch", "Beside it"] {
        assert!(history.iter().any(|found| found == subject), "{history:?}");
    }
    bench.host.ask("app", &["fsck", "--strict"]).await.unwrap();
}

#[tokio::test]
async fn packed_references_and_objects_of_the_agent_are_found() {
    let bench = Bench::started(&[("a", "1")]).await;
    bench.write("mine", "1");
    bench.agent(&["add", "."]);
    bench.agent(&["commit", "-qm", "By the agent"]);
    bench.agent(&["gc", "-q"]);
    bench.write("more", "1");
    bench.commit_and_push().await;
    assert_eq!(
        bench.host.history("app", BRANCH).await.unwrap(),
        ["Work", "By the agent", "First commit"]
    );
}

#[tokio::test]
async fn ignored_files_stay_out_and_tracked_ones_stay_in() {
    let bench = Bench::started(&[
        (".gitignore", "*.log\n/build/\n!keep.log\n"),
        ("tracked.log", "1"),
        ("build/tracked", "1"),
        ("sub/.gitignore", "secret\n"),
    ])
    .await;
    for path in [
        "x.log",
        "build/out",
        "sub/secret",
        "keep.log",
        "secret",
        "private.txt",
        "forced.log",
    ] {
        bench.write(path, "new");
    }
    bench.write("tracked.log", "2");
    bench.write("build/tracked", "2");
    bench.agent(&["add", "-f", "forced.log"]);
    std::fs::write(bench.work().join(".git/info/exclude"), "private.txt\n").unwrap();
    bench.commit_and_push().await;
    assert_eq!(
        bench.tree().await,
        [
            "100644 .gitignore",
            "100644 build/tracked",
            "100644 forced.log",
            "100644 keep.log",
            "100644 secret",
            "100644 sub/.gitignore",
            "100644 tracked.log"
        ]
    );
    assert_eq!(bench.file("build/tracked").await, "2");
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn line_ends_follow_the_attributes() {
    let bench = Bench::started(&[
        (".gitattributes", "* text=auto eol=crlf\n"),
        ("a.txt", "1\n2\n"),
    ])
    .await;
    assert_eq!(
        std::fs::read_to_string(bench.work().join("a.txt")).unwrap(),
        "1\r\n2\r\n"
    );
    assert!(!bench.commit("Work").await.unwrap().committed);
    bench.write("b.txt", "3\r\n4\r\n");
    bench.commit_and_push().await;
    assert_eq!(bench.file("b.txt").await, "3\n4\n");
    assert_eq!(bench.file("a.txt").await, "1\n2\n");
}

#[tokio::test]
async fn a_branch_that_moved_is_not_forced() {
    let bench = Bench::started(&[("a", "1")]).await;
    bench.write("mine", "1");
    bench.commit_and_push().await;
    bench
        .host
        .commit("app", BRANCH, &[("theirs", "1")], "By somebody else")
        .await
        .unwrap();
    let theirs = bench.host.tip("app", BRANCH).await.unwrap();
    bench.write("mine", "2");
    assert!(bench.commit("Work").await.unwrap().unpushed);
    let failure = bench.push().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::PushFailed);
    assert!(
        failure.message.contains("non-fast-forward"),
        "{}",
        failure.message
    );
    assert_eq!(bench.host.tip("app", BRANCH).await.unwrap(), theirs);
}

#[tokio::test]
async fn a_refused_push_names_the_reason_and_a_later_one_succeeds() {
    let mut bench = Bench::started(&[("a", "1")]).await;
    bench
        .host
        .protect("app", "branch is protected by policy 7")
        .unwrap();
    bench.write("mine", "1");
    let outcome = bench.commit("Work").await.unwrap();
    let failure = bench.push().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::PushFailed);
    assert!(
        failure.message.contains("pre-receive hook declined"),
        "{}",
        failure.message
    );
    assert!(failure.message.contains("policy 7"), "{}", failure.message);
    bench.host.unprotect("app").unwrap();

    let old = bench.host.token();
    bench.host.expire_token();
    let failure = bench.push().await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::PushFailed);
    assert!(
        failure.message.contains("refused the access token"),
        "{}",
        failure.message
    );
    assert!(!failure.message.contains(&old));

    bench.access = access(&bench.repository.url, Some(&bench.host.token()));
    let next_turn = bench.commit("Work").await.unwrap();
    assert_eq!((next_turn.committed, next_turn.unpushed), (false, true));
    assert_eq!(next_turn.tip, outcome.tip);
    bench.push().await.unwrap();
    assert_eq!(bench.host.tip("app", BRANCH).await.unwrap(), outcome.tip);
}
