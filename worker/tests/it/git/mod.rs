//! Git over real smart HTTP, with the real `git` program as the host and as the agent.

mod catching_up;
mod cleaning;
mod cloning;
mod delivery;
mod hostile;
mod lfs;
mod pushing;
mod submodules;

use std::path::{Path, PathBuf};

use clawlink_fixtures::git_host::GitHost;
use clawlink_shared::control::{CommitAuthor, Failure};
use clawlink_shared::execution::Repository;
use clawlink_shared::secret::Secret;
use clawlink_worker::proxy::Proxies;
use clawlink_worker::redact::Redactor;
use clawlink_worker::workspace::git::{
    self, CloneRequest, Cloned, CommitOutcome, CommitRequest, GitAccess, PushRequest, Pushed,
    Submodules,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const BRANCH: &str = "clawlink/test-12345678";
const GIB: u64 = 1 << 30;

/// One session beside a git host.
struct Bench {
    host: GitHost,
    dir: TempDir,
    access: GitAccess,
    repository: Repository,
}

impl Bench {
    /// A host with repository `app`.
    async fn new(files: &[(&str, &str)]) -> Self {
        let host = GitHost::start().await.unwrap();
        host.create_repo("app", files).await.unwrap();
        Self::on(host)
    }

    fn on(host: GitHost) -> Self {
        let url = host.url("app");
        let access = access(&url, Some(&host.token()));
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("scratch")).unwrap();
        let repository = Repository {
            url,
            branch: None,
            directory: None,
            depth: 1,
        };
        Self {
            host,
            dir,
            access,
            repository,
        }
    }

    /// With the working branch current, as an agent finds it.
    async fn started(files: &[(&str, &str)]) -> Self {
        let bench = Self::new(files).await;
        bench.start().await;
        bench
    }

    async fn start(&self) {
        self.clone().await.unwrap();
        git::start_branch(&self.work(), BRANCH).unwrap();
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("session/work")
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn clone(&self) -> Result<Cloned, Failure> {
        self.clone_at_most(GIB, 10_000).await
    }

    async fn clone_at_most(&self, max_bytes: u64, max_files: u64) -> Result<Cloned, Failure> {
        let (access, repository, into) =
            (self.access.clone(), self.repository.clone(), self.work());
        blocking(move || {
            let request = CloneRequest {
                repository: &repository,
                working_branch: Some(BRANCH),
                into: &into,
                max_bytes,
                max_files,
            };
            git::clone(&access, request, &CancellationToken::new(), &mut |_| {})
        })
        .await
    }

    async fn commit(&self, message: &'static str) -> Result<CommitOutcome, Failure> {
        let (access, work) = (self.access.clone(), self.work());
        let tmp = self.dir.path().join("scratch");
        let redactor = Redactor::new([&Secret::new(self.host.token())]);
        blocking(move || {
            let commit = CommitRequest {
                work: &work,
                tmp: &tmp,
                branch: BRANCH,
                message,
                author: &author(),
                redactor: &redactor,
                submodules: &Submodules::default(),
            };
            git::commit_all(&access, commit, &CancellationToken::new(), || {})
        })
        .await
    }

    async fn push(&self) -> Result<Pushed, Failure> {
        let (access, work) = (self.access.clone(), self.work());
        let tmp = self.dir.path().join("scratch");
        let redactor = Redactor::new([&Secret::new(self.host.token())]);
        blocking(move || {
            let push = PushRequest {
                work: &work,
                tmp: &tmp,
                branch: BRANCH,
                redactor: &redactor,
            };
            git::push(&access, push, &CancellationToken::new())
        })
        .await
    }

    async fn commit_and_push(&self) -> Pushed {
        let outcome = self.commit("Work").await.unwrap();
        assert!(outcome.unpushed, "{outcome:?}");
        self.push().await.unwrap()
    }

    /// What an agent does in the working tree.
    fn agent(&self, arguments: &[&str]) -> String {
        git_in(&self.work(), arguments)
    }

    async fn tree(&self) -> Vec<String> {
        self.host.tree("app", BRANCH).await.unwrap()
    }

    async fn file(&self, path: &str) -> String {
        self.host.file("app", BRANCH, path).await.unwrap()
    }

    /// Nothing below `.git` holds the token, in clear or as it is sent.
    fn assert_no_token(&self) {
        use base64::Engine as _;
        let token = self.host.token();
        let sent =
            base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        let mut waiting = vec![self.work().join(".git")];
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let content = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            assert!(
                !content.contains(&token) && !content.contains(&sent),
                "{path:?}"
            );
        }
    }
}

fn access(url: &str, token: Option<&str>) -> GitAccess {
    GitAccess::new(url, token.map(Secret::new), true, &Proxies::default()).unwrap()
}

fn author() -> CommitAuthor {
    CommitAuthor {
        name: "Clawlink".to_owned(),
        email: "clawlink@example.com".to_owned(),
    }
}

fn git_in(folder: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .args([
            "-c",
            "user.name=Agent",
            "-c",
            "user.email=agent@example.com",
        ])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}
