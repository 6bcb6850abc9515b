//! Saving and restoring a large session, beside `tar | zstd -3 -T0` on the same tree.
//!
//! `cargo bench -p clawlink-worker --bench archive` (1 GiB; `-- --mib 100` for less). Each
//! phase of ours runs in a process of its own, so that its peak memory is its own; parts are
//! sent over HTTP to a store in another process. Needs `tar` and `zstd`.

mod store;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use clawlink_shared::control::{ArchiveDone, ArchiveSource};
use clawlink_shared::secret::Secret;
use clawlink_worker::persist::{RestoreLimits, SaveRequest, Storage, restore, save};
use clawlink_worker::redact::Redactor;
use tokio_util::sync::CancellationToken;

/// Size of a file of the tree, in bytes.
const FILE: usize = 40 * 1024;
/// Files in one folder.
const FOLDER: usize = 200;

#[derive(Parser)]
struct Args {
    /// Size of the tree, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: usize,
    /// Pairs of runs; the fastest of each kind counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// What a child process does: `serve`, `save` or `restore`.
    #[arg(long, hide = true)]
    phase: Option<String>,
    /// The scratch directory of all processes.
    #[arg(long, hide = true, default_value = "")]
    scratch: String,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let scratch = Path::new(&args.scratch);
    match args.phase.as_deref() {
        None => compare(&args),
        Some("serve") => block_on(store::serve(scratch)),
        Some("save") => block_on(save_once(scratch)),
        Some(_) => block_on(restore_once(scratch)),
    }
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    // As the worker itself: one thread for waiting, others for what computes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

fn compare(args: &Args) -> Result<()> {
    let scratch = tempfile::tempdir().context("make scratch directory")?;
    let dir = scratch.path();
    for folder in ["session/work", "session/home", "session/tmp", "store"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    make_tree(&dir.join("session/work"), args.mib)?;
    let mut server = phase(dir, "serve")?.spawn()?;
    let compared = (|| {
        let (mut saves, mut packs) = (Vec::new(), Vec::new());
        let (mut restores, mut unpacks) = (Vec::new(), Vec::new());
        for _ in 0..args.runs {
            packs.push(shell(
                dir,
                "tar -C session -c work | zstd -q -3 -T0 > plain.zst",
            )?);
            saves.push(timed(&mut phase(dir, "save")?)?);
            unpacks.push(shell(
                dir,
                "rm -rf plain && mkdir plain && zstd -q -dc plain.zst | tar -C plain -x",
            )?);
            restores.push(timed(&mut phase(dir, "restore")?)?);
        }
        show("save", "tar | zstd -3 -T0", &saves, &packs);
        show("restore", "zstd -dc | tar -x", &restores, &unpacks);
        anyhow::Ok(())
    })();
    server.kill()?;
    server.wait()?;
    compared
}

/// Half words, half noise, so that it compresses about as source trees with assets do.
fn make_tree(root: &Path, mib: usize) -> Result<()> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for number in 0..mib * 1024 * 1024 / FILE {
        let folder = root.join(format!("folder-{}", number / FOLDER));
        std::fs::create_dir_all(&folder)?;
        let mut bytes = Vec::with_capacity(FILE + 8);
        while bytes.len() < FILE {
            let word = next();
            if number % 2 == 0 {
                bytes.extend_from_slice(&word.to_le_bytes());
            } else {
                bytes.extend_from_slice(format!("word{} ", word % 997).as_bytes());
            }
        }
        std::fs::write(folder.join(format!("file-{number}")), bytes)?;
    }
    Ok(())
}

fn phase(dir: &Path, name: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--phase", name, "--scratch"]).arg(dir);
    Ok(command)
}

fn shell(dir: &Path, script: &str) -> Result<Duration> {
    timed(Command::new("sh").args(["-c", script]).current_dir(dir))
}

fn timed(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    let status = command.status().context("start a phase")?;
    ensure!(status.success(), "a phase failed: {status}");
    Ok(begun.elapsed())
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn show(ours: &str, theirs: &str, our_times: &[Duration], their_times: &[Duration]) {
    let best = |times: &[Duration]| {
        times
            .iter()
            .min()
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
    };
    let (our_best, their_best) = (best(our_times), best(their_times));
    println!(
        "{ours}: {our_best:.2} s, {theirs}: {their_best:.2} s, ratio {:.2} (best of {})",
        our_best / their_best,
        our_times.len(),
    );
}

/// Secrets as a run has them: an OAuth login and a git token.
fn redactor() -> Redactor {
    let login = r#"{"claudeAiOauth":{"accessToken":"sk-ant-oat01-0123456789abcdef0123456789",
        "refreshToken":"sk-ant-ort01-fedcba9876543210fedcba9876"}}"#;
    Redactor::new(&[login, "ghp_0123456789abcdef0123456789abcdef"].map(Secret::new))
}

async fn save_once(scratch: &Path) -> Result<()> {
    let request = SaveRequest {
        session_root: scratch.join("session"),
        own_state: None,
        include_ignored: false,
        max_bytes: u64::MAX,
        max_files: u64::MAX,
        secrets: redactor(),
    };
    let storage = Storage::new(reqwest::Client::new());
    let saved = save(&storage, &store::Api::of(scratch).await?, request).await;
    let (done, _) = saved.map_err(|failure| anyhow::anyhow!(failure.message))?;
    std::fs::write(scratch.join("done"), serde_json::to_vec(&done)?)?;
    show_peak("save");
    Ok(())
}

async fn restore_once(scratch: &Path) -> Result<()> {
    let api = store::Api::of(scratch).await?;
    let done: ArchiveDone = serde_json::from_slice(&std::fs::read(scratch.join("done"))?)?;
    let source = ArchiveSource {
        url: api.whole(),
        size: done.size,
        sha256: done.sha256,
    };
    let into = scratch.join("restored");
    if into.exists() {
        std::fs::remove_dir_all(&into)?;
    }
    std::fs::create_dir(&into)?;
    let limits = RestoreLimits {
        max_bytes: u64::MAX,
        max_files: u64::MAX,
    };
    let storage = Storage::new(reqwest::Client::new());
    let cancel = CancellationToken::new();
    let restored = restore(&storage, &api, &source, &into, limits, &cancel).await;
    restored.map_err(|failure| anyhow::anyhow!(failure.message))?;
    show_peak("restore");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
fn show_peak(phase: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "{phase}: peak memory {}",
        peak.unwrap_or("unknown")
            .trim_start_matches("VmHWM:")
            .trim()
    );
}
