//! What a request shows to prove its device: an Ed25519 signature over its method and target,
//! the time, a nonce and its body. Pure.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use axum::http::HeaderMap;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use clawlink_shared::id::DeviceId;
use sha2::{Digest, Sha256};

use crate::error::{ApiError, ApiResult};

/// Longest nonce, in bytes.
const MAX_NONCE: usize = 64;

/// The four headers of a proof.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) device: DeviceId,
    /// Seconds since 1970.
    pub(super) timestamp: i64,
    nonce: String,
    signature: Vec<u8>,
}

impl Proof {
    /// Reads it; `None` if the request names no device, 401 if the proof is not whole.
    pub(super) fn read(headers: &HeaderMap) -> ApiResult<Option<Self>> {
        if !headers.contains_key("x-device-id") {
            return Ok(None);
        }
        let text = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?.trim();
            (!value.is_empty()).then_some(value)
        };
        let read = || {
            let nonce = text("x-device-nonce").filter(|nonce| nonce.len() <= MAX_NONCE)?;
            Some(Self {
                device: text("x-device-id")?.parse().ok()?,
                timestamp: text("x-device-timestamp")?.parse().ok()?,
                nonce: nonce.to_owned(),
                signature: decode(text("x-device-signature")?)?,
            })
        };
        match read() {
            Some(proof) => Ok(Some(proof)),
            None => Err(ApiError::unauthorized(
                "X-Device-Id comes with X-Device-Timestamp, X-Device-Nonce and \
                 X-Device-Signature; API.md says how to sign",
            )),
        }
    }

    /// Whether the device signed this request. Without a body the older form is good enough.
    pub(super) fn holds(&self, public_key: &[u8], method: &str, target: &str, body: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public_key);
        let signed = |text: String| key.verify(text.as_bytes(), &self.signature).is_ok();
        signed(message(method, target, self.timestamp, &self.nonce, body))
            || (body.is_empty()
                && signed(older_message(method, target, self.timestamp, &self.nonce)))
    }

    /// A short name of what may be used once: the signed time and nonce of this device.
    pub(super) fn fingerprint(&self) -> String {
        let text = format!("{}\n{}\n{}", self.device, self.timestamp, self.nonce);
        BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..16])
    }
}

/// What a device signs; the body as its SHA-256 in hexadecimal.
pub fn message(method: &str, target: &str, timestamp: i64, nonce: &str, body: &[u8]) -> String {
    let hash: String = Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("clawlink-device-v2\n{method}\n{target}\n{timestamp}\n{nonce}\n{hash}")
}

/// What older devices sign, which says nothing of a body.
pub fn older_message(method: &str, target: &str, timestamp: i64, nonce: &str) -> String {
    format!("clawlink-device-v1\n{method}\n{target}\n{timestamp}\n{nonce}")
}

/// A public key of 32 bytes in base64, also URL-safe.
pub(super) fn public_key(text: &str) -> Option<[u8; 32]> {
    decode(text.trim())?.try_into().ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let plain = BASE64_STANDARD.decode(text);
    plain
        .or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')))
        .ok()
}
