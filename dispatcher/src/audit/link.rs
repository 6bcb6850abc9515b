//! One link of the chain: a keyed hash over the link before it, the position and the entry.
//!
//! The key derives from the installation's secret key, so whoever can only write to Postgres
//! cannot compute links. The bytes of an entry must never change their meaning: an installation
//! would call its own past altered.

use crate::secrets::{Keys, hmac};

/// What a link is.
pub(super) type Hash = [u8; 32];

/// What the first link follows.
pub(super) const GENESIS: Hash = [0; 32];

/// An entry as it stands in Postgres.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) id: i64,
    /// Microseconds since 1970.
    pub(super) at_micros: i64,
    pub(super) workspace_id: Option<i64>,
    pub(super) actor: String,
    pub(super) address: Option<String>,
    pub(super) action: String,
    pub(super) resource_type: Option<String>,
    pub(super) resource_id: Option<String>,
    pub(super) outcome: String,
    /// As Postgres prints its `jsonb`: one form per value.
    pub(super) details: String,
}

impl Stored {
    /// Every field with its length, and whether it is there.
    fn bytes(&self) -> Vec<u8> {
        let (id, at) = (self.id.to_be_bytes(), self.at_micros.to_be_bytes());
        let workspace = self.workspace_id.map(i64::to_be_bytes);
        let fields = [
            Some(&id[..]),
            Some(&at[..]),
            workspace.as_ref().map(|bytes| &bytes[..]),
            Some(self.actor.as_bytes()),
            self.address.as_deref().map(str::as_bytes),
            Some(self.action.as_bytes()),
            self.resource_type.as_deref().map(str::as_bytes),
            self.resource_id.as_deref().map(str::as_bytes),
            Some(self.outcome.as_bytes()),
            Some(self.details.as_bytes()),
        ];
        let mut bytes = Vec::new();
        for field in fields {
            match field {
                None => bytes.push(0),
                Some(field) => {
                    bytes.push(1);
                    bytes.extend_from_slice(&(field.len() as u64).to_be_bytes());
                    bytes.extend_from_slice(field);
                }
            }
        }
        bytes
    }

    /// The link of this entry at a position.
    pub(super) fn link(&self, key: &ChainKey, before: &Hash, position: i64) -> Hash {
        hmac(&key.key, &[before, &position.to_be_bytes(), &self.bytes()])
    }
}

/// A key of links.
pub(super) struct ChainKey {
    key: [u8; 32],
    /// Tells keys apart without saying anything about them.
    pub(super) id: [u8; 8],
}

impl ChainKey {
    /// Of the secret keys that are accepted; new links are made with the first.
    pub(super) fn all(keys: &Keys) -> Vec<Self> {
        let of = |key: [u8; 32]| {
            let mac = hmac(&key, &[b"key id"]);
            let id = *mac.first_chunk().expect("a hash has 32 bytes");
            Self { key, id }
        };
        keys.of_purpose("audit").into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use clawlink_shared::secret::Secret;

    use super::*;

    #[test]
    fn every_field_the_position_and_the_past_matter() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let keys = Keys::derive(&Secret::new(key), None).expect("a key");
        let key = &ChainKey::all(&keys)[0];
        let entry = Stored {
            id: 1,
            at_micros: 2,
            workspace_id: None,
            actor: "user:a".to_owned(),
            address: None,
            action: "task.created".to_owned(),
            resource_type: Some("task".to_owned()),
            resource_id: Some("7".to_owned()),
            outcome: "allowed".to_owned(),
            details: "{}".to_owned(),
        };
        let changes: [fn(&mut Stored); 10] = [
            |entry| entry.id = 2,
            |entry| entry.at_micros = 3,
            |entry| entry.workspace_id = Some(0),
            |entry| entry.actor.push('b'),
            |entry| entry.address = Some(String::new()),
            |entry| entry.action.push('b'),
            |entry| entry.resource_type = None,
            |entry| entry.resource_id = None,
            |entry| entry.outcome.push('b'),
            |entry| entry.details.push(' '),
        ];
        let mut seen = vec![
            entry.link(key, &GENESIS, 1),
            entry.link(key, &GENESIS, 2),
            entry.link(key, &[1; 32], 1),
        ];
        for change in changes {
            let mut changed = entry.clone();
            change(&mut changed);
            seen.push(changed.link(key, &GENESIS, 1));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), changes.len() + 3);
    }
}
