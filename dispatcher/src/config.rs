//! Settings: the only reader of flags and environment.
//!
//! Every setting is a flag and an environment variable; every variable `NAME` may also be
//! given as `NAME_FILE`, the path of a file whose content is the value (Docker secrets).
//! Older names stand in [`OLD_NAMES`].

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::http::HeaderValue;
use clap::Args;
use clawlink_shared::secret::Secret;
use clawlink_shared::settings::{self, Fallbacks, Lookup};

use crate::workspaces::role::KeyRole;
use clawlink_shared::worker_args::WorkerArgs;

use crate::auth::settings::SignInSettings;
use crate::http::forwarded::Network;

/// Where the parts are and what is shared by all replicas of one installation.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Postgres, as `postgres://user:password@host:port/database`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// Postgres with the role that owns the schema, for migrations and grants; the role of
    /// DATABASE_URL is then restricted [default: DATABASE_URL]
    #[arg(long, env = "DATABASE_MIGRATION_URL", hide_env_values = true)]
    pub database_migration_url: Option<Secret>,
    /// Redis or Valkey, as `redis://:password@host:port/db`.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<Secret>,
    /// Put before every key and channel in Redis.
    #[arg(long, env = "CLAWLINK_REDIS_PREFIX", default_value = "clawlink:")]
    pub redis_prefix: String,
    #[command(flatten)]
    pub s3: S3Settings,
    /// 32 random bytes in base64: seals credentials and signs lease tokens. The same on all replicas.
    #[arg(long, env = "CLAWLINK_SECRET_KEY", hide_env_values = true)]
    pub secret_key: Option<Secret>,
    /// While the secret key is being replaced: the other one, which is accepted too.
    #[arg(long, env = "CLAWLINK_SECRET_KEY_OLD", hide_env_values = true)]
    pub secret_key_old: Option<Secret>,
    /// What workers show to claim work.
    #[arg(long, env = "CLAWLINK_POOL_TOKEN", hide_env_values = true)]
    pub pool_token: Option<Secret>,
    #[command(flatten)]
    pub github: GithubSettings,
    #[command(flatten)]
    pub sign_in: SignInSettings,
    #[command(flatten)]
    pub tuning: Tuning,
}

/// Where pull requests are opened, and how webhooks are known.
#[derive(Debug, Clone, Args)]
pub struct GithubSettings {
    /// GitHub's API; of GitHub Enterprise: `https://HOST/api/v3`.
    #[arg(
        long,
        env = "CLAWLINK_GITHUB_API",
        default_value = "https://api.github.com",
        value_name = "URL"
    )]
    pub github_api: String,
    /// The host of the repositories that this API serves, as `host` or `host:port`; no other
    /// host's token is sent to it [default: the API's host without `api.`]
    #[arg(long, env = "CLAWLINK_GITHUB_HOST", value_name = "HOST")]
    pub github_host: Option<String>,
    /// How long one call of the API may take, in seconds; failed ones are tried three times.
    #[arg(long, env = "CLAWLINK_GITHUB_TIMEOUT_SECONDS", default_value = "10", value_parser = seconds)]
    pub github_timeout: Duration,
    /// The secret of GitHub webhooks to `/api/webhooks/github`; without it that path does not
    /// exist.
    #[arg(long, env = "CLAWLINK_GITHUB_WEBHOOK_SECRET", hide_env_values = true)]
    pub github_webhook_secret: Option<Secret>,
}

/// Where session archives are kept.
#[derive(Debug, Clone, Args)]
pub struct S3Settings {
    /// The S3 endpoint, with scheme.
    #[arg(long, env = "S3_ENDPOINT")]
    pub s3_endpoint: Option<String>,
    /// The endpoint as workers reach it, if different; presigned URLs name it.
    #[arg(long, env = "S3_PUBLIC_ENDPOINT")]
    pub s3_public_endpoint: Option<String>,
    /// The bucket; made if missing.
    #[arg(long, env = "S3_BUCKET", default_value = "clawlink")]
    pub s3_bucket: String,
    /// Access key.
    #[arg(long, env = "S3_ACCESS_KEY", hide_env_values = true)]
    pub s3_access_key: Option<Secret>,
    /// Secret key.
    #[arg(long, env = "S3_SECRET_KEY", hide_env_values = true)]
    pub s3_secret_key: Option<Secret>,
    /// Region.
    #[arg(long, env = "S3_REGION", default_value = "us-east-1")]
    pub s3_region: String,
}

/// How `clawlink s3` serves.
#[derive(Debug, Clone, Args)]
pub struct S3AloneSettings {
    /// Where objects are kept, by one server at a time.
    #[arg(
        long,
        env = "CLAWLINK_S3_DIR",
        default_value = "/data",
        value_name = "DIR"
    )]
    pub s3_dir: PathBuf,
    /// Address and port of the S3 endpoint.
    #[arg(long, env = "CLAWLINK_S3_LISTEN", default_value = "127.0.0.1:9000")]
    pub s3_listen: SocketAddr,
    /// The one bucket.
    #[arg(long, env = "S3_BUCKET", default_value = "clawlink")]
    pub s3_bucket: String,
    /// The key id that requests are signed with.
    #[arg(long, env = "S3_ACCESS_KEY", hide_env_values = true)]
    pub s3_access_key: Secret,
    /// The key that requests are signed with.
    #[arg(long, env = "S3_SECRET_KEY", hide_env_values = true)]
    pub s3_secret_key: Secret,
}

/// Bounds and times; the defaults suit a small team.
#[derive(Debug, Clone, Args)]
pub struct Tuning {
    /// Connections to Postgres per dispatcher.
    #[arg(long, env = "CLAWLINK_DATABASE_CONNECTIONS", default_value_t = 16)]
    pub database_connections: u32,
    /// Length of a worker's lease, in seconds; workers renew at a third of it.
    #[arg(long, env = "CLAWLINK_LEASE_SECONDS", default_value = "45", value_parser = seconds)]
    pub lease: Duration,
    /// A claimed execution that no worker acknowledges in this time is handed out again, in seconds.
    #[arg(long, env = "CLAWLINK_ACK_SECONDS", default_value = "5", value_parser = seconds)]
    pub ack: Duration,
    /// A cancelled execution that has not ended by then is ended, in seconds; ten times as
    /// late while its worker renews the lease.
    #[arg(long, env = "CLAWLINK_CANCEL_SECONDS", default_value = "30", value_parser = seconds)]
    pub cancel: Duration,
    /// How many workers may hold one execution before it fails with `worker_lost`.
    #[arg(long, env = "CLAWLINK_MAX_ATTEMPTS", default_value_t = 3)]
    pub max_attempts: i32,
    /// How long agents run on while no dispatcher answers them, in seconds.
    #[arg(long, env = "CLAWLINK_OUTAGE_GRACE_SECONDS", default_value = "600", value_parser = seconds)]
    pub outage_grace: Duration,
    /// How often the loops (outbox, sweeper, reconciler, wait reasons) look without being poked, in seconds.
    #[arg(long, env = "CLAWLINK_TICK_SECONDS", default_value = "2", value_parser = seconds)]
    pub tick: Duration,
    /// A comment is sent on an idle stream this often, in seconds.
    #[arg(long, env = "CLAWLINK_KEEP_ALIVE_SECONDS", default_value = "15", value_parser = seconds)]
    pub keep_alive: Duration,
    /// A client that takes no byte for this long is cut, in seconds; it can resume.
    #[arg(long, env = "CLAWLINK_SLOW_READER_SECONDS", default_value = "30", value_parser = seconds)]
    pub slow_reader: Duration,
    /// How long the head of a request, and then its body, may take to arrive, in seconds; an
    /// idle connection is closed after it too.
    #[arg(long, env = "CLAWLINK_REQUEST_SECONDS", default_value = "75", value_parser = seconds)]
    pub request: Duration,
    /// Proxies whose `X-Forwarded-For` is believed, as networks such as `10.0.0.0/8`, separated
    /// by commas.
    #[arg(
        long,
        env = "CLAWLINK_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "NETWORK"
    )]
    pub trusted_proxies: Vec<Network>,
    /// How long a dispatcher that is told to stop still takes requests while `/health/live`
    /// says 503, so that a load balancer sends it no more, in seconds.
    #[arg(long, env = "CLAWLINK_LEAVE_SECONDS", default_value_t = 0)]
    pub leave_seconds: u64,
    /// How long a draining dispatcher waits for open requests, in seconds.
    #[arg(long, env = "CLAWLINK_DRAIN_SECONDS", default_value = "20", value_parser = seconds)]
    pub drain: Duration,
    /// Requests that one caller may make in a minute, on all replicas together; 0: any number.
    #[arg(long, env = "CLAWLINK_RATE_PER_MINUTE", default_value_t = 6000)]
    pub rate_per_minute: u32,
    /// Origins whose pages may call the API from a browser, separated by commas
    #[arg(
        long,
        env = "CLAWLINK_CORS_ORIGINS",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub cors_origins: Vec<HeaderValue>,
    /// Slug of the workspace in which clients of the older runtime API may work without a credential
    #[arg(
        long,
        env = "CLAWLINK_ANONYMOUS_WORKSPACE",
        value_name = "SLUG",
        requires = "anonymous_role"
    )]
    pub anonymous_workspace: Option<String>,
    /// What those clients may do there.
    #[arg(
        long,
        env = "CLAWLINK_ANONYMOUS_ROLE",
        value_enum,
        requires = "anonymous_workspace"
    )]
    pub anonymous_role: Option<KeyRole>,
    /// Largest request body, in bytes.
    #[arg(long, env = "CLAWLINK_MAX_BODY_BYTES", default_value_t = 10 * 1024 * 1024)]
    pub max_body_bytes: usize,
    /// Executions of a new workspace that may run at one time.
    #[arg(long, env = "CLAWLINK_RUNNING_CAP", default_value_t = 100)]
    pub running_cap: i32,
    /// Executions of a new workspace that may wait at one time; beyond it: 429.
    #[arg(long, env = "CLAWLINK_PENDING_CAP", default_value_t = 1000)]
    pub pending_cap: i32,
    /// Executions of all workspaces that may wait at one time; beyond it: 429.
    #[arg(long, env = "CLAWLINK_QUEUE_CAP", default_value_t = 10_000)]
    pub queue_cap: i64,
    /// Wall-clock limit of an agent's run where the request sets none, in seconds.
    #[arg(long, env = "CLAWLINK_TIMEOUT_SECONDS", default_value_t = 3600)]
    pub timeout_seconds: u64,
    /// The longest limit a request may set, in seconds.
    #[arg(long, env = "CLAWLINK_MAX_TIMEOUT_SECONDS", default_value_t = 86_400)]
    pub max_timeout_seconds: u64,
    /// How long an agent's question waits for an answer, in seconds; workspaces may say
    /// otherwise.
    #[arg(long, env = "CLAWLINK_APPROVAL_SECONDS", default_value = "900", value_parser = seconds)]
    pub approval: Duration,
    /// What a question becomes that nobody answered in time; workspaces may say otherwise.
    #[arg(
        long,
        env = "CLAWLINK_APPROVAL_DEFAULT",
        value_enum,
        default_value = "deny"
    )]
    pub approval_default: Fallback,
    /// Commits of history that workers fetch where the request says nothing; 0 means all.
    #[arg(long, env = "CLAWLINK_CLONE_DEPTH", default_value_t = 1)]
    pub clone_depth: u32,
    /// Largest unpacked session, in bytes.
    #[arg(long, env = "CLAWLINK_MAX_SESSION_BYTES", default_value_t = 20 * 1024 * 1024 * 1024)]
    pub max_session_bytes: u64,
    /// Most files in a session.
    #[arg(long, env = "CLAWLINK_MAX_SESSION_FILES", default_value_t = 2_000_000)]
    pub max_session_files: u64,
    /// Whether files that git ignores travel with a session.
    #[arg(long, env = "CLAWLINK_INCLUDE_IGNORED")]
    pub include_ignored: bool,
    /// A JSON file of what tokens cost where the agent does not say, instead of the built-in table:
    /// `{"model": {"input": "3", "output": "15", "cacheRead"?, "cacheWrite"?}}`, US dollars per
    /// million tokens.
    #[arg(long, env = "CLAWLINK_PRICES", value_name = "FILE")]
    pub prices: Option<PathBuf>,
    /// Archives kept per session.
    #[arg(long, env = "CLAWLINK_KEEP_ARCHIVES", default_value_t = 3)]
    pub keep_archives: i32,
    /// Name of the author of commits that clawlink makes.
    #[arg(long, env = "CLAWLINK_COMMIT_NAME", default_value = "clawlink")]
    pub commit_name: String,
    /// Address of that author.
    #[arg(
        long,
        env = "CLAWLINK_COMMIT_EMAIL",
        default_value = "clawlink@localhost"
    )]
    pub commit_email: String,
    /// The agent of requests that name none.
    #[arg(long, env = "CLAWLINK_DEFAULT_AGENT")]
    pub default_agent: Option<String>,
    /// The agent's credential where a request says `FROM_ENV`.
    #[arg(
        long,
        env = "CLAWLINK_DEFAULT_AGENT_CREDENTIAL",
        hide_env_values = true
    )]
    pub default_agent_credential: Option<Secret>,
    /// The git token where a request says `FROM_ENV`.
    #[arg(long, env = "GITHUB_ACCESS_TOKEN", hide_env_values = true)]
    pub default_git_token: Option<Secret>,
    /// The host that this token belongs to, as `host` or `host:port`; it is sent to no other.
    #[arg(
        long,
        env = "CLAWLINK_DEFAULT_GIT_HOST",
        default_value = "github.com",
        value_name = "HOST"
    )]
    pub default_git_host: String,
}

/// What an agent's question becomes that nobody answered in time.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
#[schema(as = ApprovalFallback)]
pub enum Fallback {
    /// The agent may.
    Allow,
    /// It may not.
    Deny,
}

impl Fallback {
    /// Its name in SQL and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// Reads the name back.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Allow, Self::Deny]
            .into_iter()
            .find(|fallback| fallback.as_str() == name)
    }
}

/// How `clawlink up` runs what is not configured.
#[derive(Debug, Clone, Args)]
pub struct UpSettings {
    /// Where databases, sessions and generated secrets are kept [default: .clawlink; for root in
    /// a directory that other users cannot enter: /var/lib/clawlink]
    #[arg(long, env = "CLAWLINK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Worker processes; each runs one execution at a time.
    #[arg(long, env = "CLAWLINK_WORKERS", default_value_t = 2)]
    pub workers: usize,
    /// The worker program [default: clawlink-worker beside this program]
    #[arg(long, env = "CLAWLINK_WORKER_BIN", value_name = "FILE")]
    pub worker_bin: Option<PathBuf>,
    /// The folder of `initdb` and `postgres` [default: PATH, then Debian's newest]
    #[arg(long, env = "CLAWLINK_POSTGRES_BIN", value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// How long running agents may go on when stopping, in seconds.
    #[arg(long, env = "CLAWLINK_DRAIN_TIMEOUT", default_value_t = 30)]
    pub worker_drain_seconds: u64,
    /// Passed on to the workers, whose sessions are kept in the data directory.
    #[command(flatten)]
    pub for_workers: WorkerArgs,
    /// How workers log: as we do.
    #[arg(skip)]
    pub worker_log: String,
}

impl UpSettings {
    /// The worker program's path.
    pub fn worker_program(&self) -> anyhow::Result<PathBuf> {
        if let Some(path) = &self.worker_bin {
            return path
                .canonicalize()
                .with_context(|| format!("find worker program {}", path.display()));
        }
        let own = std::env::current_exe().context("find own program")?;
        Ok(own.with_file_name("clawlink-worker"))
    }
}

/// Where to listen.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// Address and port of the HTTP server.
    #[arg(long, env = "CLAWLINK_LISTEN", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
}

impl Listen {
    /// The address by which this machine reaches a listener there.
    pub fn url_of(mut address: SocketAddr) -> String {
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }
}

/// Variables of earlier systems, and the settings they fill when the new name is not set.
const OLD_NAMES: &[(&str, &str)] = &[
    ("MINIO_ACCESS_KEY", "S3_ACCESS_KEY"),
    ("MINIO_ROOT_USER", "S3_ACCESS_KEY"),
    ("MINIO_SECRET_KEY", "S3_SECRET_KEY"),
    ("MINIO_ROOT_PASSWORD", "S3_SECRET_KEY"),
    ("MINIO_BUCKET", "S3_BUCKET"),
    ("MINIO_REGION", "S3_REGION"),
    ("CODING_ASSISTANT_PROVIDER", "CLAWLINK_DEFAULT_AGENT"),
    (
        "CODING_ASSISTANT_AUTHENTICATION",
        "CLAWLINK_DEFAULT_AGENT_CREDENTIAL",
    ),
];

/// Gives the command what stands in `NAME_FILE` files and in variables of earlier systems.
/// Errors name the unreadable file.
pub fn with_fallbacks(command: clap::Command, lookup: Lookup) -> anyhow::Result<clap::Command> {
    let fallbacks = Fallbacks {
        lookup,
        old_names: OLD_NAMES,
        derived: &derived,
    };
    Ok(settings::with_fallbacks(command, &fallbacks)?)
}

/// Settings that older variables only give together.
fn derived(name: &str, lookup: Lookup) -> Option<String> {
    match name {
        // MINIO_ENDPOINT has no scheme; MINIO_USE_SSL says which.
        "S3_ENDPOINT" => lookup("MINIO_ENDPOINT").map(|host| {
            let tls = lookup("MINIO_USE_SSL").is_some_and(|flag| flag == "true" || flag == "1");
            if host.contains("://") {
                host
            } else {
                format!("{}://{host}", if tls { "https" } else { "http" })
            }
        }),
        "CLAWLINK_LISTEN" => lookup("PORT").map(|port| format!("0.0.0.0:{port}")),
        _ => None,
    }
}

/// Reads a duration given in seconds, fractions allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{text:?} is not a positive number of seconds"))
}

impl Settings {
    /// The setting, or an error that names the flag and the variable.
    pub fn required<'a, T>(value: &'a Option<T>, name: &str) -> anyhow::Result<&'a T> {
        value
            .as_ref()
            .with_context(|| format!("{name} is not set; see `clawlink serve --help`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches};

    fn parse(environment: &[(&str, &str)]) -> Settings {
        let lookup = |name: &str| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let command = Settings::augment_args(Command::new("test"));
        let command = with_fallbacks(command, &lookup).expect("fallbacks apply");
        // The process's own environment must not show through.
        let command = command.mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
        let matches = command.get_matches_from(["test"]);
        Settings::from_arg_matches(&matches).expect("arguments parse")
    }

    #[test]
    fn old_minio_names_fill_the_s3_settings() {
        let settings = parse(&[
            ("MINIO_ENDPOINT", "minio:9000"),
            ("MINIO_USE_SSL", "true"),
            ("MINIO_ACCESS_KEY", "ak"),
            ("MINIO_BUCKET", "old"),
        ]);
        assert_eq!(
            settings.s3.s3_endpoint.as_deref(),
            Some("https://minio:9000")
        );
        assert_eq!(settings.s3.s3_access_key.expect("key").expose(), "ak");
        assert_eq!(settings.s3.s3_bucket, "old");
    }

    #[test]
    fn an_unspecified_address_is_reached_by_loopback() {
        let url = |address: &str| Listen::url_of(address.parse().expect("an address"));
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80"), "http://[::1]:80");
    }

    #[test]
    fn help_shows_no_value_that_came_from_elsewhere() {
        let lookup = |name: &str| (name == "MINIO_SECRET_KEY").then(|| "hidden-value".to_owned());
        let command = Settings::augment_args(Command::new("test"));
        let mut command = with_fallbacks(command, &lookup).expect("fallbacks apply");
        let help = command.render_long_help().to_string();
        assert!(help.contains("S3_SECRET_KEY") && !help.contains("hidden-value"));
    }

    #[test]
    fn a_file_gives_a_secret_without_its_newline() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), "postgres://u:p@h/d\n").expect("write");
        let path = file.path().to_str().expect("utf-8 path");
        let settings = parse(&[("DATABASE_URL_FILE", path)]);
        assert_eq!(
            settings.database_url.expect("url").expose(),
            "postgres://u:p@h/d"
        );
    }
}
