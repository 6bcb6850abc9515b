//! A walk over the tokens of a JSON text that is known to be valid, keeping every byte that
//! need not change: lone surrogates, NUL escapes and numbers of any size pass as they are,
//! which a parse into values and back would refuse or reshape.

use std::ops::Range;

use super::MASK;

/// A piece of a JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A string, key or value; the range is inside its quotes.
    Text(Range<usize>),
    /// Everything between strings: punctuation, numbers, literals, white space.
    Between(Range<usize>),
}

/// Splits a valid JSON text; the quotes belong to no token.
pub(crate) fn tokens(json: &str) -> impl Iterator<Item = Token> {
    let bytes = json.as_bytes();
    let mut at = 0;
    let mut in_text = false;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        let start = at;
        if in_text {
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
        } else {
            while at < bytes.len() && bytes[at] != b'"' {
                at += 1;
            }
        }
        let range = start..at.min(bytes.len());
        at += 1;
        in_text = !in_text;
        Some(if in_text {
            Token::Between(range)
        } else {
            Token::Text(range)
        })
    })
}

/// Masks what `hits` finds in decoded strings, and any number that holds a hit. `None` when
/// nothing was found.
pub(super) fn redact(json: &str, hits: impl Fn(&[u8]) -> Vec<Range<usize>>) -> Option<String> {
    if !json.contains('\\') && hits(json.as_bytes()).is_empty() {
        return None;
    }
    let mut clean = String::with_capacity(json.len());
    let mut at = 0;
    for token in tokens(json) {
        match token {
            Token::Text(range) => {
                for hit in hits_in_text(&json[range.clone()], &hits) {
                    clean.push_str(&json[at..range.start + hit.start]);
                    clean.push_str(MASK);
                    at = range.start + hit.end;
                }
            }
            Token::Between(range) => {
                for number in numbers(json, range) {
                    if !hits(json[number.clone()].as_bytes()).is_empty() {
                        clean.push_str(&json[at..number.start]);
                        clean.push('"');
                        clean.push_str(MASK);
                        clean.push('"');
                        at = number.end;
                    }
                }
            }
        }
    }
    (at > 0).then(|| {
        clean.push_str(&json[at..]);
        clean
    })
}

/// Hits in one string's decoded form, as ranges of its raw form.
fn hits_in_text(raw: &str, hits: impl Fn(&[u8]) -> Vec<Range<usize>>) -> Vec<Range<usize>> {
    if !raw.contains('\\') {
        return hits(raw.as_bytes());
    }
    let (decoded, origins) = decode(raw);
    hits(&decoded)
        .into_iter()
        .map(|hit| origins[hit.start]..origins[hit.end])
        .collect()
}

/// Decodes escapes. The second part says for each decoded byte, and for the end, where its
/// escape or character begins in the raw form. A lone surrogate becomes three bytes that
/// occur in no UTF-8 text.
fn decode(raw: &str) -> (Vec<u8>, Vec<usize>) {
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut origins = Vec::with_capacity(bytes.len() + 1);
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if bytes[at] == b'\\' {
            at += unescape(&raw[at..], &mut decoded);
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
        origins.resize(decoded.len(), start);
    }
    origins.push(at);
    (decoded, origins)
}

/// Decodes the escape at the start of `raw`; returns how many raw bytes it takes.
fn unescape(raw: &str, decoded: &mut Vec<u8>) -> usize {
    let plain = match raw.as_bytes()[1] {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unescape_unicode(raw, decoded),
        itself => itself,
    };
    decoded.push(plain);
    2
}

fn unescape_unicode(raw: &str, decoded: &mut Vec<u8>) -> usize {
    let unit = |at: usize| {
        raw.get(at..at + 6)
            .and_then(|escape| escape.strip_prefix("\\u"))
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
    };
    let high = unit(0).unwrap_or(0xfffd);
    let (code, length) = match (high, unit(6)) {
        (0xd800..=0xdbff, Some(low @ 0xdc00..=0xdfff)) => {
            (0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12)
        }
        _ => (high, 6),
    };
    match char::from_u32(code) {
        Some(char) => decoded.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        // A lone surrogate, spelled as UTF-8 would spell it if it could.
        None => decoded.extend([
            0xed,
            0x80 | (code >> 6) as u8 & 0x3f,
            0x80 | code as u8 & 0x3f,
        ]),
    }
    length
}

/// Ranges of the numbers in a piece between strings.
fn numbers(json: &str, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let is_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.');
    let bytes = json.as_bytes();
    let mut at = range.start;
    std::iter::from_fn(move || {
        while at < range.end && !is_number(bytes[at]) {
            at += 1;
        }
        let start = at;
        while at < range.end && (is_number(bytes[at]) || matches!(bytes[at], b'e' | b'E')) {
            at += 1;
        }
        (start < at).then_some(start..at)
    })
}

/// Shortens every string to at most `most` raw bytes, never inside an escape or a character,
/// ending a shortened one with `…`.
pub(crate) fn shorten_strings(json: &str, most: usize) -> String {
    let mut short = String::with_capacity(json.len() / 2);
    for token in tokens(json) {
        match token {
            Token::Between(range) => short.push_str(&json[range]),
            Token::Text(range) => {
                let text = &json[range];
                let kept = safe_cut(text, most);
                short.push('"');
                short.push_str(&text[..kept]);
                if kept < text.len() {
                    short.push('…');
                }
                short.push('"');
            }
        }
    }
    short
}

/// The largest cut position up to `most` that splits neither an escape nor a character.
fn safe_cut(text: &str, most: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let step = match bytes[at] {
            b'\\' if bytes[at + 1] == b'u' => unescape_unicode(&text[at..], &mut Vec::new()),
            b'\\' => 2,
            _ => 1,
        };
        if at + step > most {
            break;
        }
        at += step;
    }
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
