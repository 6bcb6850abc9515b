//! Webhooks as bytes: is it GitHub's, and what does it say. Pure.

use clawlink_shared::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// What a delivery says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A pull request was merged.
    Merged(Pull),
    /// It was closed without a merge.
    Closed(Pull),
    /// It is open again.
    Reopened(Pull),
    /// Something that nothing here depends on.
    Other,
}

/// The pull request that an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// `owner/name` of its repository.
    pub repository: String,
    /// Its number there.
    pub number: u64,
    /// Its page: the `prUrl` of executions.
    pub url: String,
}

/// Whether `signature`, the header `X-Hub-Signature-256`, is this body's; takes as long for
/// every wrong one.
pub fn is_signed(secret: &Secret, body: &[u8], signature: &str) -> bool {
    let Some(signature) = signature.strip_prefix("sha256=").and_then(bytes) else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(body);
    mac.verify_slice(&signature).is_ok()
}

/// 64 hex digits.
fn bytes(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Reads an event by its name (`X-GitHub-Event`) and body; an error for a `pull_request` event
/// that is not shaped as GitHub's are.
pub fn parse(event: &str, body: &[u8]) -> Result<Happened, serde_json::Error> {
    #[derive(Deserialize)]
    struct Event {
        action: String,
        pull_request: PullRequest,
        repository: Repository,
    }
    #[derive(Deserialize)]
    struct PullRequest {
        number: u64,
        html_url: String,
        #[serde(default)]
        merged: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Repository {
        full_name: String,
    }
    if event != "pull_request" {
        return Ok(Happened::Other);
    }
    let event: Event = serde_json::from_slice(body)?;
    let pull = Pull {
        repository: event.repository.full_name,
        number: event.pull_request.number,
        url: event.pull_request.html_url,
    };
    Ok(match (event.action.as_str(), event.pull_request.merged) {
        ("closed", Some(true)) => Happened::Merged(pull),
        ("closed", _) => Happened::Closed(pull),
        ("reopened", _) => Happened::Reopened(pull),
        _ => Happened::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The example of GitHub's own documentation.
    const SECRET: &str = "It's a Secret to Everybody";
    const SIGNED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn the_documented_signature_is_right_and_no_other() {
        let secret = Secret::new(SECRET);
        assert!(is_signed(&secret, b"Hello, World!", SIGNED));
        let upper = SIGNED.to_uppercase().replace("SHA256", "sha256");
        assert!(is_signed(&secret, b"Hello, World!", &upper));
        assert!(!is_signed(&secret, b"Hello, World?", SIGNED));
        assert!(!is_signed(
            &Secret::new("another"),
            b"Hello, World!",
            SIGNED
        ));
        let cut = &SIGNED[..SIGNED.len() - 2];
        let sha1 = SIGNED.replace("sha256", "sha1");
        let not_hex = format!("sha256={}", "+1".repeat(32));
        for wrong in [
            "",
            "sha256=",
            cut,
            &sha1,
            &not_hex,
            &SIGNED["sha256=".len()..],
        ] {
            assert!(!is_signed(&secret, b"Hello, World!", wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_judged(signature in "\\PC*", body in any::<Vec<u8>>()) {
            prop_assert!(!is_signed(&Secret::new(SECRET), &body, &signature));
            let prefixed = format!("sha256={signature}");
            prop_assert!(!is_signed(&Secret::new(SECRET), &body, &prefixed));
        }

        #[test]
        fn any_body_is_read_or_refused(body in any::<Vec<u8>>()) {
            let _read = parse("pull_request", &body);
        }
    }

    #[test]
    fn events_are_told_apart() {
        let said = |action: &str, merged: serde_json::Value| {
            let body = json!({
                "action": action,
                "pull_request": {
                    "number": 7, "merged": merged, "html_url": "https://github.com/a/b/pull/7",
                },
                "repository": {"full_name": "a/b"},
            });
            parse("pull_request", body.to_string().as_bytes()).expect("a pull request event")
        };
        let pull = Pull {
            repository: "a/b".to_owned(),
            number: 7,
            url: "https://github.com/a/b/pull/7".to_owned(),
        };
        assert_eq!(said("closed", json!(true)), Happened::Merged(pull.clone()));
        assert_eq!(said("closed", json!(false)), Happened::Closed(pull.clone()));
        assert_eq!(said("closed", json!(null)), Happened::Closed(pull.clone()));
        assert_eq!(said("reopened", json!(false)), Happened::Reopened(pull));
        assert_eq!(said("labeled", json!(false)), Happened::Other);
        assert_eq!(
            parse("ping", b"no json").expect("not read"),
            Happened::Other
        );
        assert!(parse("pull_request", b"{}").is_err());
    }
}
