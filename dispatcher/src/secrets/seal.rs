//! Sealing: XChaCha20-Poly1305 with a random nonce, bound to what the text belongs to.
//!
//! In front stands the id of the key, so that what an old key sealed is found and sealed again.
//! Texts of the release before this one have none; each key is tried on them.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use rand::RngExt;

use super::keys::{Derived, KEY_ID, Keys};

/// Bytes of the nonce that precedes the ciphertext.
const NONCE: usize = 24;

/// A sealed text cannot be opened: another key, another owner, or damage.
#[derive(Debug, thiserror::Error)]
#[error("sealed data cannot be opened with the configured secret key")]
pub struct SealBroken;

impl Keys {
    /// Seals `text` for `owner`; only the same owner opens it. Result: key id, nonce, ciphertext.
    pub fn seal(&self, owner: &[u8], text: &[u8]) -> Vec<u8> {
        let key = self.current();
        [&key.id[..], &key.encrypt(owner, text)].concat()
    }

    /// The same without the key's id: what the release before this one can open too. For what
    /// its replicas may be given while both run.
    pub fn seal_without_id(&self, owner: &[u8], text: &[u8]) -> Vec<u8> {
        self.current().encrypt(owner, text)
    }

    /// Opens what [`Keys::seal`] or [`Keys::seal_without_id`] made for the same owner.
    pub fn open(&self, owner: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealBroken> {
        let named = self.all().find(|key| sealed.starts_with(&key.id));
        named
            .and_then(|key| key.decrypt(owner, &sealed[KEY_ID..]))
            .or_else(|| self.all().find_map(|key| key.decrypt(owner, sealed)))
            .ok_or(SealBroken)
    }

    /// Whether the current key sealed this.
    pub(super) fn is_by_current(&self, owner: &[u8], sealed: &[u8]) -> bool {
        let key = self.current();
        let named = sealed.strip_prefix(&key.id);
        let opened = named.and_then(|sealed| key.decrypt(owner, sealed));
        opened.or_else(|| key.decrypt(owner, sealed)).is_some()
    }

    /// What everything sealed from now on begins with.
    pub fn current_id(&self) -> &[u8] {
        &self.current().id
    }
}

impl Derived {
    fn encrypt(&self, owner: &[u8], text: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = rand::rng().random();
        let payload = Payload {
            msg: text,
            aad: owner,
        };
        let sealed = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .expect("texts are far below the cipher's limit of 256 GiB");
        [&nonce[..], &sealed].concat()
    }

    fn decrypt(&self, owner: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE>()?;
        let payload = Payload {
            msg: text,
            aad: owner,
        };
        self.cipher().decrypt(&XNonce::from(*nonce), payload).ok()
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.seal.into())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use clawlink_shared::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    fn keys(current: u8, old: Option<u8>) -> Keys {
        let secret = |byte: u8| Secret::new(BASE64_STANDARD.encode([byte; 32]));
        Keys::derive(&secret(current), old.map(secret).as_ref()).expect("valid keys")
    }

    #[test]
    fn opens_for_its_owner_only() {
        let keys = keys(1, None);
        let sealed = keys.seal(b"me", b"text");
        assert!(sealed.starts_with(keys.current_id()));
        assert_eq!(keys.open(b"me", &sealed).expect("opens"), b"text");
        assert!(keys.open(b"you", &sealed).is_err());
        assert!(keys.open(b"me", &sealed[..20]).is_err());
    }

    proptest! {
        #[test]
        fn both_keys_open_and_no_third(
            owner: Vec<u8>, text: Vec<u8>, has_id: bool, flip in any::<prop::sample::Index>(),
        ) {
            let before = keys(1, None);
            let sealed = match has_id {
                true => before.seal(&owner, &text),
                false => before.seal_without_id(&owner, &text),
            };
            for accepted in [before, keys(1, Some(2)), keys(2, Some(1))] {
                let opened = accepted.open(&owner, &sealed);
                prop_assert_eq!(opened.expect("opens"), text.as_slice());
            }
            prop_assert!(keys(2, Some(3)).open(&owner, &sealed).is_err());
            let mut other = owner.clone();
            other.push(0);
            prop_assert!(keys(1, None).open(&other, &sealed).is_err());
            let mut damaged = sealed.clone();
            let place = flip.index(damaged.len());
            damaged[place] ^= 1;
            // A damaged id is no damage to the text: the other forms are tried, and fail.
            prop_assert!(keys(2, Some(1)).open(&owner, &damaged).is_err());
        }
    }
}
