//! The real programs behind the one client, in the real sandbox, against a scripted model. They
//! are large: only `./deploy/test --all` installs them and runs these tests.

mod claude_adapter;
mod gemini;
mod people;
mod refusals;
mod runs;

use std::path::{Path, PathBuf};

use clawlink_fixtures::model::Model;
use clawlink_shared::agent::AgentKind;
use clawlink_shared::secret::Secret;

use crate::agent_job::{Run, Session};

/// The directory whose `node_modules` holds the programs.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no settings of its own"
)]
fn agent_dir() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agents-all");
    let directory = std::env::var_os("CLAWLINK_TEST_AGENTS_ALL").map_or(default, PathBuf::from);
    assert!(
        directory.join("node_modules").is_dir(),
        "the agents are not installed in {}: run `npm ci --ignore-scripts` in deploy/agents-all, \
         or name a directory that has them in CLAWLINK_TEST_AGENTS_ALL",
        directory.display()
    );
    directory.canonicalize().unwrap()
}

/// A job for one of them, whose model is scripted.
fn run(session: &Session, model: &Model, kind: AgentKind, prompt: &str) -> Run {
    let mut run = session.run(prompt);
    run.environment.agent_dir = Some(agent_dir());
    // They take seconds to say their versions.
    let versions = Path::new(env!("CARGO_TARGET_TMPDIR")).join("acp-real-versions.json");
    run.environment.version_cache = Some(versions);
    let base = model.base_url();
    let mut address = |name: &str, value: String| {
        run.environment.passthrough.insert(name.into(), value);
    };
    match kind {
        AgentKind::Gemini => {
            address("GOOGLE_GEMINI_BASE_URL", base.into());
            run.options.model = Some("gemini-2.5-flash".into());
        }
        AgentKind::Auggie => address("AUGMENT_API_URL", format!("{base}/")),
        AgentKind::Ollama => address("OLLAMA_HOST", base.into()),
        AgentKind::Openrouter => address("OPENROUTER_BASE_URL", format!("{base}/v1")),
        AgentKind::Openai => address("OPENAI_BASE_URL", format!("{base}/v1")),
        _ => address("ANTHROPIC_BASE_URL", base.into()),
    }
    match kind {
        AgentKind::Gemini | AgentKind::Auggie => {}
        AgentKind::Opencode => run.options.model = Some("anthropic/claude-sonnet-4-5".into()),
        _ => run.options.model = Some("scripted".into()),
    }
    run.credential = (kind != AgentKind::Ollama).then(|| Secret::new("scripted-key-value"));
    run
}
