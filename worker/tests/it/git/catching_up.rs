//! Going on from what a lost turn pushed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use clawlink_shared::control::Failure;
use clawlink_shared::id::SessionId;
use clawlink_shared::secret::Secret;
use clawlink_worker::redact::Redactor;
use clawlink_worker::workspace::git::{self, CatchUpRequest};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{BRANCH, Bench, GIB, blocking};

const OWN: &str = "Work\n\nClawlink-Session: 00000000-0000-0000-0000-000000000000\n";

impl Bench {
    async fn catch_up(&self) -> Result<usize, Failure> {
        let (access, work) = (self.access.clone(), self.work());
        let tmp = self.dir.path().join("scratch");
        let redactor = Redactor::new([&Secret::new(self.host.token())]);
        blocking(move || {
            let request = CatchUpRequest {
                work: &work,
                tmp: &tmp,
                branch: BRANCH,
                session: SessionId(Uuid::nil()),
                redactor: &redactor,
                max_bytes: GIB,
                max_files: 1000,
            };
            git::catch_up(&access, request, &CancellationToken::new())
        })
        .await
    }

    /// After a first turn, whose archive is kept.
    async fn after_a_turn(files: &[(&str, &str)]) -> Self {
        let bench = Self::new(files).await;
        let more = [("second", "1")];
        let second = bench.host.commit("app", "main", &more, "Second");
        second.await.unwrap();
        bench.start().await;
        bench.write("one", "1");
        bench.commit(OWN).await.unwrap();
        bench.push().await.unwrap();
        copy(&bench.work(), &bench.dir.path().join("archive"));
        bench
    }

    /// What the next worker finds.
    fn restore(&self) {
        fs::remove_dir_all(self.work()).unwrap();
        copy(&self.dir.path().join("archive"), &self.work());
    }

    /// Catches up in vain.
    async fn stays(&self) -> Result<usize, Failure> {
        let facts = || {
            let state = ["rev-parse HEAD BRANCH", "status --porcelain --ignored"];
            state.map(|ask| {
                let ask = ask.replace("BRANCH", BRANCH);
                self.agent(&ask.split(' ').collect::<Vec<_>>())
            })
        };
        let before = facts();
        let caught_up = self.catch_up().await;
        assert_eq!(facts(), before);
        assert_ne!(caught_up, Ok(1));
        caught_up
    }
}

fn copy(from: &Path, to: &Path) {
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").args([from, to]).status().unwrap().success());
}

#[tokio::test]
async fn the_sessions_own_commits_are_taken() {
    let files = [
        ("a", "1"),
        ("gone/deep/b", "2"),
        ("tool", "#!"),
        (".gitignore", "*.log\n"),
    ];
    let bench = Bench::after_a_turn(&files).await;
    assert_eq!(bench.catch_up().await, Ok(0));
    bench.write("a", "changed");
    bench.write("new/dir/file", "3");
    fs::remove_dir_all(bench.work().join("gone")).unwrap();
    symlink("new/dir", bench.work().join("link")).unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bench.work().join("tool"), executable).unwrap();
    bench.commit(OWN).await.unwrap();
    bench.write("more", "4");
    bench.commit(OWN).await.unwrap();
    let tip = bench.push().await.unwrap().tip;

    bench.restore();
    bench.write("kept.log", "ignored");
    assert_eq!(bench.catch_up().await, Ok(2));
    assert_eq!(bench.agent(&["rev-parse", "HEAD"]).trim(), tip);
    assert_eq!(bench.agent(&["branch", "--show-current"]).trim(), BRANCH);
    assert_eq!(bench.agent(&["status", "--porcelain"]), "");
    bench.agent(&["fsck"]);
    let read = |path: &str| fs::read_to_string(bench.work().join(path)).unwrap();
    assert_eq!(read("a"), "changed");
    assert_eq!(read("link/file"), "3");
    assert_eq!(read("kept.log"), "ignored");
    let tool = bench.work().join("tool").metadata().unwrap();
    assert_ne!(tool.permissions().mode() & 0o100, 0);
    assert!(!bench.work().join("gone").exists());
    let next = bench.commit(OWN).await.unwrap();
    assert_eq!((next.committed, next.unpushed), (false, false));
    bench.write("next", "5");
    bench.commit_and_push().await;
    bench.host.ask("app", &["fsck", "--strict"]).await.unwrap();
    assert_eq!(bench.file("next").await, "5");
    bench.assert_no_token();
}

#[tokio::test]
async fn commits_of_others_are_not_taken() {
    let bench = Bench::after_a_turn(&[("a", "1")]).await;
    for message in ["By somebody else", OWN] {
        let theirs = [("theirs", message)];
        bench
            .host
            .commit("app", BRANCH, &theirs, message)
            .await
            .unwrap();
        assert_eq!(bench.stays().await, Ok(0), "{message}");
    }
}

#[tokio::test]
async fn a_branch_that_was_begun_anew_is_not_taken() {
    let bench = Bench::after_a_turn(&[("a", "1")]).await;
    let main = bench.host.tip("app", "main").await.unwrap().unwrap();
    let reference = format!("refs/heads/{BRANCH}");
    let back = ["update-ref", &reference, &main];
    bench.host.ask("app", &back).await.unwrap();
    let other = [("other", "1")];
    bench.host.commit("app", BRANCH, &other, OWN).await.unwrap();
    assert_eq!(bench.stays().await, Ok(0));
}

#[tokio::test]
async fn uncommitted_work_is_not_overwritten() {
    let bench = Bench::after_a_turn(&[("a", "1")]).await;
    let lost = [("a", "2")];
    bench.host.commit("app", BRANCH, &lost, OWN).await.unwrap();
    bench.write("b", "mine");
    assert_eq!(bench.stays().await, Ok(0));
    fs::remove_file(bench.work().join("b")).unwrap();
    assert_eq!(bench.catch_up().await, Ok(1));
}

#[tokio::test]
async fn nothing_is_written_through_a_link_or_over_an_ignored_file() {
    let bench = Bench::after_a_turn(&[(".gitignore", "out\n")]).await;
    let lost = [("out/x", "1"), ("fine", "1")];
    bench.host.commit("app", BRANCH, &lost, OWN).await.unwrap();
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, bench.work().join("out")).unwrap();
    bench.stays().await.unwrap_err();
    assert_eq!(outside.read_dir().unwrap().count(), 0);
    fs::remove_file(bench.work().join("out")).unwrap();
    bench.write("out/x", "mine");
    bench.stays().await.unwrap_err();
    assert!(!bench.work().join("fine").exists());
}

#[tokio::test]
async fn a_host_that_refuses_changes_nothing() {
    let bench = Bench::after_a_turn(&[("a", "1")]).await;
    let lost = [("a", "2")];
    bench.host.commit("app", BRANCH, &lost, OWN).await.unwrap();
    let old = bench.host.token();
    bench.host.expire_token();
    let failure = bench.stays().await.unwrap_err();
    assert!(!failure.message.contains(&old), "{}", failure.message);
}

#[tokio::test]
async fn a_tree_with_a_folder_below_its_own_link_is_not_written() {
    let bench = Bench::after_a_turn(&[("a", "1")]).await;
    let outside = bench.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let path = bench.dir.path().join("object");
    let hash = async |kind: &str, content: &[u8]| -> String {
        fs::write(&path, content).unwrap();
        let file = path.to_str().unwrap();
        let ask = ["hash-object", "-w", "--literally", "-t", kind, file];
        bench.host.ask("app", &ask).await.unwrap().trim().to_owned()
    };
    let entry = |mode: &str, name: &str, id: &str| -> Vec<u8> {
        let id = git2::Oid::from_str(id).unwrap();
        [format!("{mode} {name}\0").as_bytes(), id.as_bytes()].concat()
    };
    let link = hash("blob", outside.to_str().unwrap().as_bytes()).await;
    let file = hash("blob", b"evil").await;
    let folder = hash("tree", &entry("100644", "x", &file)).await;
    let entries = [entry("120000", "d", &link), entry("40000", "d", &folder)];
    let tree = hash("tree", &entries.concat()).await;
    let commit = ["commit-tree", &tree, "-p", BRANCH, "-m", OWN];
    let commit = bench.host.ask("app", &commit).await.unwrap();
    let reference = format!("refs/heads/{BRANCH}");
    let ahead = ["update-ref", &reference, commit.trim()];
    bench.host.ask("app", &ahead).await.unwrap();
    let failure = bench.stays().await.unwrap_err();
    assert!(failure.message.contains("tree"), "{}", failure.message);
    assert_eq!(outside.read_dir().unwrap().count(), 0);
}
