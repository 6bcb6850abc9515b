//! Secrets that an agent gave to git: in no object that travels, whatever it did with them, and
//! the repository goes on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clawlink_shared::secret::Secret;
use clawlink_worker::redact::Redactor;
use clawlink_worker::workspace::git::{self, Before, CleanRequest};

use super::{BRANCH, Bench, git_in};

impl Bench {
    fn clean(&self, before: &Before) -> Vec<String> {
        let tmp = self.dir.path().join("scratch");
        let secrets = Redactor::new([&Secret::new(self.host.token())]);
        git::clean(&CleanRequest {
            work: &self.work(),
            tmp: &tmp,
            before,
            secrets: &secrets,
        })
        .unwrap()
    }

    /// Runs a script that knows the token as `$T`, as an agent does.
    fn script(&self, script: &str) {
        let output = Command::new("bash")
            .args(["-euc", script])
            .current_dir(self.work())
            .env("T", self.host.token())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Agent")))
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@example.com")))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
    }

    /// No object of a repository, reachable or not, holds the token.
    fn assert_clean(&self, git_dir: &Path) {
        let token = self.host.token();
        let encoded = STANDARD.encode(&token);
        let objects = every_object(git_dir);
        for needle in [token.as_bytes(), &encoded.as_bytes()[4..encoded.len() - 4]] {
            let found = objects.windows(needle.len()).any(|part| part == needle);
            assert!(!found, "an object of {} holds the token", git_dir.display());
        }
    }
}

/// All objects that are stored, inflated, whether something leads to them or not.
fn every_object(git_dir: &Path) -> Vec<u8> {
    let output = Command::new("git")
        .args(["cat-file", "--batch-all-objects", "--batch"])
        .env("GIT_DIR", git_dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Paths and sizes of all files below a folder.
fn listing(folder: &Path) -> Vec<(PathBuf, u64)> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.push((path.clone(), path.metadata().unwrap().len()));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn whatever_git_stored_of_a_secret_goes_and_the_session_goes_on() {
    let fine = "echo 1 > fine; git add fine; git commit -qm fine";
    for (script, named, fine_commits) in [
        (
            "echo $T > leak; git add leak; git commit -qm leak",
            "\"leak\"",
            1,
        ),
        (
            "mkdir d; echo $T | base64 -w0 > d/leak; git add d; git commit -qm leak",
            "\"d/leak\"",
            1,
        ),
        (
            "git commit -q --allow-empty -m \"see $T\"",
            "the message of commit",
            1,
        ),
        (
            "echo 1 > \"$T\"; git add .; git commit -qm name",
            "the name of a file",
            1,
        ),
        // Packed, together with what was cloned and with what is fine.
        (
            "echo $T > leak; git add leak; git commit -qm leak; echo 2 > two; git add two; git commit -qm two; git gc -q --prune=now",
            "\"leak\"",
            1,
        ),
        (
            "echo $T > leak; git add leak; git commit -qm leak; git repack -adq --write-midx; git commit-graph write",
            "\"leak\"",
            1,
        ),
        // Not in the branch's history any more.
        (
            "echo $T > leak; git add leak; git commit -qm leak; git rm -q leak; git commit -q --amend --allow-empty -m later",
            "\"leak\"",
            2,
        ),
        ("echo $T > fine; git stash -q", "\"fine\"", 1),
        (
            "echo $T > leak; git add leak; git rm -q --cached leak",
            "object ",
            1,
        ),
        ("echo $T > leak; git add leak", "\"leak\"", 1),
        ("git tag -am \"see $T\" release", "the message of a tag", 1),
        (
            "git checkout -qb other; echo $T > leak; git add leak; git commit -qm leak; git checkout -q -",
            "\"leak\"",
            1,
        ),
        (
            "git checkout -qb other HEAD~1; echo $T > leak; git add leak; git commit -qm leak; git checkout -q -; git merge -q --no-edit other",
            "\"leak\"",
            1,
        ),
        // Far into an object that is not read as a whole.
        (
            "(head -c 20000000 /dev/urandom; echo $T; head -c 5000000 /dev/urandom) > leak; git add leak; git commit -qm leak",
            "\"leak\"",
            1,
        ),
    ] {
        let bench = Bench::started(&[("a", "1"), ("b", "2")]).await;
        let before = git::remember(&bench.work());
        bench.script(fine);
        bench.script(script);
        let notes = bench.clean(&before);
        assert!(notes[0].contains(named), "{script}: {notes:?}");
        let git_dir = bench.work().join(".git");
        bench.assert_clean(&git_dir);
        bench.agent(&["fsck", "--full", "--strict"]);
        let ours = bench.agent(&["rev-list", "--count", "HEAD", "^refs/remotes/origin/main"]);
        assert_eq!(ours.trim(), fine_commits.to_string(), "{script}: {notes:?}");
        assert_eq!(
            bench.agent(&["symbolic-ref", "HEAD"]).trim(),
            format!("refs/heads/{BRANCH}")
        );
        assert_eq!(fs::read_to_string(bench.work().join("a")).unwrap(), "1");

        // Nothing is left to be done a second time; the next turn goes on.
        assert_eq!(bench.clean(&before), [""; 0], "{script}");
        bench.script("rm -f leak d/leak \"$T\"; echo on > on");
        bench.commit_and_push().await;
        let tree = bench.tree().await;
        for file in ["a", "fine", "on"] {
            assert!(
                tree.contains(&format!("100644 {file}")),
                "{script}: {tree:?}"
            );
        }
    }
}

#[tokio::test]
async fn nothing_changes_without_a_secret_and_what_was_there_is_not_read() {
    let bench = Bench::new(&[("a", "1")]).await;
    let token = bench.host.token();
    bench
        .host
        .create_repo("known", &[("cloned", &token)])
        .await
        .unwrap();
    let mut bench = bench;
    bench.repository.url = bench.host.url("known");
    bench.access = super::access(&bench.repository.url, Some(&token));
    bench.start().await;
    let before = git::remember(&bench.work());
    bench.script("echo 1 > fine; git add fine; git commit -qm fine; git gc -q");
    let git_dir = bench.work().join(".git");
    let kept = listing(&git_dir);
    assert_eq!(bench.clean(&before), [""; 0]);
    assert_eq!(listing(&git_dir), kept);
    // The same, where nothing is remembered: then it is found.
    let notes = bench.clean(&Before::default());
    assert!(notes[0].contains("\"cloned\""), "{notes:?}");
    bench.assert_clean(&git_dir);
}

#[tokio::test]
async fn repositories_inside_the_tree_are_looked_through_too() {
    let bench = Bench::started(&[("a", "1")]).await;
    let before = git::remember(&bench.work());
    bench.script(
        "git init -q d/nested; cd d/nested; echo fine > fine; git add .; git commit -qm fine
         echo $T > leak; git add .; git commit -qm leak; cd ../..
         git clone -q --bare d/nested mirror; git clone -q --shared d/nested borrowing
         git init -q --separate-git-dir=d/elsewhere outside; cd outside; echo $T > leak; git add leak",
    );
    let notes = bench.clean(&before);
    assert!(notes.len() >= 4, "{notes:?}");
    for git_dir in ["d/nested/.git", "mirror", "d/elsewhere"] {
        bench.assert_clean(&bench.work().join(git_dir));
    }
    let count = git_in(
        &bench.work().join("d/nested"),
        &["rev-list", "--count", "HEAD"],
    );
    assert_eq!(count.trim(), "1");
    let count = git_in(
        &bench.work().join("mirror"),
        &["rev-list", "--count", "--all"],
    );
    assert_eq!(count.trim(), "1");
    assert!(
        bench.work().join("d/nested/leak").exists(),
        "the archive leaves it out"
    );
}

#[tokio::test]
async fn what_cannot_be_looked_through_does_not_travel() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "not ours").unwrap();
    for (what, why) in [
        ("a link", "not a plain file"),
        ("a pipe", "not a plain file"),
        ("a name", "not known"),
        ("an index", "do not belong together"),
        ("no head", "HEAD says nothing"),
    ] {
        let bench = Bench::started(&[("a", "1")]).await;
        let before = git::remember(&bench.work());
        bench.script("echo $T > leak; git add leak; git commit -qm leak");
        let objects = bench.work().join(".git/objects");
        match what {
            "a link" => symlink(outside.path(), objects.join("pack/pack-x.pack")).unwrap(),
            "a pipe" => bench.script("mkfifo .git/objects/pack/pack-x.idx"),
            "a name" => fs::create_dir(objects.join("blob")).unwrap(),
            "an index" => bench.script(
                "git repack -adq; cd .git/objects/pack; chmod u+w *.pack
                 printf '\\0\\0\\0\\1' | dd of=$(echo *.pack) bs=1 seek=8 conv=notrunc status=none",
            ),
            _ => fs::write(bench.work().join(".git/HEAD"), "").unwrap(),
        }
        let notes = bench.clean(&before);
        assert!(
            notes[0].contains(".git") && notes[0].contains(why),
            "{what}: {notes:?}"
        );
        assert!(!bench.work().join(".git").exists(), "{what}");
        assert!(bench.work().join("a").exists());
    }
    assert!(outside.path().join("file").exists());
}

#[tokio::test]
async fn a_file_that_a_killed_git_left_goes_and_borrowed_objects_are_not_read() {
    let bench = Bench::started(&[("a", "1")]).await;
    let before = git::remember(&bench.work());
    bench.script(
        "echo $T > leak; git hash-object -w leak
         mkdir -p .git/objects/aa; cp leak .git/objects/aa/tmp_obj_1; cp leak .git/objects/pack/tmp_pack_1
         mkdir -p borrowed/pack; cp leak borrowed/pack/pack-x.pack; mkfifo borrowed/pack/pack-x.idx",
    );
    // Who reads it waits for ever.
    let alternates = bench.work().join(".git/objects/info/alternates");
    let borrowed = format!("{}/borrowed\n", bench.work().display());
    fs::write(&alternates, borrowed).unwrap();
    let notes = bench.clean(&before);
    assert_eq!(notes.len(), 1, "{notes:?}");
    fs::remove_file(alternates).unwrap();
    bench.assert_clean(&bench.work().join(".git"));
    for left in ["aa/tmp_obj_1", "pack/tmp_pack_1"] {
        assert!(
            !bench.work().join(".git/objects").join(left).exists(),
            "{left}"
        );
    }
}
