//! How often somebody may try to prove who they are: per account and per address.
//!
//! The buckets are those of every caller ([`crate::http::limit`]): shared in Redis, counted by
//! each replica alone while Redis is away, so that neither an outage lets guessing go on nor
//! locks everyone out. An account that does not exist has a bucket like any other.

use std::net::IpAddr;

use super::settings::SignInSettings;
use crate::bus::Bus;
use crate::error::ApiResult;
use crate::http::limit::Limiter;
use crate::secrets::hash_token;

/// Limits of attempts.
#[derive(Debug)]
pub struct Attempts {
    by_account: Limiter,
    by_address: Limiter,
}

impl Attempts {
    /// With these settings.
    pub fn new(settings: &SignInSettings) -> Self {
        Self {
            by_account: Limiter::new(settings.attempts_per_account),
            by_address: Limiter::new(settings.attempts_per_address),
        }
    }

    /// Counts an attempt from an address; 429 with the time to wait if there were too many.
    pub(crate) async fn of_address(&self, bus: &Bus, address: Option<IpAddr>) -> ApiResult<()> {
        let name = format!("sign-in:{}", network(address));
        self.by_address.admit(bus, &name).await?;
        Ok(())
    }

    /// The same for an account, by whatever names it.
    pub(super) async fn at_account(&self, bus: &Bus, account: &str) -> ApiResult<()> {
        // Hashed: addresses of people are nobody's business in Redis.
        let id = u128::from_be_bytes(
            hash_token(account)[..16]
                .try_into()
                .expect("16 of 32 bytes"),
        );
        self.by_account
            .admit(bus, &format!("account:{id:032x}"))
            .await?;
        Ok(())
    }
}

/// Who has a whole network of IPv6 addresses is one caller.
fn network(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("{:x}", address.to_bits() >> 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_addresses_is_one_caller() {
        let of = |text: &str| network(Some(text.parse().expect("an address")));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
