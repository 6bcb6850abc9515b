//! Settings of signing in; part of [`crate::config::Settings`].

use std::time::Duration;

use clap::{Args, ValueEnum};

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
}

impl SignInSettings {
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
