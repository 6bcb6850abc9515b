//! Which addresses git may dial.
//!
//! A URL is checked as text, then every address that its host resolves to is checked, and the
//! checked addresses are the ones that are dialled: [`Checked`] is the client's resolver, so
//! there is no second look-up that could answer differently.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::proxy::Proxies;

/// A host resolved to an address that may not be dialled.
#[derive(Debug, thiserror::Error)]
#[error(
    "its address {0} is private or reserved; CLAWLINK_ALLOW_PRIVATE_HOSTS=true allows private hosts"
)]
pub(crate) struct RefusedAddress(pub(crate) IpAddr);

/// Reads a repository's URL: one that [`check`] allows, without query and fragment.
pub(super) fn parse(text: &str, allow_private_hosts: bool) -> Result<Url, Failure> {
    let Ok(url) = Url::parse(text) else {
        return refuse("the repository URL is not a URL; use https://HOST/PATH");
    };
    check(&url, allow_private_hosts)?;
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("the repository URL has a query or a fragment; use https://HOST/PATH");
    }
    Ok(url)
}

fn refuse<T>(why: &str) -> Result<T, Failure> {
    Err(Failure::new(ErrorCode::ValidationError, why))
}

/// Allows http(s) with a host, without credentials; https only, unless private hosts are
/// allowed.
pub(super) fn check(url: &Url, allow_private_hosts: bool) -> Result<(), Failure> {
    match fault(url, allow_private_hosts) {
        Some(fault) => refuse(&format!("the repository's address cannot be used: {fault}")),
        None => Ok(()),
    }
}

/// What is wrong with an address that somebody else chose, as far as its text says.
pub(crate) fn fault(url: &Url, allow_private_hosts: bool) -> Option<String> {
    let fault = match url.scheme() {
        "https" => None,
        "http" if allow_private_hosts => None,
        "http" => Some("use https instead of http, or set CLAWLINK_ALLOW_PRIVATE_HOSTS=true"),
        _ => Some("only http(s) is supported; use https://HOST/PATH"),
    };
    let credentials = !url.username().is_empty() || url.password().is_some();
    let fault = fault.or(credentials.then_some("it carries credentials; send them beside it"));
    if fault.is_some() {
        return fault.map(str::to_owned);
    }
    let Some(host) = url.host_str() else {
        return Some("it has no host; use https://HOST/PATH".to_owned());
    };
    let address = host.trim_matches(['[', ']']).parse().ok()?;
    (!may_dial(address, allow_private_hosts)).then(|| RefusedAddress(address).to_string())
}

/// Same scheme, host and port: what a token is bound to.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Resolves names and refuses those with any address that may not be dialled. Where the
/// operator's proxies are is the operator's choice.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) allow_private_hosts: bool,
    pub(crate) proxies: Proxies,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private_hosts = self.allow_private_hosts;
        let is_proxy = self.proxies.is_one(name.as_str());
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses = found.iter().map(SocketAddr::ip);
            match refused(addresses, allow_private_hosts).filter(|_| !is_proxy) {
                Some(refused) => Err(refused.into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

/// The first of a host's addresses that may not be dialled.
pub(crate) fn refused(
    mut addresses: impl Iterator<Item = IpAddr>,
    allow_private_hosts: bool,
) -> Option<RefusedAddress> {
    let refused = addresses.find(|address| !may_dial(*address, allow_private_hosts));
    refused.map(RefusedAddress)
}

fn may_dial(address: IpAddr, allow_private_hosts: bool) -> bool {
    is_public(address) || (allow_private_hosts && is_private(address))
}

/// Loopback and private networks; never link-local, where clouds keep their metadata.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || is_shared(v4),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// 100.64.0.0/10, shared by carriers and by some overlay networks.
fn is_shared(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    a == 100 && (64..128).contains(&b)
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(a == 0
        || a >= 224
        || v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_documentation()
        || is_shared(v4)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

/// Only global unicast (2000::/3), and of the ranges that carry an IPv4 address only those
/// whose inner address is public.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let s = v6.segments();
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        [0x2001, 0 | 0xdb8, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}
