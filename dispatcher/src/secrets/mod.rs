//! Keys of the installation and what is sealed with them.
//!
//! One configured secret key; each purpose derives its own by HMAC-SHA-256 over a label, so
//! that a token can never be replayed as something else.

pub mod seal;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use clawlink_shared::id::{ClaimId, ExecutionId};
use clawlink_shared::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use rand::RngExt;
use sha2::{Digest, Sha256};

/// Derived keys; clones are cheap.
#[derive(Clone)]
pub struct Keys {
    seal: [u8; 32],
    lease: [u8; 32],
    idempotency: [u8; 32],
}

impl Keys {
    /// Derives all keys from the installation's secret key: 32 bytes in base64.
    pub fn derive(secret_key: &Secret) -> anyhow::Result<Self> {
        let master = BASE64_STANDARD
            .decode(secret_key.expose().trim())
            .ok()
            .context("CLAWLINK_SECRET_KEY is not base64")?;
        ensure!(
            master.len() == 32,
            "CLAWLINK_SECRET_KEY must be 32 bytes, encoded in base64"
        );
        let key = |label: &str| hmac(&master, &[label.as_bytes()]);
        Ok(Self {
            seal: key("seal"),
            lease: key("lease"),
            idempotency: key("idempotency"),
        })
    }

    /// The lease token of one claim. Derived, not stored: repeating the claim gives it again.
    pub fn lease_token(&self, execution: ExecutionId, claim: ClaimId) -> Secret {
        let mac = hmac(
            &self.lease,
            &[&execution.0.to_be_bytes(), claim.0.as_bytes()],
        );
        Secret::new(BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    /// A keyed fingerprint of a canonical request body.
    pub fn body_mac(&self, body: &[u8]) -> [u8; 32] {
        hmac(&self.idempotency, &[body])
    }
}

/// HMAC-SHA-256 over the parts, each preceded by its length.
fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// SHA-256, for tokens and keys that are random themselves.
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// 256 random bits as URL-safe text.
pub fn random_token() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
