//! Known secrets become `***` in everything that leaves the worker: events, results, error
//! messages, commit messages.
//!
//! A secret is looked for in its plain form and in the encodings that programs commonly print
//! it in ([`forms`]). Matching is on decoded text, so no JSON escape spelling hides one
//! ([`json`]), and across the pieces of one text stream ([`stream`]). Text without a secret is
//! never changed. What must never happen: a secret of eight bytes or more leaves in one piece.

mod forms;
pub(crate) mod json;
mod sieve;
mod stream;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, Anchored, Input, StartKind};
use clawlink_shared::secret::Secret;
use serde_json::value::RawValue;

use self::sieve::Sieve;

pub use stream::DeltaStream;

/// Shorter values are not looked for: they would blank ordinary words.
pub const MIN_SECRET_BYTES: usize = 8;

/// What stands where a secret was.
pub const MASK: &str = "***";

/// Parts of a variable's name that promise a secret.
const SECRET_NAMES: [&str; 5] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL"];

/// Values of variables that look like tokens are secrets from this length on, whatever the name
/// says.
const MIN_UNNAMED_BYTES: usize = 16;

/// What is looked for of a request's environment: values whose variable's name promises a secret,
/// in any case of letters, every value that looks like a token, and of an address the password in
/// it. Words, addresses and paths of an ordinary name are none: masking `production` or a URL
/// would only blank ordinary text, and stop pushes that hold it.
pub fn secrets_of(env: &BTreeMap<String, Secret>) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for (name, value) in env {
        let name = name.to_ascii_uppercase();
        let text = value.expose();
        if looks_like_a_token(text) || SECRET_NAMES.iter().any(|part| name.contains(part)) {
            secrets.push(value.clone());
        }
        secrets.extend(secrets_in_address(text).map(Secret::new));
    }
    secrets
}

/// The password of `scheme://user:password@host/…`, and a user that looks like a token.
fn secrets_in_address(text: &str) -> impl Iterator<Item = &str> {
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let authority = authority.and_then(|rest| rest.split(['/', '?', '#']).next());
    let user = authority.and_then(|authority| authority.rsplit_once('@'));
    let (user, password) = match user.map(|(user, _)| user.split_once(':').ok_or(user)) {
        Some(Ok((user, password))) => (Some(user), Some(password)),
        Some(Err(user)) => (Some(user), None),
        None => (None, None),
    };
    let token = user.filter(|user| looks_like_a_token(user));
    password.into_iter().chain(token)
}

/// Long, of letters and digits mixed, without what separates words or parts of an address.
fn looks_like_a_token(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+=".contains(&byte);
    value.len() >= MIN_UNNAMED_BYTES
        && value.bytes().all(allowed)
        && value.bytes().any(|byte| byte.is_ascii_digit())
        && value.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Finds secrets; clones share what they know.
#[derive(Debug, Clone)]
pub struct Redactor {
    known: Arc<RwLock<Known>>,
}

/// The secrets' forms, and the automaton that finds them.
struct Known {
    /// Sorted, without duplicates.
    forms: Vec<Vec<u8>>,
    finder: AhoCorasick,
    sieve: Sieve,
}

impl Redactor {
    /// Looks for these values, and for each string inside one that is a JSON document.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut all = Vec::new();
        for secret in secrets {
            forms::of_secret(secret.expose(), &mut all);
        }
        Self {
            known: Arc::new(RwLock::new(Known::new(all))),
        }
    }

    /// Also looks for this one from now on, such as a token that an agent refreshed.
    pub fn learn(&self, secret: &Secret) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut known.forms);
        forms::of_secret(secret.expose(), &mut all);
        *known = Known::new(all);
    }

    /// The text with every secret masked; borrowed when there is none.
    pub fn redact_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let hits = self.hits(text.as_bytes());
        if hits.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = String::with_capacity(text.len());
        let mut at = 0;
        for hit in hits {
            // A form is whole UTF-8 text, so its edges are character boundaries.
            clean.push_str(&text[at..hit.start]);
            clean.push_str(MASK);
            at = hit.end;
        }
        clean.push_str(&text[at..]);
        Cow::Owned(clean)
    }

    /// The document with every secret masked inside its strings; all other bytes stay.
    pub fn redact_json<'a>(&self, document: &'a RawValue) -> Cow<'a, RawValue> {
        match json::redact(document.get(), |text| self.hits(text)) {
            None => Cow::Borrowed(document),
            Some(clean) => Cow::Owned(
                RawValue::from_string(clean).expect("masking a string leaves JSON valid"),
            ),
        }
    }

    /// Whether the bytes hold a secret.
    pub fn is_hit(&self, bytes: &[u8]) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.is_hit(bytes)
    }

    /// Where secrets are, in order, merged where they overlap or touch.
    pub fn hits(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if !known.is_hit(bytes) {
            return Vec::new();
        }
        let mut found: Vec<_> = known
            .finder
            .find_overlapping_iter(bytes)
            .map(|hit| hit.range())
            .collect();
        found.sort_unstable_by_key(|hit| hit.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for hit in found {
            match merged.last_mut() {
                Some(last) if hit.start <= last.end => last.end = last.end.max(hit.end),
                _ => merged.push(hit),
            }
        }
        merged
    }

    /// Length of the longest secret form in bytes; 0 when nothing is looked for.
    pub fn longest(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.forms.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Length of the longest suffix that may be the beginning of a secret.
    pub(crate) fn unfinished(&self, bytes: &[u8]) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let longest = known.forms.iter().map(Vec::len).max().unwrap_or(0);
        let from = bytes.len().saturating_sub(longest.saturating_sub(1));
        (from..bytes.len())
            .find(|&start| known.begins(&bytes[start..]))
            .map_or(0, |start| bytes.len() - start)
    }
}

impl Known {
    fn new(mut forms: Vec<Vec<u8>>) -> Self {
        forms.sort_unstable();
        forms.dedup();
        let finder = AhoCorasick::builder()
            .start_kind(StartKind::Both)
            .build(&forms)
            .expect("the forms of a few secrets stay far below the automaton's limit");
        let sieve = Sieve::new(&forms);
        Self {
            forms,
            finder,
            sieve,
        }
    }

    /// Whether the bytes hold a form.
    fn is_hit(&self, bytes: &[u8]) -> bool {
        let mut from = 0;
        while let Some(at) = self.sieve.candidate(bytes, from) {
            let here = Input::new(bytes).span(at..bytes.len());
            if self.finder.is_match(here.anchored(Anchored::Yes)) {
                return true;
            }
            from = at + 1;
        }
        false
    }

    /// Whether a form begins with these bytes and goes on.
    fn begins(&self, start: &[u8]) -> bool {
        let next = self.forms.partition_point(|form| form.as_slice() <= start);
        self.forms
            .get(next)
            .is_some_and(|form| form.starts_with(start))
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} forms", self.forms.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_secrets_by_name_or_by_length() {
        let env = [
            ("DEPLOY_KEY", "by-name1"),
            ("npm_Token", "by-name2"),
            ("PGPASSWORD", "by-name3"),
            ("COLOUR", "0123456789abcdef"),
            ("NODE_ENV", "production"),
            ("PLAIN", "0123456789abcde"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), Secret::new(value)));
        let env = BTreeMap::from(env);
        let secrets = secrets_of(&env);
        let secrets: Vec<&str> = secrets.iter().map(Secret::expose).collect();
        assert_eq!(
            secrets,
            ["0123456789abcdef", "by-name1", "by-name3", "by-name2"]
        );
    }

    #[test]
    fn of_an_address_only_its_password_is_a_secret() {
        let cases: [(&str, &[&str]); 6] = [
            ("postgres://app:hunter2hunter2@db/app", &["hunter2hunter2"]),
            ("https://u:p:w@host?x=a@b", &["p:w"]),
            ("https://0123456789abcdef@host/x", &["0123456789abcdef"]),
            ("https://oauth2@host/x", &[]),
            ("https://host/a:b@c", &[]),
            ("hunter2:hunter2@host", &[]),
        ];
        for (address, expected) in cases {
            let env = [("DATABASE_URL".to_owned(), Secret::new(address))];
            let found = secrets_of(&BTreeMap::from(env));
            let found: Vec<&str> = found.iter().map(Secret::expose).collect();
            assert_eq!(found, expected, "{address}");
        }
    }
}
