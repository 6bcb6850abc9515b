//! No known secret leaves whole, in whatever spelling or pieces, and nothing else changes.

use clawlink_shared::secret::Secret;
use clawlink_worker::redact::{DeltaStream, MASK, Redactor};
use proptest::prelude::*;
use serde_json::value::RawValue;

fn redactor(secrets: &[&str]) -> Redactor {
    let secrets: Vec<_> = secrets.iter().map(|&secret| Secret::new(secret)).collect();
    Redactor::new(&secrets)
}

fn redact_json(redactor: &Redactor, json: &str) -> String {
    let raw = RawValue::from_string(json.into()).unwrap();
    redactor.redact_json(&raw).get().to_owned()
}

/// A text as a JSON string, each character escaped in a spelling that `choices` picks.
fn spell(text: &str, choices: &[u8]) -> String {
    let mut spelled = String::from('"');
    for (at, char) in text.chars().enumerate() {
        let plain = serde_json::to_string(&char.to_string()).unwrap();
        match choices[at % choices.len()] % 4 {
            0 => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    spelled.push_str(&format!("\\u{unit:04x}"));
                }
            }
            1 => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    spelled.push_str(&format!("\\u{unit:04X}"));
                }
            }
            2 if char == '/' => spelled.push_str("\\/"),
            _ => spelled.push_str(&plain[1..plain.len() - 1]),
        }
    }
    spelled.push('"');
    spelled
}

fn any_secret() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9+/=_\\-\"\\\\é😀 ]{8,40}"
        .prop_map(|secret| secret.trim().to_owned())
        .prop_filter("long enough", |secret| secret.len() >= 8)
}

proptest! {
    #[test]
    fn any_escape_spelling_is_caught(
        secret in any_secret(),
        before in ".{0,10}",
        after in ".{0,10}",
        choices in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let text = format!("{before}{secret}{after}");
        let json = format!(r#"{{"a":[{},1.50,"\ud800"]}}"#, spell(&text, &choices));
        let clean = redact_json(&redactor(&[&secret]), &json);
        let decoded = serde_json::from_str::<serde_json::Value>(&clean.replace(r#""\ud800""#, "0"))
            .unwrap();
        prop_assert!(!decoded["a"][0].as_str().unwrap().contains(&secret));
        prop_assert!(clean.contains(MASK));
        let rest = r#",1.50,"\ud800"]}"#;
        prop_assert!(clean.ends_with(rest));
    }

    #[test]
    fn json_without_a_secret_stays_byte_for_byte(
        text in ".{0,80}",
        choices in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let json = format!(
            r#"{{"t" : {}, "n":-0.10e+5,"big":123456789012345678901234567890,"u":"\uDEAD\u0000"}}"#,
            spell(&text, &choices)
        );
        prop_assert_eq!(redact_json(&redactor(&["0123456789abcdef-nowhere"]), &json), json);
    }

    #[test]
    fn pieces_of_a_stream_never_add_up_to_a_secret(
        secrets in prop::collection::vec(any_secret(), 1..4),
        texts in prop::collection::vec("[a-zé ]{0,12}", 1..6),
        cuts in prop::collection::vec(0_usize..200, 0..60),
        interruptions in prop::collection::vec(any::<bool>(), 60),
    ) {
        let whole: String = texts
            .iter()
            .zip(secrets.iter().cycle())
            .flat_map(|(text, secret)| [text.as_str(), secret.as_str()])
            .collect();
        let known: Vec<&str> = secrets.iter().map(String::as_str).collect();
        let mut stream = DeltaStream::new(redactor(&known));
        let mut cuts: Vec<usize> = cuts
            .into_iter()
            .map(|cut| cut % (whole.len() + 1))
            .filter(|&cut| whole.is_char_boundary(cut))
            .collect();
        cuts.push(whole.len());
        cuts.sort_unstable();
        let mut shown = String::new();
        let mut at = 0;
        for (piece, cut) in cuts.into_iter().enumerate() {
            shown.push_str(&stream.push(&whole[at..cut]));
            if interruptions[piece % interruptions.len()] {
                shown.push_str(&stream.interrupt());
            }
            at = cut;
        }
        shown.push_str(&stream.interrupt());
        for secret in &secrets {
            prop_assert!(!shown.contains(secret.as_str()), "{shown:?} shows {secret:?}");
        }
    }

    #[test]
    fn a_stream_without_secrets_arrives_whole(pieces in prop::collection::vec(".{0,12}", 0..30)) {
        let mut stream = DeltaStream::new(redactor(&["0123456789-never-there"]));
        let mut shown = String::new();
        for piece in &pieces {
            shown.push_str(&stream.push(piece));
        }
        shown.push_str(&stream.interrupt());
        // A piece that could begin the secret is short, so it goes out as it is.
        prop_assert_eq!(shown, pieces.concat());
    }

    #[test]
    fn encoded_forms_are_caught(
        secret in "[a-zA-Z0-9+/=_&?%]{12,40}",
        before in prop::collection::vec(any::<u8>(), 0..7),
        after in prop::collection::vec(any::<u8>(), 0..7),
    ) {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let redactor = redactor(&[&secret]);
        let around = [&before[..], secret.as_bytes(), &after[..]].concat();
        prop_assert!(redactor.redact_text(&STANDARD.encode(&around)).contains(MASK));
        prop_assert!(redactor.redact_text(&URL_SAFE_NO_PAD.encode(&around)).contains(MASK));
        let in_json = serde_json::to_string(&format!("x{secret}y")).unwrap();
        prop_assert!(redactor.redact_text(&in_json).contains(MASK));
        prop_assert!(redact_json(&redactor, &serde_json::to_string(&in_json).unwrap()).contains(MASK));
    }
}

#[test]
fn each_string_of_a_json_credential_is_a_secret() {
    let credential = r#"{"claudeAiOauth":{"accessToken":"sk-ant-oat01-AAAA","expiresAt":1234567890123,"refreshToken":"sk-ant-ort01-BBBB","scopes":["x"]}}"#;
    let redactor = redactor(&[credential, "short"]);
    assert_eq!(
        redactor.redact_text("Bearer sk-ant-oat01-AAAA, sk-ant-ort01-BBBB; short"),
        "Bearer ***, ***; short"
    );
    assert_eq!(redactor.redact_text(credential), MASK);
}

#[test]
fn overlapping_secrets_leave_nothing_of_either() {
    let redactor = redactor(&["abcdefgh", "efghijkl"]);
    assert_eq!(redactor.redact_text("1abcdefghijkl2"), "1***2");
}

#[test]
fn a_number_can_be_a_secret() {
    let redactor = redactor(&["12345678"]);
    assert_eq!(
        redact_json(&redactor, r#"{"a":[12345678,1234567],"b":"\n"}"#),
        r#"{"a":["***",1234567],"b":"\n"}"#
    );
}

#[test]
fn keys_are_text_too() {
    let redactor = redactor(&["super-secret"]);
    assert_eq!(
        redact_json(&redactor, r#"{"super-secret":1}"#),
        r#"{"***":1}"#
    );
}

#[test]
fn a_secret_is_learned_at_run_time() {
    let redactor = redactor(&[]);
    let shared = redactor.clone();
    assert_eq!(shared.redact_text("the new-token-1"), "the new-token-1");
    redactor.learn(&Secret::new("new-token-1"));
    assert_eq!(shared.redact_text("the new-token-1"), "the ***");
}

#[test]
fn an_interrupted_secret_is_masked_in_both_halves() {
    let mut stream = DeltaStream::new(redactor(&["0123456789abcdef"]));
    assert_eq!(stream.push("key 0123456789"), "key ");
    assert_eq!(stream.interrupt(), MASK);
    assert_eq!(stream.push("abcdef."), "***.");
    assert_eq!(stream.interrupt(), "");
}
