//! Logs: text for people by default, JSON lines for collectors.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How a process logs; flattened into each binary's settings.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log, as `tracing` directives such as `info,clawlink::executions=debug`.
    #[arg(long, env = "CLAWLINK_LOG", default_value = "info", global = true)]
    pub log: String,
    /// The form of log lines.
    #[arg(long, env = "CLAWLINK_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Starts logging to standard error; a second call in one process changes nothing.
pub fn init(args: &LogArgs) {
    let filter = EnvFilter::try_new(&args.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A process that embeds us may have set its own subscriber: then that one stays.
    let _already_set = match args.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
