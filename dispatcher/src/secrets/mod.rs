//! Keys of the installation and what is sealed with them.

mod keys;
mod seal;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngExt;
use sha2::{Digest, Sha256};

pub use keys::Keys;
pub use seal::SealBroken;

/// SHA-256, for tokens and keys that are random themselves.
pub fn hash_token(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// 256 random bits as URL-safe text.
pub fn random_token() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
