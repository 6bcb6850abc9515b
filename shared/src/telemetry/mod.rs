//! Logs: text for people by default, JSON lines for collectors. Traces: see [`traces`].

pub mod traces;

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use traces::Traces;

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
    /// Where traces are sent, by OTLP over HTTP, such as `http://collector:4318`; without it there
    /// are none. They have the spans that are logged
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        global = true
    )]
    pub otlp_endpoint: Option<String>,
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

/// Starts logging to standard error, and sending traces if a collector is named, for which it must
/// be called inside a runtime; a second call in one process changes nothing. `service` is what
/// traces call this program.
pub fn init(args: &LogArgs, service: &'static str) -> Traces {
    // Reading the settings has refused what is not one.
    let filter = EnvFilter::new(&args.log);
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match args.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let started = args.otlp_endpoint.as_deref();
    let started = started.map(|endpoint| Traces::start(endpoint, service));
    let (traces, refused) = match started.transpose() {
        Ok(traces) => (traces.unwrap_or_default(), None),
        Err(error) => (Traces::default(), Some(error)),
    };
    let spans = traces.tracer().map(|tracer| {
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        layer.with_location(false).with_threads(false)
    });
    // One filter for both: filters of single layers lose spans beside libraries that ask whether
    // something is enabled. A process that embeds us may have set its own subscriber: then that
    // one stays.
    let _already_set = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .with(spans)
        .try_init();
    if let Some(error) = refused {
        tracing::error!("traces are not sent: {error}");
    }
    traces
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
