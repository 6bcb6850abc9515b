//! A `claude` run from request to end of stream, beside the same CLI called alone; then the
//! worker's memory while an agent writes 10 MB/s.
//!
//! `cargo build --release --bins && cargo bench -p clawlink-worker --bench agent`
//! (`-- --runs 50` for more). Both talk to the same scripted model over a socket; neither has a
//! repository. The installation is a `clawlink up` of its own with one worker, made here and
//! ended here. Needs the pinned CLI (`npm ci --ignore-scripts` in `deploy/agents`).

mod alone;
mod memory;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clawlink_fixtures::model::Model;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What a run may take beyond the CLI alone: half of all runs stay below it.
const TARGET: Duration = Duration::from_millis(60);
/// `up` makes its databases in this time, and a worker follows the one before it.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// One run, or one call of the CLI.
const RUN_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked whether a worker waits.
const POLL: Duration = Duration::from_millis(20);
/// Pairs that are not counted: programs come from the disk.
const WARM_UP: usize = 2;

#[derive(Parser)]
struct Args {
    /// Pairs of runs.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// The folder whose `node_modules` has the pinned CLI.
    #[arg(
        long,
        env = "CLAWLINK_TEST_AGENTS",
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agents")
    )]
    agents: PathBuf,
    /// The `clawlink` to measure, with its worker beside it; the one of this build if absent.
    #[arg(long)]
    clawlink: Option<PathBuf>,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A `clawlink up` that belongs to this benchmark.
struct Install {
    up: Child,
    url: String,
    key: String,
    http: reqwest::Client,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let agents = args.agents.canonicalize().with_context(|| {
        let folder = args.agents.display();
        format!("find {folder}: run `npm ci --ignore-scripts` in deploy/agents")
    })?;
    let scratch = tempfile::tempdir().context("make scratch directory")?;
    open_to_all(scratch.path())?;
    let model = Model::start().await?;
    let built = Path::new(env!("CARGO_BIN_EXE_clawlink-worker")).with_file_name("clawlink");
    let program = args.clawlink.clone().unwrap_or(built);
    let mut install = Install::start(&program, &scratch.path().join("up"), &agents, &model).await?;
    let measured = measure(&args, &install, &agents, &model).await;
    let memory = memory::measure(&install).await;
    install.stop().await?;
    let (alone, runs) = measured?;
    show(alone, runs);
    memory::show(memory?);
    Ok(())
}

/// One after the other, in pairs, so that both meet the same machine.
async fn measure(
    args: &Args,
    install: &Install,
    agents: &Path,
    model: &Model,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let program = program_in(agents)?;
    let (mut alone, mut runs) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + args.runs {
        let call = alone::call(&program, model.base_url());
        let called = tokio::time::timeout(RUN_WITHIN, call).await;
        let called = called.context("the CLI did not end in time")??;
        let ran = tokio::time::timeout(RUN_WITHIN, install.run()).await;
        let ran = ran.context("the run did not end in time")??;
        if round >= WARM_UP {
            alone.push(called);
            runs.push(ran);
        }
    }
    Ok((alone, runs))
}

impl Install {
    async fn start(program: &Path, data: &Path, agents: &Path, model: &Model) -> Result<Self> {
        let mut up = Command::new(program)
            .args([
                "up",
                "--workers",
                "1",
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data)
            .env("CLAWLINK_AGENT_DIR", agents)
            .env("ANTHROPIC_BASE_URL", model.base_url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}: build it first", program.display()))?;
        let output = up.stdout.take().context("a piped output")?;
        let mut lines = BufReader::new(output).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(url) = line.strip_prefix("ready ") {
                    return Ok(url.to_owned());
                }
            }
            anyhow::bail!("`clawlink up` ended before it was ready")
        };
        let url = tokio::time::timeout(READY_WITHIN, ready)
            .await
            .context("`clawlink up` was not ready in time")??;
        // Read on, so that it never waits for us.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let key = std::fs::read_to_string(data.join("api-key")).context("read the API key")?;
        Ok(Self {
            up,
            url,
            key: key.trim().to_owned(),
            http: reqwest::Client::builder().no_proxy().build()?,
        })
    }

    /// One short run of claude.
    async fn run(&self) -> Result<Duration> {
        let body = json!({
            "codingAssistantProvider": "claude",
            "codingAssistantAuthentication": "sk-ant-api-benchmark",
            "userRequest": alone::PROMPT,
        });
        self.submit(&body).await
    }

    /// From the request to the end of its stream, with a worker waiting.
    async fn submit(&self, body: &serde_json::Value) -> Result<Duration> {
        self.a_worker_waits().await?;
        let begun = Instant::now();
        let request = self.http.post(format!("{}/execute", self.url));
        let answer = request.bearer_auth(&self.key).json(body).send().await?;
        let stream = answer.error_for_status()?.text().await?;
        let took = begun.elapsed();
        let last = stream.lines().rfind(|line| line.starts_with("data: "));
        let last = last.unwrap_or_default();
        ensure!(
            last.contains("\"type\":\"completed\""),
            "it ended so: {last}"
        );
        Ok(took)
    }

    async fn a_worker_waits(&self) -> Result<()> {
        let waiting = async {
            loop {
                let status = self.http.get(format!("{}/status", self.url)).send().await?;
                let status: serde_json::Value = status.json().await?;
                if status["workers"]["idle"].as_u64() > Some(0) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let waited = tokio::time::timeout(READY_WITHIN, waiting).await;
        waited.context("no worker waits for work")?
    }

    /// As Ctrl-C does: everything it started ends with it.
    async fn stop(&mut self) -> Result<()> {
        let id = self.up.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        self.up.wait().await.context("wait for `clawlink up`")?;
        Ok(())
    }
}

/// The CLI itself, which npm installs as a package named for the machine.
fn program_in(agents: &Path) -> Result<PathBuf> {
    let packages = agents.join("node_modules/@anthropic-ai");
    let packages = std::fs::read_dir(&packages)
        .with_context(|| format!("list {}: run npm ci there", packages.display()))?;
    let programs = packages.map(|package| package.map(|package| package.path().join("claude")));
    let programs = programs.collect::<std::io::Result<Vec<_>>>()?;
    let program = programs.into_iter().find(|program| program.is_file());
    program.context("find the CLI of this machine")
}

/// The servers and agents have users of their own.
fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
        .context("open the scratch directory")
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn show(mut alone: Vec<Duration>, mut runs: Vec<Duration>) {
    let at = |times: &mut Vec<Duration>, share: f64| {
        times.sort_unstable();
        times[((times.len() - 1) as f64 * share).round() as usize]
    };
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    for (what, times) in [("claude alone", &mut alone), ("claude run", &mut runs)] {
        let (half, most) = (ms(at(times, 0.5)), ms(at(times, 0.95)));
        let count = times.len();
        println!("{what:>12}: p50 {half:6.0} ms, p95 {most:6.0} ms, {count} runs");
    }
    let more = at(&mut runs, 0.5).saturating_sub(at(&mut alone, 0.5));
    let verdict = if more <= TARGET { "ok" } else { "MISSED" };
    let (more, target) = (ms(more), ms(TARGET));
    println!(
        "{:>12}: p50 {more:6.0} ms (target: at most {target:.0} ms) {verdict}",
        "more"
    );
}
