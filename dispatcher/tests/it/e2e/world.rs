//! An installation with everything around it: a git host, a scripted model, and workers whose
//! disks are their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clawlink::config::Settings;
use clawlink::up::identity::Identity;
use clawlink::up::isolation::Isolation;
use clawlink_fixtures::git_host::GitHost;
use clawlink_fixtures::model::Model;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};

use crate::app::{POOL_TOKEN, TestApp, postgres_server, scratch};
use crate::wait::eventually;

/// Everything that a run touches.
pub(crate) struct World {
    pub(crate) app: TestApp,
    pub(crate) git: GitHost,
    pub(crate) model: Model,
}

/// One worker process with an empty disk of its own.
pub(crate) struct Worker {
    child: Child,
    /// The worker ends when this closes; waiting for a child closes a pipe that it holds.
    _lifeline: ChildStdin,
    /// Its session directories and its spool.
    pub(crate) disk: TempDir,
    /// Its program and its log.
    desk: Desk,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(&postgres_server(), change).await
    }

    /// Starts on another Postgres server.
    pub(crate) async fn start_on(postgres: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let (git, model) = tokio::join!(GitHost::start(), Model::start());
        Self {
            app: TestApp::start_on(postgres, change).await,
            git: git.expect("a git host"),
            model: model.expect("a model"),
        }
    }

    /// A worker that asks this installation's first dispatcher for work.
    pub(crate) fn worker(&self) -> Worker {
        self.worker_at(&self.app.dispatcher.url)
    }

    /// A worker that asks the dispatchers at these addresses, separated by commas.
    pub(crate) fn worker_at(&self, urls: &str) -> Worker {
        self.worker_on(urls, furnished(scratch()))
    }

    /// A worker that waits so many seconds for limits of the model.
    pub(crate) fn patient_worker(&self, seconds: u32) -> Worker {
        let patience = ("CLAWLINK_RATE_LIMIT_WAIT_SECONDS", seconds.to_string());
        let url = &self.app.dispatcher.url;
        self.worker_with(url, furnished(scratch()), &[patience])
    }

    /// A worker on the disk of one that has ended.
    pub(crate) fn worker_on(&self, urls: &str, disk: TempDir) -> Worker {
        self.worker_with(urls, disk, &[])
    }

    fn worker_with(&self, urls: &str, disk: TempDir, more: &[(&str, String)]) -> Worker {
        let desk = Desk(scratch());
        let log = std::fs::File::create(desk.log()).expect("create worker's log");
        let user = Identity::worker();
        let mut command =
            Command::from(Isolation::probe().command(&user, &worker_program(desk.0.path())));
        let mut child = command
            .args([
                "--allow-private-hosts",
                "--drain-timeout",
                "1",
                "--lifeline",
            ])
            .env("HOME", disk.path().join("spool"))
            .env("CLAWLINK_DISPATCHER_URL", urls)
            .env("CLAWLINK_POOL_TOKEN", POOL_TOKEN)
            .env("CLAWLINK_WORKSPACE_DIR", disk.path().join("workspace"))
            .env("CLAWLINK_SPOOL_DIR", disk.path().join("spool"))
            .env("CLAWLINK_AGENT_DIR", agent_dir())
            .env("ANTHROPIC_BASE_URL", self.model.base_url())
            .env("OPENAI_BASE_URL", self.model.base_url())
            .env("CLAWLINK_LOG", "debug")
            .envs(more.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("start worker");
        let _lifeline = child.stdin.take().expect("a piped standard input");
        Worker {
            child,
            _lifeline,
            disk,
            desk,
        }
    }

    /// Submits a request; returns the answer to `Accept: application/json`.
    pub(crate) async fn submit(&self, body: Value) -> Submitted {
        let answer = self
            .app
            .post("/execute")
            .header("accept", "application/json")
            .json(&body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let answer: Value = answer.json().await.expect("a JSON answer");
        assert_eq!(status, 202, "{answer}");
        Submitted {
            execution: answer["executionId"].as_i64().expect("an execution id"),
            session: answer["sessionId"]
                .as_str()
                .expect("a session id")
                .to_owned(),
        }
    }

    /// All events of an execution, once it has ended.
    pub(crate) async fn events(&self, execution: i64) -> Vec<Value> {
        let path = format!("/executions/{execution}/events");
        let answer = self.app.get(&path).send().await.expect("a stream");
        let text = answer.text().await.expect("a stream that ends");
        text.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|line| serde_json::from_str(line).expect("events are JSON"))
            .collect()
    }

    /// Submits, lets one worker run it, and returns its events.
    pub(crate) async fn run(&self, body: Value) -> (Submitted, Vec<Value>) {
        let worker = self.worker();
        let submitted = self.submit(body).await;
        let events = self.events(submitted.execution).await;
        assert_eq!(worker.exit_code().await, Some(0), "the worker's exit code");
        (submitted, events)
    }

    /// A request on a repository of the git host.
    pub(crate) fn on_repository(&self, name: &str, agent: &str, prompt: &str) -> Value {
        json!({
            "codingAssistantProvider": agent,
            "codingAssistantAuthentication": "sk-ant-api-test-credential",
            "userRequest": prompt,
            "github": {"repoUrl": self.git.url(name), "accessToken": self.git.token()},
        })
    }

    /// Waits until an execution is in this state.
    pub(crate) async fn state(&self, execution: i64, wanted: &str) {
        eventually(&format!("execution {execution} is {wanted}"), async || {
            (self.execution(execution).await["status"] == wanted).then_some(())
        })
        .await;
    }

    /// `GET /executions/{id}`.
    pub(crate) async fn execution(&self, execution: i64) -> Value {
        let path = format!("/executions/{execution}");
        let answer = self.app.get(&path).send().await.expect("an answer");
        answer.json().await.expect("a JSON answer")
    }
}

/// The two ids that a client keeps.
#[derive(Debug, Clone)]
pub(crate) struct Submitted {
    pub(crate) execution: i64,
    pub(crate) session: String,
}

impl Worker {
    /// Waits for its end; `None` when a signal ended it.
    pub(crate) async fn exit_code(mut self) -> Option<i32> {
        self.ended().await
    }

    /// The same, for those who want to look at what it left.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        self.child.wait().await.expect("wait for worker").code()
    }

    /// What it wrote to its log.
    pub(crate) fn log(&self) -> String {
        self.desk.text()
    }

    /// Ends it as a crash does: no warning, no chance to say anything. Answers its disk.
    pub(crate) async fn kill(mut self) -> TempDir {
        self.child.kill().await.expect("kill worker");
        self.disk
    }

    /// Sends a signal to the worker alone.
    pub(crate) fn signal(&self, signal: Signal) {
        let own = self.child.id().expect("it runs").cast_signed();
        // In a namespace of its own it is the child of the program that made the namespace.
        let worker = below(own).first().copied().unwrap_or(own);
        send(worker, signal);
    }

    /// Stops it and everything that it started, as a machine does that is frozen.
    pub(crate) fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        for pid in below(self.child.id().expect("it runs").cast_signed()) {
            send(pid, signal);
        }
    }
}

/// Where a worker's program and its log are.
struct Desk(TempDir);

impl Desk {
    fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn text(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.text());
        }
    }
}

/// A disk with the folders of a worker, empty and its own.
pub(crate) fn furnished(disk: TempDir) -> TempDir {
    let user = Identity::worker();
    for name in ["workspace", "spool"] {
        let folder = disk.path().join(name);
        std::fs::create_dir(&folder).expect("create worker's folder");
        std::os::unix::fs::chown(&folder, Some(user.uid), Some(user.gid))
            .expect("give the folder to the worker");
    }
    disk
}

/// The types of events, in order, without repetitions side by side.
pub(crate) fn outline(events: &[Value]) -> Vec<&str> {
    let mut types: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    types.dedup();
    types
}

/// The first event of a type.
pub(crate) fn event<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    events
        .iter()
        .find(|event| event["type"] == kind)
        .unwrap_or_else(|| panic!("no {kind} event in {events:#?}"))
}

/// What the agent printed, piece by piece.
pub(crate) fn said(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event["type"] == "agent_text")
        .filter_map(|event| event["text"].as_str())
        .map(str::trim_end)
        .collect()
}

/// The processes below one, parents before their children.
fn below(pid: i32) -> Vec<i32> {
    // A child belongs to the thread that made it.
    let children = |parent: i32| -> Vec<i32> {
        let threads = std::fs::read_dir(format!("/proc/{parent}/task"));
        let lists = threads.into_iter().flatten().flatten().map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children"));
            children.unwrap_or_default()
        });
        let text = lists.collect::<Vec<_>>().join(" ");
        text.split_whitespace().flat_map(str::parse).collect()
    };
    let mut found = children(pid);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(children(parent));
        next += 1;
    }
    found
}

fn send(pid: i32, signal: Signal) {
    let pid = Pid::from_raw(pid).expect("a process id");
    kill_process(pid, signal).expect("send a signal");
}

/// The worker program, where the worker's user can run it.
fn worker_program(desk: &Path) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_clawlink")).with_file_name("clawlink-worker");
    assert!(
        built.exists(),
        "build the worker first: cargo build --workspace --bins"
    );
    let program = desk.join("clawlink-worker");
    std::fs::hard_link(&built, &program)
        .or_else(|_| std::fs::copy(&built, &program).map(|_| ()))
        .expect("put the worker program where its user can run it");
    program
}

/// Where the pinned agents are installed.
fn agent_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agents");
    let folder = clawlink_shared::settings::process_environment("CLAWLINK_TEST_AGENTS")
        .map_or(default, PathBuf::from);
    let modules = folder.join("node_modules");
    assert!(
        modules.join("@anthropic-ai").is_dir() && modules.join("@openai").is_dir(),
        "run `npm ci --ignore-scripts` in deploy/agents, as ./deploy/test does"
    );
    folder.canonicalize().expect("an absolute path")
}
