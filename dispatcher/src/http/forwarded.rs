//! Where a request came from when proxies stand in front.
//!
//! Only proxies that the operator names are believed: `X-Forwarded-For` is read from its end,
//! as far as each hop is one of them. Anybody else's header says nothing.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use clawlink_shared::network::Network;

use super::listen::Peer;
use crate::app::App;

/// Hops that are read of one request's header.
const MAX_HOPS: usize = 16;

/// Puts the client's own address in the place of a trusted proxy's.
pub async fn client_address(State(app): State<App>, mut request: Request, next: Next) -> Response {
    if let Some(Peer(peer)) = request.extensions().get().copied() {
        let client = client(peer, request.headers(), &app.tuning.trusted_proxies);
        request.extensions_mut().insert(Peer(client));
    }
    next.run(request).await
}

/// The last hop that is no trusted proxy.
fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut client = peer.to_canonical();
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    for hop in hops.take(MAX_HOPS) {
        if !is_trusted(client) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(address) => client = address.to_canonical(),
            Err(_) => break,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(peer: &str, header: &[&str], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in header {
            headers.append("x-forwarded-for", line.parse().expect("a header"));
        }
        let proxies: Vec<Network> = proxies
            .iter()
            .map(|network| network.parse().expect("a network"))
            .collect();
        client(peer.parse().expect("an address"), &headers, &proxies).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let proxies = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(of("192.0.2.1", &["198.51.100.7"], &proxies), "192.0.2.1");
        assert_eq!(of("10.1.2.3", &["198.51.100.7"], &proxies), "198.51.100.7");
        assert_eq!(of("fd00::1", &["198.51.100.7"], &proxies), "198.51.100.7");
        assert_eq!(
            of("::ffff:10.1.2.3", &["2001:db8::1"], &proxies),
            "2001:db8::1"
        );
        assert_eq!(of("10.1.2.3", &[], &proxies), "10.1.2.3");
        assert_eq!(of("10.1.2.3", &["198.51.100.7"], &[]), "10.1.2.3");
    }

    #[test]
    fn what_a_client_wrote_before_the_first_proxy_is_ignored() {
        let proxies = ["10.0.0.0/8"];
        let forged = "1.1.1.1, 198.51.100.7, 10.9.9.9";
        assert_eq!(of("10.1.2.3", &[forged], &proxies), "198.51.100.7");
        let lines = ["1.1.1.1", "198.51.100.7", "10.9.9.9"];
        assert_eq!(of("10.1.2.3", &lines, &proxies), "198.51.100.7");
        assert_eq!(
            of("10.1.2.3", &["198.51.100.7, junk"], &proxies),
            "10.1.2.3"
        );
    }

    #[test]
    fn networks_are_checked() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "192.0.2.1",
            "2001:db8::/32",
        ] {
            assert!(good.parse::<Network>().is_ok(), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(all.contains("203.0.113.9".parse().expect("an address")));
    }
}
