//! Names in normal form, so that another spelling of a thing cannot slip past its policy, and
//! patterns on them.

use clawlink_shared::agent::AgentKind;
use reqwest::Url;

/// Whether `name` has this form; `*` stands for any run of characters, also an empty one.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// An agent: the kind that a spelling stands for, else lower case.
pub(super) fn agent(name: &str) -> String {
    match AgentKind::from_spelling(name) {
        Some(kind) => kind.as_str().to_owned(),
        None => name.to_lowercase(),
    }
}

/// A repository's URL or a pattern of some: `github.com/owner/name`. The scheme, the case,
/// escapes, doubled and final slashes, a final dot of the host and `.git` do not matter.
pub(super) fn repository(text: &str) -> String {
    let with_scheme = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    // A pattern whose host has a `*` is no URL; it is taken as it stands.
    let plain = match Url::parse(&with_scheme) {
        Ok(url) => {
            let host = url.host_str().unwrap_or_default().trim_end_matches('.');
            let port = url.port().map_or(String::new(), |port| format!(":{port}"));
            format!("{host}{port}{}", unescaped(url.path()))
        }
        Err(_) => {
            let (_, plain) = with_scheme.split_once("://").unwrap_or_default();
            plain.to_owned()
        }
    };
    let parts: Vec<&str> = plain.split('/').filter(|part| !part.is_empty()).collect();
    let name = parts.join("/").to_lowercase();
    name.strip_suffix(".git").unwrap_or(&name).to_owned()
}

/// The text with `%xx` read; what is none stays.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "a/b"),
            ("a", "a"),
            ("a*", "a"),
            ("a*c", "abbc"),
            ("*b*", "abc"),
            ("a*b*c", "axbxbxc"),
            ("a*a", "aa"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("a", "ab"),
            ("a*a", "a"),
            ("a*b", "ba"),
            ("*x", "xa"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn spellings_of_one_repository_are_one_name() {
        for url in [
            "https://github.com/Acme/Secret",
            "http://GITHUB.com/acme/secret.git",
            "https://github.com:443/acme//secret/",
            "https://github.com./acme/secret.GIT",
            "https://github.com/acme/%73ecret",
            "https://github.com/acme/x/../secret",
            "https://github.com/acme%2Fsecret",
            "github.com/acme/secret",
        ] {
            assert_eq!(repository(url), "github.com/acme/secret", "{url}");
        }
        assert_eq!(repository("github.com/acme/*"), "github.com/acme/*");
        assert_eq!(repository("*.example.org/*"), "*.example.org/*");
        assert_eq!(repository("*"), "*");
        assert_eq!(repository("https://h:8443/a"), "h:8443/a");
    }

    #[test]
    fn agents_go_by_their_kind() {
        assert_eq!(agent("ClaudeAgentSDK"), "claude");
        assert_eq!(agent("My-Agent"), "my-agent");
    }
}
