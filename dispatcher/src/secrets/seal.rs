//! Sealing: XChaCha20-Poly1305 with a random nonce, bound to what the text belongs to.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::RngExt;

use super::Keys;

/// Bytes of the nonce that precedes the ciphertext.
const NONCE: usize = 24;

/// A sealed text cannot be opened: another key, another owner, or damage.
#[derive(Debug, thiserror::Error)]
#[error("sealed data cannot be opened with the configured secret key")]
pub struct SealBroken;

impl Keys {
    /// Seals `text` for `owner`; only the same owner opens it. Result: nonce, ciphertext.
    pub fn seal(&self, owner: &[u8], text: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = rand::rng().random();
        let sealed = self
            .cipher()
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: text,
                    aad: owner,
                },
            )
            .expect("texts are far below the cipher's limit of 256 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// Opens what [`Keys::seal`] made for the same owner.
    pub fn open(&self, owner: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealBroken> {
        let (nonce, text) = sealed.split_at_checked(NONCE).ok_or(SealBroken)?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| SealBroken)?;
        self.cipher()
            .decrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: text,
                    aad: owner,
                },
            )
            .map_err(|_| SealBroken)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.seal.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawlink_shared::secret::Secret;

    #[test]
    fn opens_for_its_owner_only() {
        let keys = Keys::derive(&Secret::new("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))
            .expect("a valid key");
        let sealed = keys.seal(b"me", b"text");
        assert_eq!(keys.open(b"me", &sealed).expect("opens"), b"text");
        assert!(keys.open(b"you", &sealed).is_err());
        assert!(keys.open(b"me", &sealed[..20]).is_err());
    }
}
