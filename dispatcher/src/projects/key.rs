//! Keys of projects: given by people, or derived from a name.

/// Longest key, in characters.
pub(super) const MAX_KEY: usize = 50;
/// Longest derived key, in characters; room is left for a number.
const MAX_DERIVED: usize = 10;

/// A given key as it is stored; `None` unless it is 1 to 50 characters without control
/// characters.
pub(super) fn given(text: &str) -> Option<String> {
    let key = text.trim().to_uppercase();
    let is_good =
        !key.is_empty() && key.chars().count() <= MAX_KEY && !key.chars().any(char::is_control);
    is_good.then_some(key)
}

/// The key that a name suggests: its letters and digits.
pub(super) fn derived(name: &str) -> String {
    let letters = name.to_uppercase();
    let letters = letters.chars().filter(|c| c.is_alphanumeric());
    let key: String = letters.take(MAX_DERIVED).collect();
    match key.is_empty() {
        true => "PROJECT".to_owned(),
        false => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_trimmed_and_upper_case() {
        assert_eq!(given(" app "), Some("APP".to_owned()));
        assert_eq!(given("ä-1"), Some("Ä-1".to_owned()));
        let long = "ß".repeat(26);
        for bad in ["", "  ", "a\nb", "a\0b", &"x".repeat(51), &long] {
            assert_eq!(given(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_suggest_keys() {
        assert_eq!(derived("My app"), "MYAPP");
        assert_eq!(derived("Überraschungen, viele"), "ÜBERRASCHU");
        assert_eq!(derived("!!!"), "PROJECT");
    }
}
