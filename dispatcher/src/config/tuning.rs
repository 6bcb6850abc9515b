//! Bounds and times of an installation, and what holds where a request or a workspace says nothing.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use clap::Args;
use clawlink_shared::network::Network;
use clawlink_shared::secret::Secret;

use crate::workspaces::role::KeyRole;

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

/// Reads a duration given in seconds, fractions allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("{text:?} is not a positive number of seconds"))
}
