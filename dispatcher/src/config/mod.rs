//! Settings: the only reader of flags and environment.
//!
//! Every setting is a flag and an environment variable; every variable `NAME` may also be
//! given as `NAME_FILE`, the path of a file whose content is the value (Docker secrets); that and
//! older names stand in [`fallbacks`].

mod fallbacks;
mod tuning;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clawlink_shared::secret::Secret;
use clawlink_shared::worker_args::WorkerArgs;

use crate::auth::settings::SignInSettings;

pub use fallbacks::with_fallbacks;
pub(crate) use tuning::seconds;
pub use tuning::{Fallback, Tuning};

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
    use super::Listen;

    #[test]
    fn an_unspecified_address_is_reached_by_loopback() {
        let url = |address: &str| Listen::url_of(address.parse().expect("an address"));
        assert_eq!(url("0.0.0.0:80"), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80"), "http://[::1]:80");
    }
}
