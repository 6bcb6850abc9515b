//! The installation's keys: one configured secret key, or two while it is being replaced.
//!
//! Each purpose derives its own key by HMAC-SHA-256 over a label, so that a token can never be
//! replayed as something else. The current key makes; the old one is only accepted. Which of
//! them an operator names first does not matter to what exists: both open it.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use clawlink_shared::id::{ClaimId, ExecutionId};
use clawlink_shared::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::hash_token;

/// Bytes of a key's id.
pub(super) const KEY_ID: usize = 8;

/// Derived keys; clones are cheap.
#[derive(Clone)]
pub struct Keys {
    current: Derived,
    old: Vec<Derived>,
}

/// What follows from one secret key.
#[derive(Clone)]
pub(super) struct Derived {
    master: [u8; 32],
    /// Names it in front of what it sealed; says nothing about it.
    pub(super) id: [u8; KEY_ID],
    pub(super) seal: [u8; 32],
    lease: [u8; 32],
    idempotency: [u8; 32],
}

impl Keys {
    /// Derives all keys from the installation's secret key, 32 bytes in base64, and from the
    /// other one that is accepted while it is being replaced.
    pub fn derive(secret_key: &Secret, old: Option<&Secret>) -> anyhow::Result<Self> {
        let current = Derived::of(secret_key, "CLAWLINK_SECRET_KEY")?;
        let old = old
            .map(|old| Derived::of(old, "CLAWLINK_SECRET_KEY_OLD"))
            .transpose()?
            .filter(|old| old.master != current.master);
        Ok(Self {
            current,
            old: old.into_iter().collect(),
        })
    }

    /// The same that also accepts what keys of earlier times made; these are separated by
    /// commas. For looking back, not for serving.
    pub fn with_older(mut self, keys: &Secret) -> anyhow::Result<Self> {
        for key in keys
            .expose()
            .split(',')
            .filter(|key| !key.trim().is_empty())
        {
            let key = Derived::of(&Secret::new(key), "CLAWLINK_AUDIT_OLDER_KEYS")?;
            self.old.push(key);
        }
        Ok(self)
    }

    /// Whether a second key is accepted.
    pub fn is_being_replaced(&self) -> bool {
        !self.old.is_empty()
    }

    /// The keys of a purpose, the one to make new things with first.
    pub fn of_purpose(&self, label: &str) -> Vec<[u8; 32]> {
        let key = |derived: &Derived| hmac(&derived.master, &[label.as_bytes()]);
        self.all().map(key).collect()
    }

    /// The lease token of one claim. Derived, not stored: repeating the claim gives it again.
    pub fn lease_token(&self, execution: ExecutionId, claim: ClaimId) -> Secret {
        self.current.lease_token(execution, claim)
    }

    /// The same for a claim whose token was made earlier, perhaps with the other key: the one
    /// that has the stored hash.
    pub fn lease_token_with_hash(
        &self,
        execution: ExecutionId,
        claim: ClaimId,
        hash: &[u8],
    ) -> Option<Secret> {
        self.all()
            .map(|derived| derived.lease_token(execution, claim))
            .find(|token| hash_token(token.expose()) == hash)
    }

    /// Keyed fingerprints of a canonical request body; the first is the one to store.
    pub fn body_macs(&self, body: &[u8]) -> Vec<[u8; 32]> {
        let mac = |derived: &Derived| hmac(&derived.idempotency, &[body]);
        self.all().map(mac).collect()
    }

    pub(super) fn current(&self) -> &Derived {
        &self.current
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Derived> {
        std::iter::once(&self.current).chain(&self.old)
    }
}

impl Derived {
    fn of(secret_key: &Secret, setting: &str) -> anyhow::Result<Self> {
        let master = BASE64_STANDARD
            .decode(secret_key.expose().trim())
            .ok()
            .with_context(|| format!("{setting} is not base64"))?;
        let length = master.len();
        let master: [u8; 32] = master.try_into().unwrap_or_default();
        ensure!(
            length == 32,
            "{setting} must be 32 bytes, encoded in base64"
        );
        let key = |label: &str| hmac(&master, &[label.as_bytes()]);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&key("key id")[..KEY_ID]);
        Ok(Self {
            master,
            id,
            seal: key("seal"),
            lease: key("lease"),
            idempotency: key("idempotency"),
        })
    }

    fn lease_token(&self, execution: ExecutionId, claim: ClaimId) -> Secret {
        let mac = hmac(
            &self.lease,
            &[&execution.0.to_be_bytes(), claim.0.as_bytes()],
        );
        Secret::new(BASE64_URL_SAFE_NO_PAD.encode(mac))
    }
}

/// HMAC-SHA-256 over the parts, each preceded by its length.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_the_old_key_made_stays_good() {
        let [one, two] = [1u8, 2].map(|byte| Secret::new(BASE64_STANDARD.encode([byte; 32])));
        let before = Keys::derive(&one, None).expect("a valid key");
        let during = Keys::derive(&two, Some(&one)).expect("valid keys");
        let after = Keys::derive(&two, None).expect("a valid key");
        let (execution, claim) = (ExecutionId(7), ClaimId(Uuid::from_u128(9)));
        let token = before.lease_token(execution, claim);
        let hash = hash_token(token.expose());
        let again = during.lease_token_with_hash(execution, claim, &hash);
        assert_eq!(again.expect("known").expose(), token.expose());
        assert!(
            after
                .lease_token_with_hash(execution, claim, &hash)
                .is_none()
        );
        assert_eq!(during.body_macs(b"x")[1..], before.body_macs(b"x"));
        assert_eq!(during.of_purpose("p")[1..], before.of_purpose("p"));
        let same = Keys::derive(&one, Some(&one)).expect("valid keys");
        assert!(during.is_being_replaced() && !same.is_being_replaced());
    }

    #[test]
    fn a_bad_key_is_named_without_being_shown() {
        for bad in ["", "not base64!", "c2hvcnQ="] {
            let error = Keys::derive(&Secret::new(bad), None)
                .err()
                .expect("refused");
            let text = format!("{error:#}");
            assert!(text.starts_with("CLAWLINK_SECRET_KEY "), "{text}");
            assert!(bad.is_empty() || !text.contains(bad), "{text}");
        }
    }
}
