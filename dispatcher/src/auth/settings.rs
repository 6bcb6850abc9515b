//! Settings of signing in; part of [`crate::config::Settings`].

use std::time::Duration;

use clap::{Args, ValueEnum};
use clawlink_shared::secret::Secret;

use crate::config::seconds;

/// How people sign in.
#[derive(Debug, Clone, Args)]
pub struct SignInSettings {
    /// Who may register: `first` closes after the first person, who runs the installation.
    #[arg(
        long,
        env = "CLAWLINK_REGISTRATION",
        value_enum,
        default_value = "first"
    )]
    pub registration: Registration,
    /// How long a refresh token serves, in seconds; each use gives a new one.
    #[arg(long, env = "CLAWLINK_REFRESH_SECONDS", default_value = "2592000", value_parser = seconds)]
    pub refresh: Duration,
    /// Attempts to sign in from one address a minute; 0 means any number.
    #[arg(
        long,
        env = "CLAWLINK_ATTEMPTS_PER_ADDRESS",
        default_value_t = 60,
        value_name = "NUMBER"
    )]
    pub attempts_per_address: u32,
    /// Attempts to sign in to one account a minute; 0 means any number.
    #[arg(
        long,
        env = "CLAWLINK_ATTEMPTS_PER_ACCOUNT",
        default_value_t = 10,
        value_name = "NUMBER"
    )]
    pub attempts_per_account: u32,
    /// Memory of one password hash, in KiB.
    #[arg(long, env = "CLAWLINK_PASSWORD_MEMORY_KIB", default_value_t = 19_456, value_parser = clap::value_parser!(u32).range(8..=1_048_576))]
    pub password_memory_kib: u32,
    /// Passes of one password hash over its memory.
    #[arg(long, env = "CLAWLINK_PASSWORD_PASSES", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub password_passes: u32,
    /// Password hashes computed at one time; the others wait.
    #[arg(long, env = "CLAWLINK_PASSWORD_PARALLEL", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub password_parallel: u32,
    /// The address that people open, such as `https://clawlink.example`: printed in links, and
    /// cookies are sent over https only if it says https.
    #[arg(long, env = "CLAWLINK_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// An OpenID Connect provider to sign in at; it must know
    /// `<public URL>/api/auth/oidc/oidc/callback`.
    #[arg(long, env = "CLAWLINK_OIDC_ISSUER", value_name = "URL")]
    pub oidc_issuer: Option<String>,
    /// What people call it.
    #[arg(
        long,
        env = "CLAWLINK_OIDC_TITLE",
        default_value = "single sign-on",
        value_name = "TEXT"
    )]
    pub oidc_title: String,
    /// Our id there.
    #[arg(long, env = "CLAWLINK_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// Our secret there.
    #[arg(long, env = "CLAWLINK_OIDC_CLIENT_SECRET", hide_env_values = true)]
    pub oidc_client_secret: Option<Secret>,
    /// Our id at Google; with the secret, people can sign in with Google.
    #[arg(long, env = "CLAWLINK_GOOGLE_CLIENT_ID", value_name = "ID")]
    pub google_client_id: Option<String>,
    /// Our secret at Google.
    #[arg(long, env = "CLAWLINK_GOOGLE_CLIENT_SECRET", hide_env_values = true)]
    pub google_client_secret: Option<Secret>,
    /// Where Google is.
    #[arg(
        long,
        env = "CLAWLINK_GOOGLE_ISSUER",
        default_value = "https://accounts.google.com",
        value_name = "URL"
    )]
    pub google_issuer: String,
    /// Our id at GitHub; with the secret, people can sign in with GitHub.
    #[arg(long, env = "CLAWLINK_GITHUB_CLIENT_ID", value_name = "ID")]
    pub github_client_id: Option<String>,
    /// Our secret at GitHub.
    #[arg(long, env = "CLAWLINK_GITHUB_CLIENT_SECRET", hide_env_values = true)]
    pub github_client_secret: Option<Secret>,
    /// GitHub's site; of GitHub Enterprise: `https://HOST`.
    #[arg(
        long,
        env = "CLAWLINK_GITHUB_SITE",
        default_value = "https://github.com",
        value_name = "URL"
    )]
    pub github_site: String,
}

/// What a provider knows us by.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Our id.
    pub id: String,
    /// Our secret.
    pub secret: Secret,
}

fn registered(id: &Option<String>, secret: &Option<Secret>) -> Option<Registered> {
    Some(Registered {
        id: id.clone()?,
        secret: secret.clone()?,
    })
}

impl SignInSettings {
    /// What the configured provider knows us by.
    pub fn oidc(&self) -> Option<Registered> {
        registered(&self.oidc_client_id, &self.oidc_client_secret)
    }

    /// What Google knows us by.
    pub fn google(&self) -> Option<Registered> {
        registered(&self.google_client_id, &self.google_client_secret)
    }

    /// What GitHub knows us by.
    pub fn github(&self) -> Option<Registered> {
        registered(&self.github_client_id, &self.github_client_secret)
    }

    /// Whether people reach this installation over https.
    pub fn is_https(&self) -> bool {
        let url = self.public_url.as_deref();
        url.is_some_and(|url| url.starts_with("https://"))
    }
}

/// Who may make an account by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// Anyone.
    Open,
    /// Nobody.
    Closed,
    /// The first person only.
    First,
}
