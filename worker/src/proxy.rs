//! The operator's proxies: by which of them a host is reached.
//!
//! They are settings of the worker and come from nowhere else: no variable, configuration or
//! answer of an agent, a repository or a host can name one. Git hosts and agents that are
//! addresses are reached through them, and agents find them in their environment, where they may
//! do with them what they like. Dispatchers and the object storage are reached directly unless
//! the operator says otherwise; this machine always is.
//!
//! A proxy may be on a private address: the operator chose it. What it is asked for may not,
//! see [`refused`].

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clawlink_shared::network::Network;
use clawlink_shared::secret::Secret;
use clawlink_shared::worker_args::{ProxyAddress, WorkerArgs};
use reqwest::{ClientBuilder, Proxy, Url};

use crate::workspace::git::address;

/// How long our own look-up of a name may take that a proxy will look up anyway.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);

/// Most hosts that are remembered as checked.
const MAX_CHECKED: usize = 64;

/// What agents are told about this machine.
const THIS_MACHINE: &str = "localhost,127.0.0.1,::1";

/// Ends of names that only private networks know.
const PRIVATE_NAMES: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// Which proxies there are; clones share what they know. Without any, everything is direct.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Chosen>>);

struct Chosen {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Direct>,
    /// As it was given.
    no_proxy: String,
    for_own: bool,
    passwords: Vec<Secret>,
    /// Hosts that [`refused`] has let pass.
    checked: Mutex<HashSet<String>>,
}

/// What is reached without a proxy.
enum Direct {
    Everything,
    Network(Network),
    /// A name and all below it; at one port, if there is one.
    Name(String, Option<u16>),
}

/// Addresses may hold passwords.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match &self.0 {
            Some(_) => "proxies",
            None => "no proxy",
        };
        f.write_str(words)
    }
}

impl Proxies {
    /// Takes them from the settings.
    ///
    /// # Errors
    ///
    /// When a proxy is not given as `http(s)://HOST:PORT`; what was given is not repeated.
    pub fn read(args: &WorkerArgs) -> Result<Self> {
        let http = args.http_proxy.as_ref().map(parse).transpose();
        let http = http.context("read HTTP_PROXY")?;
        let https = args.https_proxy.as_ref().map(parse).transpose();
        let https = https.context("read HTTPS_PROXY")?;
        if http.is_none() && https.is_none() {
            return Ok(Self::default());
        }
        let passwords = [&http, &https].into_iter().flatten();
        let passwords = passwords.filter_map(Url::password).map(Secret::new);
        Ok(Self(Some(Arc::new(Chosen {
            passwords: passwords.collect(),
            direct: args
                .no_proxy
                .iter()
                .filter_map(|text| direct(text))
                .collect(),
            no_proxy: args.no_proxy.join(","),
            for_own: args.proxy_all,
            checked: Mutex::default(),
            http,
            https,
        }))))
    }

    /// Those by which dispatchers and the object storage are reached.
    pub fn for_own(&self) -> Self {
        let chosen = self.0.as_ref().filter(|chosen| chosen.for_own);
        Self(chosen.cloned())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The proxy by which `target` is reached; absent: directly.
    pub(crate) fn of(&self, target: &Url) -> Option<&Url> {
        let chosen = self.0.as_ref()?;
        let proxy = match target.scheme() {
            "https" => chosen.https.as_ref()?,
            _ => chosen.http.as_ref()?,
        };
        let host = bare(target.host_str()?);
        let is_direct = match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        let port = target.port_or_known_default();
        let is_direct = is_direct || chosen.direct.iter().any(|direct| direct.holds(&host, port));
        (!is_direct).then_some(proxy)
    }

    /// Lets a client use them, and no others.
    pub(crate) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        if self.is_empty() {
            return builder.no_proxy();
        }
        let proxies = self.clone();
        builder.proxy(Proxy::custom(move |target| proxies.of(target).cloned()))
    }

    /// Whether a name is that of a proxy, whose address nobody has to allow.
    pub(crate) fn is_one(&self, name: &str) -> bool {
        let chosen = self.0.as_ref();
        let all = chosen
            .into_iter()
            .flat_map(|chosen| [&chosen.http, &chosen.https]);
        all.flatten()
            .filter_map(Url::host_str)
            .any(|host| host.eq_ignore_ascii_case(name))
    }

    /// Passwords of the proxies, as their addresses spell them.
    pub(crate) fn passwords(&self) -> &[Secret] {
        self.0.as_ref().map_or(&[], |chosen| &chosen.passwords)
    }

    /// What agents find in their environment, in both spellings.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let Some(chosen) = &self.0 else {
            return Vec::new();
        };
        let no_proxy = match chosen.no_proxy.as_str() {
            "" => THIS_MACHINE.to_owned(),
            given => format!("{given},{THIS_MACHINE}"),
        };
        let proxy = |proxy: &Option<Url>| proxy.as_ref().map(|url| url.as_str().to_owned());
        let all = [
            ("HTTPS_PROXY", proxy(&chosen.https)),
            ("HTTP_PROXY", proxy(&chosen.http)),
            ("NO_PROXY", Some(no_proxy)),
        ];
        let set = all
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        set.flat_map(|(name, value)| {
            [
                (name.to_owned(), value.clone()),
                (name.to_lowercase(), value),
            ]
        })
        .collect()
    }

    fn checked(&self, host: &str) -> bool {
        let is_known = |chosen: &Arc<Chosen>| {
            let checked = chosen.checked.lock();
            checked
                .unwrap_or_else(PoisonError::into_inner)
                .contains(host)
        };
        self.0.as_ref().is_some_and(is_known)
    }

    fn remember(&self, host: &str) {
        if let Some(chosen) = &self.0 {
            let mut checked = chosen
                .checked
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if checked.len() < MAX_CHECKED {
                checked.insert(host.to_owned());
            }
        }
    }
}

/// Why a host must not be asked for that a proxy would dial for us, if it must not.
///
/// Whoever dials looks the name up, so ours is a second opinion: a name that leads to a private
/// address here is refused. One that we cannot look up, as is usual behind a proxy, is the proxy's
/// to judge, unless it is a name that only private networks have. Hosts that we dial ourselves
/// are checked when that happens; addresses are checked as text.
pub(crate) async fn refused(
    proxies: &Proxies,
    target: &Url,
    allow_private_hosts: bool,
) -> Option<String> {
    let host = target.host_str()?;
    let is_name = bare(host).parse::<IpAddr>().is_err();
    // The proxy's own name is exempt from the check at dialling, so it is checked here.
    let is_ours = proxies.of(target).is_some() || proxies.is_one(host);
    if !is_name || !is_ours || proxies.checked(host) {
        return None;
    }
    let found = tokio::net::lookup_host((host, 0));
    let refused = match tokio::time::timeout(LOOKUP_PATIENCE, found).await {
        Ok(Ok(found)) => address::refused(found.map(|found| found.ip()), allow_private_hosts)
            .map(|refused| refused.to_string()),
        _ if !allow_private_hosts && is_private_name(host) => Some(
            "its name is one of private networks; CLAWLINK_ALLOW_PRIVATE_HOSTS=true allows private hosts"
                .to_owned(),
        ),
        _ => None,
    };
    if refused.is_none() {
        proxies.remember(host);
    }
    refused
}

fn is_private_name(host: &str) -> bool {
    let host = bare(host);
    !host.contains('.') || PRIVATE_NAMES.iter().any(|end| host.ends_with(end))
}

/// A host without what only marks it as one.
fn bare(host: &str) -> String {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    host.to_ascii_lowercase()
}

fn parse(given: &ProxyAddress) -> Result<Url> {
    let text = given.expose();
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    // The error of the parser could repeat what was given.
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => bail!("a proxy is given as http://HOST:PORT or https://HOST:PORT"),
    }
}

fn direct(text: &str) -> Option<Direct> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if text == "*" {
        return Some(Direct::Everything);
    }
    if let Ok(network) = text.trim_matches(['[', ']']).parse() {
        return Some(Direct::Network(network));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (text, None),
    };
    if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(Direct::Name(address.to_string(), port));
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    Some(Direct::Name(bare(name.trim_start_matches('.')), port))
}

impl Direct {
    fn holds(&self, host: &str, port: Option<u16>) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(network) => host.parse().is_ok_and(|address| network.contains(address)),
            Self::Name(name, at) => {
                let is_below = || {
                    let above = host.strip_suffix(name.as_str());
                    above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
                };
                at.is_none_or(|at| Some(at) == port) && is_below()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(http: &str, https: &str, no_proxy: &str) -> Proxies {
        let given =
            |text: &str| (!text.is_empty()).then(|| text.parse().expect("anything is taken"));
        let args = WorkerArgs {
            http_proxy: given(http),
            https_proxy: given(https),
            no_proxy: no_proxy.split(',').map(str::to_owned).collect(),
            ..WorkerArgs::default()
        };
        Proxies::read(&args).expect("proxies")
    }

    fn way(proxies: &Proxies, target: &str) -> String {
        let target = Url::parse(target).expect("a URL");
        proxies.of(&target).map_or("direct".into(), |proxy| {
            proxy.host_str().unwrap_or("?").to_owned()
        })
    }

    #[test]
    fn each_scheme_has_its_proxy_and_this_machine_has_none() {
        let both = proxies("plain:3128", "http://user:word@secure:3128", "");
        assert_eq!(way(&both, "http://example.com/a"), "plain");
        assert_eq!(way(&both, "https://example.com/a"), "secure");
        for here in [
            "http://localhost:1",
            "https://a.localhost",
            "http://127.0.0.9",
            "https://[::1]:2",
        ] {
            assert_eq!(way(&both, here), "direct", "{here}");
        }
        assert_eq!(
            way(&proxies("plain", "", ""), "https://example.com"),
            "direct"
        );
        assert_eq!(format!("{both:?}"), "proxies", "a password is not printed");
        assert_eq!(both.passwords().len(), 1);
    }

    #[test]
    fn what_no_proxy_names_is_direct() {
        let list =
            "example.com, .inner.org,*.star.org,10.0.0.0/8,192.0.2.7,port.org:8443,[2001:db8::1],";
        let some = proxies("proxy", "proxy", list);
        for direct in [
            "https://example.com",
            "https://a.EXAMPLE.com.",
            "https://inner.org",
            "https://a.inner.org",
            "https://a.star.org",
            "http://10.9.9.9:81",
            "https://192.0.2.7",
            "https://port.org:8443",
            "https://[2001:db8::1]/a",
        ] {
            assert_eq!(way(&some, direct), "direct", "{direct}");
        }
        for through in [
            "https://notexample.com",
            "https://example.com.evil.org",
            "http://11.0.0.1",
            "https://192.0.2.8",
            "https://port.org",
            "https://[2001:db8::2]/a",
        ] {
            assert_eq!(way(&some, through), "proxy", "{through}");
        }
        assert_eq!(
            way(&proxies("proxy", "proxy", "*"), "https://example.com"),
            "direct"
        );
    }

    #[test]
    fn a_proxy_that_is_none_is_refused_without_repeating_it() {
        for wrong in [
            "socks5://user:hidden@proxy:1080",
            "http://",
            "http://user:hidden@:x",
        ] {
            let args = WorkerArgs {
                https_proxy: Some(wrong.parse().expect("anything is taken")),
                ..WorkerArgs::default()
            };
            let error = format!("{:#}", Proxies::read(&args).expect_err("refused"));
            assert!(error.contains("HTTPS_PROXY"), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn agents_find_them_in_both_spellings() {
        let variables = proxies("", "http://proxy:3128", "example.com").variables();
        let of = |name: &str| {
            variables
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(of("https_proxy"), Some("http://proxy:3128/"));
        assert_eq!(of("HTTPS_PROXY"), of("https_proxy"));
        assert_eq!(of("no_proxy"), Some("example.com,localhost,127.0.0.1,::1"));
        assert_eq!(of("HTTP_PROXY"), None);
    }

    #[tokio::test]
    async fn names_that_lead_to_private_places_are_refused_before_the_proxy_is_asked() {
        let some = proxies("", "http://proxy.example:3128", "");
        let ask = async |url: &str, allowed| {
            let url = Url::parse(url).expect("a URL");
            refused(&some, &url, allowed).await.is_some()
        };
        assert!(ask("https://metadata.internal/a", false).await);
        assert!(ask("https://intranet/a", false).await);
        assert!(!ask("https://intranet/a", true).await);
        // What the name server does not know is the proxy's to judge.
        assert!(!ask("https://git.example.invalid/a", false).await);
        let direct = Proxies::default();
        let url = Url::parse("https://intranet/a").expect("a URL");
        assert!(
            refused(&direct, &url, false).await.is_none(),
            "checked when it is dialled"
        );
    }
}
