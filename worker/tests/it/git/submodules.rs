//! Submodules: of a clone, and what agents do in them.

use std::fs;

use clawlink_fixtures::git_host::GitHost;
use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;

use super::delivery::deliver_from;
use super::{BRANCH, Bench, git_in};

/// A host with `lib`, and `app` that links to it as the given sections say.
async fn bench_with(sections: impl FnOnce(&GitHost) -> String, path: &str) -> Bench {
    bench_linked(sections, path, None).await
}

/// The same, linking to a commit of another host's.
async fn bench_linked(
    sections: impl FnOnce(&GitHost) -> String,
    path: &str,
    tip: Option<String>,
) -> Bench {
    let host = GitHost::start().await.unwrap();
    host.create_repo("lib", &[("lib.txt", "library\n")])
        .await
        .unwrap();
    host.create_repo("app", &[("a", "1")]).await.unwrap();
    let own = host.tip("lib", "main").await.unwrap().unwrap();
    let tip = tip.unwrap_or(own);
    let tree = host.check_out("app", "main").await.unwrap();
    fs::write(tree.path().join(".gitmodules"), sections(&host)).unwrap();
    git_in(tree.path(), &["add", ".gitmodules"]);
    git_in(
        tree.path(),
        &[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{tip},{path}"),
        ],
    );
    git_in(tree.path(), &["commit", "-qm", "Link"]);
    git_in(tree.path(), &["push", "-q", "origin", "main"]);
    Bench::on(host)
}

#[tokio::test]
async fn a_relative_submodule_is_cloned_and_keeps_its_link() {
    let section = "[submodule \"../../evil\"]\n\tpath = deps/lib\n\turl = ../lib.git\n";
    let bench = bench_with(|_| section.to_owned(), "deps/lib").await;
    bench
        .host
        .commit("lib", "main", &[("later", "1")], "Later")
        .await
        .unwrap();
    bench.start().await;
    let inside = bench.work().join("deps/lib");
    assert_eq!(
        fs::read_to_string(inside.join("lib.txt")).unwrap(),
        "library\n"
    );
    assert!(!inside.join("later").exists());
    assert!(!bench.dir.path().join("evil").exists());
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
    fs::write(inside.join("changed"), "1").unwrap();
    bench.write("work", "1");
    bench.commit_and_push().await;
    let tree = bench.tree().await;
    assert_eq!(
        tree,
        [
            "100644 .gitmodules",
            "100644 a",
            "160000 deps/lib",
            "100644 work"
        ]
    );
    bench.assert_no_token();
    assert!(bench.host.tip("app", BRANCH).await.unwrap().is_some());
}

#[tokio::test]
async fn another_host_does_not_get_the_token() {
    let away = GitHost::start().await.unwrap();
    away.create_repo("lib", &[("lib.txt", "library\n")])
        .await
        .unwrap();
    let url = away.url("lib");
    let bench = bench_with(
        |_| format!("[submodule \"x\"]\n\tpath = lib\n\turl = {url}\n"),
        "lib",
    )
    .await;
    let cloned = bench.clone().await.unwrap();
    assert!(
        cloned.notes[0].contains("Submodule lib was left out"),
        "{:?}",
        cloned.notes
    );
    assert!(!away.log().is_empty());
    assert!(away.log().iter().all(|asked| !asked.with_credentials));
}

#[tokio::test]
async fn hostile_sections_are_left_out() {
    for (url, path) in [
        ("file:///etc", "lib"),
        ("/etc", "lib"),
        ("ext::touch /tmp/x", "lib"),
        ("-u./payload", "lib"),
        ("https://169.254.169.254/x", "lib"),
        ("ssh://git@host/x", "lib"),
        ("https://user:pw@example.com/x", "lib"),
    ] {
        let section = format!(
            "[submodule \"x\"]\n\tpath = {path}\n\turl = {url}\n[include]\n\tpath = /etc/passwd\n"
        );
        let bench = bench_with(|_| section, path).await;
        let cloned = bench.clone().await.unwrap();
        assert!(
            cloned.notes[0].contains("Submodule lib was left out"),
            "{url}: {:?}",
            cloned.notes
        );
        assert_eq!(
            fs::read_dir(bench.work().join("lib")).unwrap().count(),
            0,
            "{url}"
        );
    }
}

/// More than one clone may have.
const MANY: usize = 100;

#[tokio::test]
async fn one_note_stands_for_all_submodules_beyond_the_bound() {
    let bench = Bench::new(&[("a", "1")]).await;
    let tree = bench.host.check_out("app", "main").await.unwrap();
    let links: Vec<String> = (0..MANY)
        .map(|n| format!("160000,{},link-{n}", "1".repeat(40)))
        .collect();
    let mut words = vec!["update-index", "--add"];
    for link in &links {
        words.extend(["--cacheinfo", link]);
    }
    git_in(tree.path(), &words);
    git_in(tree.path(), &["commit", "-qm", "Links"]);
    git_in(tree.path(), &["push", "-q", "origin", "main"]);
    let notes = bench.clone().await.unwrap().notes;
    assert_eq!(notes.len(), 64 + 1);
    assert!(notes[64].starts_with("36 more submodules were left out"));
}

/// An agent's turn on `app` with submodule `deps/lib`, whose host has `lib`.
async fn started() -> Bench {
    let section = "[submodule \"lib\"]\n\tpath = deps/lib\n\turl = ../lib.git\n";
    let bench = bench_with(|_| section.to_owned(), "deps/lib").await;
    bench.start().await;
    bench
}

/// What a branch links to at `deps/lib`.
async fn link(bench: &Bench, branch: &str) -> String {
    let at = format!("{branch}:deps/lib");
    let link = bench.host.ask("app", &["rev-parse", &at]).await.unwrap();
    link.trim().to_owned()
}

fn said(events: &[serde_json::Value], words: &str) -> bool {
    let mut texts = events.iter().filter_map(|event| event["message"].as_str());
    texts.any(|text| text.contains(words))
}

/// Commits in the submodule, leaves more there, and commits the new link.
fn work_inside(bench: &Bench) {
    let inside = bench.work().join("deps/lib");
    fs::write(inside.join("own"), "1").unwrap();
    git_in(&inside, &["add", "."]);
    git_in(&inside, &["commit", "-qm", "Inside"]);
    bench.agent(&["add", "deps/lib"]);
    bench.agent(&["commit", "-qm", "Link to it"]);
    fs::write(inside.join("left"), "1").unwrap();
}

#[tokio::test]
async fn changes_inside_are_pushed_before_the_link_to_them() {
    let bench = started().await;
    work_inside(&bench);
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed, "{events:#?}");
    let tip = bench.host.tip("lib", BRANCH).await.unwrap().unwrap();
    assert_eq!(link(&bench, BRANCH).await, tip);
    let tree = bench.host.tree("lib", BRANCH).await.unwrap();
    assert_eq!(tree, ["100644 left", "100644 lib.txt", "100644 own"]);
    let history = bench.host.history("lib", BRANCH).await.unwrap();
    assert_eq!(history[1..], ["Inside", "First commit"]);
    let pushes = bench.host.log().into_iter();
    let pushes: Vec<String> = pushes
        .map(|asked| asked.what)
        .filter(|what| what.starts_with("POST") && what.ends_with("git-receive-pack"))
        .collect();
    assert_eq!(
        pushes,
        [
            "POST /lib.git/git-receive-pack",
            "POST /app.git/git-receive-pack"
        ]
    );

    // The next turn has nothing to do there, and then more.
    let (delivered, _) = deliver_from(&bench, Ok(())).await;
    assert_eq!(delivered, Default::default());
    fs::write(bench.work().join("deps/lib/more"), "1").unwrap();
    let (delivered, _) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed);
    let tip = bench.host.tip("lib", BRANCH).await.unwrap().unwrap();
    assert_eq!(link(&bench, BRANCH).await, tip);
}

#[tokio::test]
async fn a_refused_push_inside_leaves_the_link_and_is_made_up_for_later() {
    let bench = started().await;
    let before = link(&bench, "main").await;
    work_inside(&bench);
    bench.write("work", "1");
    bench.host.protect("lib", "frozen until Monday").unwrap();
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed, "{events:#?}");
    assert_eq!(
        link(&bench, BRANCH).await,
        before,
        "a commit that everybody has"
    );
    assert_eq!(bench.host.tip("lib", BRANCH).await.unwrap(), None);
    assert!(said(&events, "Submodule deps/lib stays"), "{events:#?}");
    assert!(said(&events, "frozen until Monday"), "{events:#?}");
    assert!(bench.work().join("deps/lib/left").exists());

    bench.host.unprotect("lib").unwrap();
    let (delivered, _) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed);
    let tip = bench.host.tip("lib", BRANCH).await.unwrap().unwrap();
    assert_eq!(link(&bench, BRANCH).await, tip);
}

#[tokio::test]
async fn a_submodule_on_another_host_is_not_pushed_and_gets_no_token() {
    let away = GitHost::start().await.unwrap();
    away.create_repo("lib", &[("lib.txt", "library\n")])
        .await
        .unwrap();
    away.make_public();
    let (url, tip) = (away.url("lib"), away.tip("lib", "main").await.unwrap());
    let host_section = format!("[submodule \"x\"]\n\tpath = deps/lib\n\turl = {url}\n");
    let bench = bench_linked(|_| host_section, "deps/lib", tip).await;
    bench.start().await;
    let before = link(&bench, "main").await;
    work_inside(&bench);
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed, "{events:#?}");
    assert_eq!(link(&bench, BRANCH).await, before);
    assert!(
        said(&events, "not on the host that the token was given for"),
        "{events:#?}"
    );
    let asked = away.log();
    assert!(
        asked.iter().all(|asked| !asked.with_credentials),
        "{asked:?}"
    );
    assert!(
        !asked
            .iter()
            .any(|asked| asked.what.contains("receive-pack")),
        "{asked:?}"
    );
    assert!(bench.work().join("deps/lib/left").exists());
}

#[tokio::test]
async fn an_agent_does_not_choose_where_a_submodule_is_pushed() {
    let bench = started().await;
    bench
        .host
        .create_repo("victim", &[("v", "1")])
        .await
        .unwrap();
    work_inside(&bench);
    let inside = bench.work().join("deps/lib");
    let victim = bench.host.url("victim");
    git_in(&inside, &["remote", "set-url", "origin", &victim]);
    git_in(&inside, &["remote", "set-url", "--push", "origin", &victim]);
    let section = "[submodule \"lib\"]\n\tpath = deps/lib\n\turl = ../victim.git\n";
    bench.write(".gitmodules", section);
    bench.agent(&["commit", "-qam", "Elsewhere"]);
    let tip = bench.agent(&["rev-parse", "HEAD"]);
    bench.agent(&["update-ref", "refs/heads/main", tip.trim()]);
    // The base branch goes on meanwhile, so that it must be asked for.
    let later = [("later", "1")];
    bench
        .host
        .commit("app", "main", &later, "Later")
        .await
        .unwrap();
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed, "{events:#?}");
    let tip = bench.host.tip("lib", BRANCH).await.unwrap().unwrap();
    assert_eq!(link(&bench, BRANCH).await, tip);
    let asked = bench.host.log();
    assert!(
        !asked.iter().any(|asked| asked.what.contains("victim")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_commit_that_the_remote_has_is_linked_to_without_a_push() {
    let bench = started().await;
    let later = [("later", "1")];
    bench
        .host
        .commit("lib", "main", &later, "Later")
        .await
        .unwrap();
    let tip = bench.host.tip("lib", "main").await.unwrap().unwrap();
    let inside = bench.work().join("deps/lib");
    let place = bench.host.path("lib").display().to_string();
    git_in(&inside, &["fetch", "-q", &place, "main"]);
    git_in(&inside, &["checkout", "-q", &tip]);
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed, "{events:#?}");
    assert_eq!(link(&bench, BRANCH).await, tip);
    assert_eq!(bench.host.branches("lib").await.unwrap(), ["main"]);
}

#[tokio::test]
async fn a_submodule_that_nobody_else_has_is_left_out() {
    let bench = started().await;
    bench.write("new/file", "1");
    let new = bench.work().join("new");
    git_in(&new, &["init", "-q"]);
    git_in(&new, &["add", "."]);
    git_in(&new, &["commit", "-qm", "New"]);
    bench.agent(&["add", "new"]);
    let (delivered, events) = deliver_from(&bench, Ok(())).await;
    assert!(said(&events, "new"), "{events:#?}");
    assert!(!delivered.pushed, "there is nothing else: {events:#?}");
    bench.write("work", "1");
    let (delivered, _) = deliver_from(&bench, Ok(())).await;
    assert!(delivered.pushed);
    assert!(
        !bench
            .tree()
            .await
            .iter()
            .any(|entry| entry.ends_with(" new"))
    );
}

#[tokio::test]
async fn nothing_inside_is_pushed_without_a_confirmed_lease() {
    let bench = started().await;
    work_inside(&bench);
    let lost = Failure::new(ErrorCode::WorkerLost, "the lease is lost");
    let (delivered, _) = deliver_from(&bench, Err(lost.clone())).await;
    assert_eq!(delivered.failure, Some(lost));
    assert_eq!(bench.host.tip("lib", BRANCH).await.unwrap(), None);
}
