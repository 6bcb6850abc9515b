//! Settings of a worker that `clawlink up` takes too, and passes on to the workers it starts: one
//! declaration, so that names, meanings and help texts are the same in both programs.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// The other spelling of the variables that name proxies, and the one that is read first.
pub const PROXY_NAMES: [(&str, &str); 3] = [
    ("https_proxy", "HTTPS_PROXY"),
    ("http_proxy", "HTTP_PROXY"),
    ("no_proxy", "NO_PROXY"),
];

/// A proxy's address as the operator gave it. It may hold a password and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress(String);

impl ProxyAddress {
    /// The address itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for ProxyAddress {
    type Err = Infallible;

    /// Takes anything: whoever uses it says what is wrong, without repeating it.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

/// Which agents a worker offers, and what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct WorkerArgs {
    /// Where agents are looked for before PATH: their programs, or a `node_modules` with them
    #[arg(long, env = "CLAWLINK_AGENT_DIR", value_name = "DIR")]
    pub agent_dir: Option<PathBuf>,
    /// Further directories that agents may read and execute, separated by commas
    #[arg(
        long,
        env = "CLAWLINK_AGENT_READ_ONLY",
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub agent_read_only: Vec<PathBuf>,
    /// Further directories that agents may write, separated by commas: what no other session
    /// shares
    #[arg(
        long,
        env = "CLAWLINK_AGENT_READ_WRITE",
        value_delimiter = ',',
        value_name = "DIR"
    )]
    pub agent_read_write: Vec<PathBuf>,
    /// Run agents even where the kernel has no Landlock to confine them
    #[arg(long, env = "CLAWLINK_ALLOW_UNCONFINED")]
    pub allow_unconfined: bool,
    /// Allow repositories on loopback and private addresses, plain http included
    #[arg(long, env = "CLAWLINK_ALLOW_PRIVATE_HOSTS")]
    pub allow_private_hosts: bool,
    /// How long a run may wait for rate and usage limits of the model, in seconds; beyond it the
    /// execution ends `rate_limited` [default: 900]
    #[arg(long, env = "CLAWLINK_RATE_LIMIT_WAIT_SECONDS", value_name = "SECONDS")]
    pub rate_limit_wait_seconds: Option<u64>,
    /// Proxy for https: repositories, agents that are addresses, and what agents themselves reach
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true, value_name = "URL")]
    pub https_proxy: Option<ProxyAddress>,
    /// The same for plain http
    #[arg(long, env = "HTTP_PROXY", hide_env_values = true, value_name = "URL")]
    pub http_proxy: Option<ProxyAddress>,
    /// What is reached without a proxy, separated by commas: names with all below them, addresses,
    /// networks such as 10.0.0.0/8, or *; this machine always is
    #[arg(long, env = "NO_PROXY", value_delimiter = ',', value_name = "HOST")]
    pub no_proxy: Vec<String>,
    /// Reach dispatchers and the object storage through the proxies too
    #[arg(long, env = "CLAWLINK_PROXY_ALL")]
    pub proxy_all: bool,
    /// Labels for placement and display, as `name=value`, separated by commas
    #[arg(
        long = "label",
        visible_alias = "labels",
        env = "CLAWLINK_LABELS",
        value_delimiter = ',',
        value_parser = label,
        value_name = "NAME=VALUE"
    )]
    pub labels: Vec<(String, String)>,
}

impl WorkerArgs {
    /// As variables, from which another process reads the same. Paths become absolute, because
    /// workers run elsewhere.
    ///
    /// # Errors
    ///
    /// When a path is not UTF-8, or is relative to a directory that cannot be found.
    pub fn variables(&self) -> io::Result<Vec<(String, String)>> {
        let absolute = |path: &PathBuf| -> io::Result<String> {
            let path = std::path::absolute(path)?;
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                io::Error::other(format!("the path {} is not UTF-8", path.display()))
            })
        };
        let list = |paths: &[PathBuf]| -> io::Result<Option<String>> {
            let paths: Vec<String> = paths.iter().map(absolute).collect::<io::Result<_>>()?;
            Ok((!paths.is_empty()).then(|| paths.join(",")))
        };
        let proxy = |given: &Option<ProxyAddress>| given.as_ref().map(|given| given.0.clone());
        let flag = |set: bool| set.then(|| "true".to_owned());
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let variables = [
            (
                "CLAWLINK_AGENT_DIR",
                self.agent_dir.as_ref().map(absolute).transpose()?,
            ),
            ("CLAWLINK_AGENT_READ_ONLY", list(&self.agent_read_only)?),
            ("CLAWLINK_AGENT_READ_WRITE", list(&self.agent_read_write)?),
            ("CLAWLINK_ALLOW_UNCONFINED", flag(self.allow_unconfined)),
            (
                "CLAWLINK_ALLOW_PRIVATE_HOSTS",
                flag(self.allow_private_hosts),
            ),
            (
                "CLAWLINK_RATE_LIMIT_WAIT_SECONDS",
                self.rate_limit_wait_seconds
                    .map(|seconds| seconds.to_string()),
            ),
            ("HTTPS_PROXY", proxy(&self.https_proxy)),
            ("HTTP_PROXY", proxy(&self.http_proxy)),
            (
                "NO_PROXY",
                (!self.no_proxy.is_empty()).then(|| self.no_proxy.join(",")),
            ),
            ("CLAWLINK_PROXY_ALL", flag(self.proxy_all)),
            (
                "CLAWLINK_LABELS",
                (!labels.is_empty()).then(|| labels.join(",")),
            ),
        ];
        let set = variables.into_iter();
        Ok(set
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect())
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "must be NAME=VALUE".into())
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn read(arguments: &[String]) -> WorkerArgs {
        let command = WorkerArgs::augment_args(Command::new("worker"));
        // The process's own environment must not show through.
        let command = command.mut_args(|argument| argument.env(clap::builder::Resettable::Reset));
        let matches = command.get_matches_from(arguments);
        WorkerArgs::from_arg_matches(&matches).expect("arguments parse")
    }

    #[test]
    fn what_is_passed_on_is_read_as_the_same() {
        let words = "up --agent-dir /agents --agent-read-only /a,/b --agent-read-write /c \
             --allow-unconfined --allow-private-hosts --rate-limit-wait-seconds 60 --labels gpu=yes,zone=a \
             --https-proxy http://u:p@proxy:3128 --http-proxy proxy:3128 --no-proxy .a,10.0.0.0/8 --proxy-all";
        let given = read(
            &words
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
        let command = WorkerArgs::augment_args(Command::new("worker"));
        let flag_of = |name: &str| {
            let mut all = command.get_arguments();
            let found = all.find(|argument| argument.get_env().is_some_and(|env| env == name));
            found.and_then(clap::Arg::get_long).expect("a setting")
        };
        let mut passed_on = vec!["worker".to_owned()];
        for (name, value) in given.variables().expect("absolute paths") {
            let flag = flag_of(&name);
            passed_on.push(match value.as_str() {
                "true" => format!("--{flag}"),
                _ => format!("--{flag}={value}"),
            });
        }
        assert_eq!(passed_on.len() - 1, command.get_arguments().count(), "all");
        assert_eq!(read(&passed_on), given);
        assert_eq!(WorkerArgs::default().variables().expect("none"), []);
    }
}
