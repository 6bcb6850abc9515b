//! `clawlink health`: the health check of containers that hold nothing but our program.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::config::Listen;

/// Longer than a process that lives ever takes.
pub const WITHIN: Duration = Duration::from_secs(5);

/// What to ask, and what to hear.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// What to ask [default: /health/live at CLAWLINK_LISTEN of this machine]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The status of a healthy answer; of `clawlink s3` it is 403.
    #[arg(long, value_name = "STATUS", default_value_t = 200)]
    pub expect: u16,
    #[command(flatten)]
    pub listen: Listen,
}

/// An error unless the answer comes in time and has the status.
pub async fn probe(args: &ProbeArgs) -> Result<()> {
    let default = || format!("{}/health/live", Listen::url_of(args.listen.listen));
    let url = args.url.clone().unwrap_or_else(default);
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(WITHIN)
        .build()
        .context("make an HTTP client")?;
    let answer = http.get(url).send().await.context("ask for health")?;
    let status = answer.status().as_u16();
    ensure!(status == args.expect, "the answer is {status}");
    Ok(())
}
