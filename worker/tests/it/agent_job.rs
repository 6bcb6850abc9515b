//! A session root and an agent's job in it, for tests that run agents.
//!
//! Tests may run as root: then the session belongs to [`AGENT_UID`], whom the sandbox becomes.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clawlink_shared::agent::{AgentKind, Definition};
use clawlink_shared::event::EventType;
use clawlink_shared::execution::AgentOptions;
use clawlink_shared::prompt::PromptPart;
use clawlink_shared::secret::Secret;
use clawlink_worker::agents::desk::{Answer, Desk};
use clawlink_worker::agents::{AgentEnd, AgentEnvironment, AgentJob, StopReason, discover};
use clawlink_worker::events::{Draft, EventSink};
use clawlink_worker::redact::Redactor;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use uuid::Uuid;

pub(crate) use crate::wait::{PATIENCE, eventually};

/// Longest that a test waits for what an agent does: real programs take their time to start.
const AGENTS_PATIENCE: Duration = Duration::from_secs(120);

/// Whom agents run as when tests run as root.
pub(crate) const AGENT_UID: u32 = 23_456;

/// The worker's program.
pub(crate) fn worker_exe() -> PathBuf {
    env!("CARGO_BIN_EXE_clawlink-worker").into()
}

/// The directory whose `node_modules` holds the pinned agents; fails the test without it.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no settings of its own"
)]
pub(crate) fn agent_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agents");
    let directory = std::env::var_os("CLAWLINK_TEST_AGENTS").map_or(default, PathBuf::from);
    let modules = directory.join("node_modules");
    assert!(
        modules.join("@anthropic-ai").is_dir() && modules.join("@openai").is_dir(),
        "the pinned agents are not installed in {}: run `npm ci --ignore-scripts` in deploy/agents, \
         or name a directory that has them in CLAWLINK_TEST_AGENTS",
        directory.display()
    );
    directory.canonicalize().unwrap()
}

/// A session root on disk, removed when dropped.
pub(crate) struct Session {
    base: TempDir,
    pub(crate) root: PathBuf,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self::named("session-test")
    }

    pub(crate) fn named(name: &str) -> Self {
        let base = TempDir::new().unwrap();
        let permissions = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(base.path(), permissions).unwrap();
        let root = base.path().join(name);
        for directory in ["", "home", "tmp", "work"] {
            make_agents(&root.join(directory));
        }
        Self { base, root }
    }

    /// Beside the session: out of the agent's reach.
    pub(crate) fn outside(&self) -> &Path {
        self.base.path()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Makes a path the agent's own.
    pub(crate) fn give(&self, path: &Path) {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(AGENT_UID), Some(AGENT_UID)).unwrap();
        }
    }

    /// A job with this text as its prompt.
    pub(crate) fn run(&self, prompt: &str) -> Run {
        Run {
            root: self.root.clone(),
            environment: AgentEnvironment {
                search_path: vec!["/usr/bin".into(), "/bin".into()],
                worker_exe: worker_exe(),
                ..AgentEnvironment::default()
            },
            prompt: vec![PromptPart::Text {
                text: prompt.into(),
            }],
            options: AgentOptions::default(),
            definition: None,
            env: BTreeMap::new(),
            redactor: Redactor::new([]),
            credential: None,
            resume: None,
            has_people: false,
        }
    }
}

fn make_agents(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    if rustix::process::geteuid().is_root() {
        chown(directory, Some(AGENT_UID), Some(AGENT_UID)).unwrap();
    }
}

/// A job that can still be changed.
pub(crate) struct Run {
    root: PathBuf,
    pub(crate) environment: AgentEnvironment,
    pub(crate) prompt: Vec<PromptPart>,
    pub(crate) options: AgentOptions,
    pub(crate) definition: Option<Definition>,
    pub(crate) env: BTreeMap<String, Secret>,
    pub(crate) redactor: Redactor,
    pub(crate) credential: Option<Secret>,
    pub(crate) resume: Option<String>,
    /// Somebody may answer and speak to it: [`Running::question`], [`Running::say`].
    pub(crate) has_people: bool,
}

/// A started job.
pub(crate) struct Running {
    desk: Desk,
    drafts: tokio::sync::mpsc::Receiver<Draft>,
    stop: watch::Sender<Option<StopReason>>,
    end: tokio::task::JoinHandle<AgentEnd>,
    seen: Vec<Told>,
}

/// An event as a client would see its fields.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) kind: EventType,
    pub(crate) fields: Value,
}

/// A job that is over.
pub(crate) struct Ended {
    pub(crate) end: AgentEnd,
    pub(crate) events: Vec<Told>,
}

impl Run {
    pub(crate) async fn start(self, kind: AgentKind) -> Running {
        let agent = discover(self.environment).await.get(kind);
        let agent = agent.expect("the agent is installed");
        let (events, drafts) = EventSink::channel();
        let (stop, stopped) = watch::channel(None);
        let desk = match self.has_people {
            true => Desk::new(events.clone(), self.redactor.clone()),
            false => Desk::default(),
        };
        let job = AgentJob {
            prompt: self.prompt,
            options: self.options,
            definition: self.definition,
            env: self.env,
            credential: self.credential,
            home: self.root.join("home"),
            tmp: self.root.join("tmp"),
            cwd: self.root.join("work"),
            session_root: self.root,
            resume: self.resume,
            max_file_bytes: None,
            desk: desk.clone(),
            events,
            redactor: self.redactor,
            renewed: watch::Sender::new(None),
            stop: stopped,
        };
        Running {
            desk,
            drafts,
            stop,
            end: tokio::spawn(async move { agent.run(job).await }),
            seen: Vec::new(),
        }
    }

    /// Starts it and waits for its end.
    pub(crate) async fn finish(self, kind: AgentKind) -> Ended {
        self.start(kind).await.finish().await
    }
}

impl Running {
    pub(crate) fn stop(&self, reason: StopReason) {
        self.stop.send(Some(reason)).unwrap();
    }

    /// The agent's next question.
    pub(crate) async fn question(&mut self) -> Value {
        self.until(|told| told.kind == EventType::ApprovalRequested)
            .await;
        self.seen.last().unwrap().fields.clone()
    }

    pub(crate) fn answer(&self, question: &Value, answer: Answer) {
        let id = question["approvalId"].as_str().unwrap().parse();
        self.desk.answered(id.unwrap(), answer);
    }

    /// Says something to the agent and waits until it has taken it.
    pub(crate) async fn say(&mut self, text: &str) {
        self.desk.put(Uuid::new_v4(), text.to_owned());
        self.until(|told| told.kind == EventType::UserMessage).await;
    }

    /// Reads events until one satisfies `wanted`.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Told) -> bool) {
        let search = async {
            loop {
                let draft = self.drafts.recv().await;
                let told = told(draft.expect("the run ended before the event came"));
                let is_wanted = wanted(&told);
                self.seen.push(told);
                if is_wanted {
                    return;
                }
            }
        };
        tokio::time::timeout(AGENTS_PATIENCE, search)
            .await
            .expect("the event comes");
    }

    pub(crate) async fn finish(mut self) -> Ended {
        // It could still tell something.
        drop(self.desk);
        let rest = async {
            while let Some(draft) = self.drafts.recv().await {
                self.seen.push(told(draft));
            }
            self.end.await.unwrap()
        };
        let end = tokio::time::timeout(AGENTS_PATIENCE, rest).await;
        Ended {
            end: end.expect("the run ends"),
            events: self.seen,
        }
    }
}

impl Ended {
    /// All texts of one kind of event, each in a line.
    pub(crate) fn texts(&self, kind: EventType, field: &str) -> String {
        let events = self.events.iter().filter(|told| told.kind == kind);
        let texts = events.map(|told| match &told.fields[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// What the agent said, without line breaks between deltas.
    pub(crate) fn said(&self) -> String {
        let events = self.events.iter();
        events
            .filter(|told| told.kind == EventType::AgentText)
            .filter_map(|told| told.fields["text"].as_str())
            .collect()
    }
}

pub(crate) fn told(draft: Draft) -> Told {
    Told {
        kind: draft.kind,
        // What is nested too deeply to be read is still JSON.
        fields: serde_json::from_str(draft.fields.get())
            .unwrap_or_else(|_| Value::String(draft.fields.get().to_owned())),
    }
}
