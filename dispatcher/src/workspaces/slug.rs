//! Slugs: a workspace's name as part of a URL.

/// Longest slug, in bytes.
pub(super) const MAX: usize = 100;

/// A name in lower case, with every run of other characters than `a-z0-9` as one `-`. `None`
/// if nothing is left of it.
pub(super) fn of(name: &str) -> Option<String> {
    let mut slug = String::with_capacity(name.len().min(MAX));
    for c in name.chars().flat_map(char::to_lowercase) {
        if slug.len() == MAX {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    (!slug.is_empty()).then(|| slug.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_runs_become_one_dash() {
        for (name, slug) in [
            ("Acme", "acme"),
            ("  Acme, Inc.  ", "acme-inc"),
            ("a--b__c", "a-b-c"),
            ("Ünder 9", "nder-9"),
        ] {
            assert_eq!(of(name).as_deref(), Some(slug), "{name}");
        }
        assert_eq!(of("日本"), None);
        assert_eq!(of(&"ab ".repeat(100)).map(|slug| slug.len()), Some(MAX));
    }
}
