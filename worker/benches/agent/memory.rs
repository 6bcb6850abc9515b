//! The worker's memory while its agent writes fast, with many secrets to look for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::Install;

/// Most memory of a worker, in MiB.
const TARGET_MIB: u64 = 60;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Secrets in the request.
const SECRETS: usize = 50;

/// Writes 10 MB/s for ten seconds, in lines of 20 kB.
const SCRIPT: &str = r#"python3 -c '
import sys, time
line = ("all work and no play " * 1000)[:19999] + "\n"
begun = time.time()
for i in range(5000):
    sys.stdout.write(line)
    sys.stdout.flush()
    late = begun + (i + 1) / 500 - time.time()
    if late > 0:
        time.sleep(late)
print("took", time.time() - begun, file=sys.stderr)
'"#;

/// Runs the script; the most memory that a worker had, in MiB, and how long the run took.
pub(crate) async fn measure(install: &Install) -> Result<(u64, Duration)> {
    let env: serde_json::Map<String, serde_json::Value> = (0..SECRETS)
        .map(|n| {
            (
                format!("TOKEN_{n}"),
                json!(format!("secret-number-{n:04}-of-the-benchmark")),
            )
        })
        .collect();
    let body = json!({
        "codingAssistantProvider": "shell", "userRequest": SCRIPT,
        "providerOptions": {"env": env},
    });
    let up = install.up.id().context("`clawlink up` runs")?;
    let running = install.submit(&body);
    tokio::pin!(running);
    let mut most = 0;
    let took = loop {
        tokio::select! {
            took = &mut running => break took?,
            () = tokio::time::sleep(LOOK) => most = most.max(peak_below(up)),
        }
    };
    ensure!(most > 0, "no worker was seen");
    Ok((most / 1024, took))
}

/// The highest peak of the workers below a process, in KiB.
fn peak_below(ancestor: u32) -> u64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let peaks = processes.filter_map(|process| {
        let status = std::fs::read_to_string(process.path().join("status")).ok()?;
        let is_worker = field(&status, "Name:")? == "clawlink-worker".get(..15)?;
        let parent: u32 = field(&status, "PPid:")?.parse().ok()?;
        let peak = field(&status, "VmHWM:")?.split_whitespace().next()?;
        (is_worker && is_below(parent, ancestor)).then(|| peak.parse().ok())?
    });
    peaks.max().unwrap_or(0)
}

fn is_below(mut process: u32, ancestor: u32) -> bool {
    while process > 1 && process != ancestor {
        let status = Path::new("/proc").join(process.to_string()).join("status");
        let status = std::fs::read_to_string(status).unwrap_or_default();
        process = field(&status, "PPid:")
            .and_then(|id| id.parse().ok())
            .unwrap_or(0);
    }
    process == ancestor
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim())
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark")]
pub(crate) fn show((mib, took): (u64, Duration)) {
    let verdict = if mib <= TARGET_MIB { "ok" } else { "MISSED" };
    let seconds = took.as_secs_f64();
    println!(
        "{:>12}: {mib} MiB at most while an agent wrote 100 MB in {seconds:.1} s (target: at \
         most {TARGET_MIB} MiB) {verdict}",
        "memory"
    );
}
