//! The CLI by itself: the flags, switches and first lines that a worker would use, in a fresh
//! home, from its start to its exit.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clawlink_shared::settings::process_environment;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// What both are asked; the scripted model answers with one sentence.
pub(crate) const PROMPT: &str = "[[text]] Say something short.";

const FLAGS: [&str; 9] = [
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--permission-mode",
    "bypassPermissions",
    "--allow-dangerously-skip-permissions",
];

/// One call; how long it took.
pub(crate) async fn call(program: &Path, model: &str) -> Result<Duration> {
    let home = tempfile::tempdir().context("make a home")?;
    let lines = [
        json!({"type": "control_request", "request_id": "initialize",
            "request": {"subtype": "initialize", "hooks": null}}),
        json!({"type": "user", "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": PROMPT}}),
    ];
    let path = process_environment("PATH").unwrap_or_default();
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(FLAGS)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .env("ANTHROPIC_BASE_URL", model)
        .env("ANTHROPIC_API_KEY", "sk-ant-api-benchmark")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
        .env("DISABLE_TELEMETRY", "1")
        .env("DISABLE_ERROR_REPORTING", "1")
        .env("IS_SANDBOX", "1")
        .current_dir(home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let mut input = child.stdin.take().context("a piped input")?;
    for line in lines {
        input.write_all(format!("{line}\n").as_bytes()).await?;
    }
    let mut output = BufReader::new(child.stdout.take().context("a piped output")?).lines();
    let mut ended_well = false;
    while let Some(line) = output.next_line().await? {
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if line["type"] == "result" {
            ended_well = line["subtype"] == "success";
            break;
        }
    }
    ensure!(ended_well, "the CLI gave no good result");
    drop(input);
    child.wait().await.context("wait for the CLI")?;
    Ok(begun.elapsed())
}
