//! Logs: text for people by default, JSON lines for collectors.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged unless told otherwise. The S3 library reports every refused request as an error
/// of its own; ours are logged where they happen.
pub const DEFAULT_FILTER: &str = "info,s3s=off";

/// How a process logs; flattened into each binary's settings.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log, as `tracing` directives such as `info,clawlink::executions=debug`.
    #[arg(long, env = "CLAWLINK_LOG", default_value = DEFAULT_FILTER, value_parser = directives, global = true)]
    pub log: String,
    /// The form of log lines.
    #[arg(long, env = "CLAWLINK_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// Refuses what is not a filter, rather than logging something else.
fn directives(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("not log directives: {error}")),
    }
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
    // Reading the settings has refused what is not one.
    let filter = EnvFilter::new(&args.log);
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        log: LogArgs,
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let read = |log: &str| Cli::try_parse_from(["x", "--log", log]);
        assert_eq!(read("info,a::b=debug").unwrap().log.log, "info,a::b=debug");
        let refused = read("info,a::b=loud").err().unwrap().to_string();
        assert!(refused.contains("not log directives"), "{refused}");
    }
}
