//! The agents that speak the protocol: one entry each, with all that differs between them.
//!
//! To add one, add an entry here, its kind in `clawlink_shared::agent`, and the folder of its
//! conversations in `crate::persist`'s table. Everything else follows from what the agent says
//! about itself.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clawlink_shared::agent::AgentKind;

use super::gemini;
use crate::agents::AgentJob;
use crate::agents::discovery::npm_machine;

/// All that is particular about one agent.
#[derive(Debug)]
pub(super) struct Entry {
    /// Which.
    pub(super) kind: AgentKind,
    /// Its program's name.
    pub(super) program: &'static str,
    /// The program inside its npm packages: paths below `node_modules`.
    pub(super) packaged: fn() -> Vec<PathBuf>,
    /// Arguments that make it speak the protocol on its standard input and output.
    pub(super) arguments: &'static [&'static str],
    /// Environment that keeps it quiet: no updates, no telemetry, no downloads.
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// How it takes the model's name.
    pub(super) model: ModelWay,
    /// How it takes its credential.
    pub(super) key: KeyWay,
    /// Files in its HOME that it must find, with their content.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Names of its mode that only plans.
    pub(super) plan_modes: &'static [&'static str],
    /// It repeats a conversation after it said that it has loaded it.
    pub(super) repeats_late: bool,
    /// Makes its HOME ready for the conversation with this id, which it is to continue.
    pub(super) before_load: fn(&AgentJob, &str) -> Result<()>,
    /// Moves a conversation to another session root; `None`: it can be continued only where it
    /// began.
    pub(super) relocate: Option<fn(&Path, &Path) -> Result<()>>,
    /// Ids of permission requests that are refused whatever the request allows.
    pub(super) refused: &'static [&'static str],
    /// Arguments without which it does everything unasked; not given when everything is allowed.
    pub(super) asking: &'static [&'static str],
    /// Its mode that only plans is no more than a request to the model.
    pub(super) plans_in_words: bool,
}

/// How an agent takes the model's name.
#[derive(Debug, Clone, Copy)]
pub(super) enum ModelWay {
    /// As `FLAG=NAME`.
    Flag(&'static str),
    /// In this variable.
    Variable(&'static str),
    /// As `PROVIDER/NAME`, in goose's two variables.
    Goose,
    /// In opencode's configuration.
    Opencode,
}

/// How an agent takes its credential.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeyWay {
    /// In this variable.
    Variable(&'static str),
    /// Augment's session as JSON, or a token.
    Augment,
    /// In the variable of the model's provider.
    Provider,
    /// In opencode's configuration, or as its login file.
    Opencode,
}

/// Versions with which each entry was run or recorded: opencode 1.18.33, gemini 0.61.0, auggie
/// 0.36.0. openhands and goose are known from their documents and from scripted traffic.
pub(super) static TABLE: [Entry; 5] = [
    Entry {
        kind: AgentKind::Opencode,
        program: "opencode",
        packaged: || {
            let program = |libc| format!("opencode-linux-{}{libc}/bin/opencode", npm_machine());
            ["", "-musl"].map(|libc| program(libc).into()).to_vec()
        },
        arguments: &["acp", "--pure"],
        environment: &[
            ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
            ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
            ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
            ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1"),
        ],
        model: ModelWay::Opencode,
        key: KeyWay::Opencode,
        files: &[],
        plan_modes: &["plan"],
        repeats_late: false,
        before_load: nothing_to_do,
        relocate: None,
        refused: &[],
        asking: &[],
        plans_in_words: false,
    },
    Entry {
        kind: AgentKind::Gemini,
        program: "gemini",
        packaged: || vec!["@google/gemini-cli/bundle/gemini.js".into()],
        arguments: &["--acp", "--skip-trust"],
        environment: &[
            // One process instead of two, which is also found by its own name.
            ("GEMINI_CLI_NO_RELAUNCH", "true"),
            ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
        ],
        model: ModelWay::Flag("--model"),
        key: KeyWay::Variable("GEMINI_API_KEY"),
        files: &[(".gemini/settings.json", gemini::SETTINGS)],
        plan_modes: &["plan"],
        repeats_late: true,
        before_load: gemini::keep_conversation,
        relocate: Some(gemini::relocate),
        refused: &[],
        asking: &[],
        plans_in_words: false,
    },
    Entry {
        kind: AgentKind::Auggie,
        program: "auggie",
        packaged: || vec!["@augmentcode/auggie/augment.mjs".into()],
        arguments: &["--acp", "--retry-timeout=60"],
        environment: &[("AUGMENT_DISABLE_AUTO_UPDATE", "1")],
        model: ModelWay::Flag("--model"),
        key: KeyWay::Augment,
        files: &[],
        plan_modes: &["ask"],
        repeats_late: false,
        before_load: nothing_to_do,
        relocate: Some(|_, _| Ok(())),
        // To send the whole working tree to the vendor is not for a run to decide.
        refused: &["workspace-indexing-permission"],
        asking: &AUGGIE_ASKS,
        plans_in_words: true,
    },
    Entry {
        kind: AgentKind::Openhands,
        program: "openhands",
        packaged: Vec::new,
        arguments: &["acp", "--override-with-envs"],
        environment: &[("LITELLM_LOCAL_MODEL_COST_MAP", "True")],
        model: ModelWay::Variable("LLM_MODEL"),
        key: KeyWay::Variable("LLM_API_KEY"),
        files: &[],
        plan_modes: &[],
        repeats_late: true,
        before_load: nothing_to_do,
        relocate: None,
        refused: &[],
        asking: &[],
        plans_in_words: false,
    },
    Entry {
        kind: AgentKind::Goose,
        program: "goose",
        packaged: Vec::new,
        arguments: &["acp"],
        environment: &[("GOOSE_DISABLE_KEYRING", "1"), ("GOOSE_MODE", "approve")],
        model: ModelWay::Goose,
        key: KeyWay::Provider,
        files: &[],
        plan_modes: &["chat"],
        repeats_late: true,
        before_load: nothing_to_do,
        relocate: None,
        refused: &[],
        asking: &[],
        plans_in_words: false,
    },
];

/// auggie's tools that change something, run something or reach out, in both of its sets of tools
/// and in its vendor's service. What an MCP server offers has names of its own.
const AUGGIE_ASKS: [&str; 22] = [
    "--permission=apply_patch:ask-user",
    "--permission=bash:ask-user",
    "--permission=confluence:ask-user",
    "--permission=edit:ask-user",
    "--permission=github-api:ask-user",
    "--permission=jira:ask-user",
    "--permission=kill-process:ask-user",
    "--permission=launch-process:ask-user",
    "--permission=linear:ask-user",
    "--permission=notion:ask-user",
    "--permission=remove-files:ask-user",
    "--permission=save-file:ask-user",
    "--permission=sentry:ask-user",
    "--permission=setup-script:ask-user",
    "--permission=shell:ask-user",
    "--permission=str-replace-editor:ask-user",
    "--permission=stripe:ask-user",
    "--permission=supabase:ask-user",
    "--permission=web-fetch:ask-user",
    "--permission=web-search:ask-user",
    "--permission=write:ask-user",
    "--permission=write-process:ask-user",
];

fn nothing_to_do(_: &AgentJob, _: &str) -> Result<()> {
    Ok(())
}
