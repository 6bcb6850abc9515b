//! Submodules of a clone.

use std::fs;

use clawlink_fixtures::git_host::GitHost;

use super::{BRANCH, Bench, git_in};

/// A host with `lib`, and `app` that links to it as the given sections say.
async fn bench_with(sections: impl FnOnce(&GitHost) -> String, path: &str) -> Bench {
    let host = GitHost::start().await.unwrap();
    host.create_repo("lib", &[("lib.txt", "library\n")])
        .await
        .unwrap();
    host.create_repo("app", &[("a", "1")]).await.unwrap();
    let tip = host.tip("lib", "main").await.unwrap().unwrap();
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
