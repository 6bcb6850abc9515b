//! Verifying: reads the chain from its start and says where it was first tampered with.
//!
//! It finds entries that were altered, removed, put in or moved. What no chain can show by
//! itself is that its end was cut off, links and entries together: for that an operator keeps
//! an [`Anchor`] elsewhere.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sqlx::{Connection, PgConnection};

use super::link::{ChainKey, GENESIS, Hash};
use super::store::chain::{self, Link};
use crate::secrets::Keys;

/// Links read at a time.
const PAGE: i64 = 1000;

/// How long the chain was at some time, and its last link then. Written `42:n4bQgYhM…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Links up to and with this one.
    pub count: i64,
    /// The last of them.
    pub hash: [u8; 32],
}

/// What a sound chain is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Its end, to be kept elsewhere.
    pub anchor: Anchor,
    /// Entries that were written lately and wait for their link.
    pub waiting: i64,
}

/// Where and how the log was first tampered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The first bad position, from 1.
    pub position: i64,
    /// For people.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {}: {}", self.position, self.what)
    }
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.count,
            BASE64_URL_SAFE_NO_PAD.encode(self.hash)
        )
    }
}

impl FromStr for Anchor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = text.trim().split_once(':').and_then(|(count, hash)| {
            let hash = BASE64_URL_SAFE_NO_PAD.decode(hash).ok()?;
            Some(Self {
                count: count.parse().ok().filter(|count| *count >= 0)?,
                hash: hash.try_into().ok()?,
            })
        });
        read.ok_or_else(|| {
            format!("{text:?} is not an anchor as `clawlink audit verify` prints it")
        })
    }
}

/// Reads the whole chain as of one moment. The outer error is one of Postgres.
pub async fn verify(
    db: &mut PgConnection,
    keys: &Keys,
    expected: Option<Anchor>,
) -> anyhow::Result<Result<Report, Fault>> {
    let mut tx = db.begin().await?;
    chain::freeze(&mut tx).await?;
    // One before the chain's end that is not in it.
    let outsider = chain::outsider(&mut tx).await?.map(|found| Fault {
        position: found.position,
        what: format!("entry {} was put in before this one", found.entry_id),
    });
    let mut walk = Walk {
        anchor: Anchor {
            count: 0,
            hash: GENESIS,
        },
        keys: ChainKey::all(keys),
        expected,
    };
    loop {
        let links = chain::links(&mut tx, walk.anchor.count, PAGE).await?;
        if links.is_empty() {
            break;
        }
        for link in &links {
            let fault = walk.step(link).err();
            let reached = outsider.clone().filter(|it| it.position <= link.position);
            let first = reached
                .into_iter()
                .chain(fault)
                .min_by_key(|it| it.position);
            if let Some(fault) = first {
                return Ok(Err(fault));
            }
        }
    }
    if let Err(fault) = walk.end() {
        return Ok(Err(fault));
    }
    Ok(Ok(Report {
        anchor: walk.anchor,
        waiting: chain::unchained(&mut tx).await?,
    }))
}

/// How far we are.
struct Walk {
    anchor: Anchor,
    keys: Vec<ChainKey>,
    expected: Option<Anchor>,
}

impl Walk {
    fn step(&mut self, link: &Link) -> Result<(), Fault> {
        let position = self.anchor.count + 1;
        let fault = |what: String| Err(Fault { position, what });
        if link.position != position {
            return fault("the link was removed".to_owned());
        }
        let Some(entry) = &link.entry else {
            return fault(format!("entry {} was removed", link.entry_id));
        };
        let Some(key) = self.keys.iter().find(|key| key.id[..] == link.key_id) else {
            let what = "it was chained with another secret key; list that one in CLAWLINK_AUDIT_OLDER_KEYS";
            return fault(what.to_owned());
        };
        let hash: Hash = entry.link(key, &self.anchor.hash, position);
        if hash != link.hash {
            return fault(format!("entry {} was altered or moved", link.entry_id));
        }
        self.anchor = Anchor {
            count: position,
            hash,
        };
        match self.expected {
            Some(expected) if expected.count == position && expected.hash != hash => {
                fault("the chain is not the one that the anchor was taken from".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether the chain is as long as it once was.
    fn end(&self) -> Result<(), Fault> {
        match self.expected {
            Some(expected) if expected.count > self.anchor.count => Err(Fault {
                position: self.anchor.count + 1,
                what: format!("the chain ends here; it once had {} links", expected.count),
            }),
            _ => Ok(()),
        }
    }
}
