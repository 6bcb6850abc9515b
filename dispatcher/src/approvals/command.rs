//! Shell commands, read with suspicion: a rule that allows must never be fooled by a second
//! command in disguise, a rule that denies should not be evaded by a space.
//!
//! This is no shell. What it does not understand for certain is not allowed; denials are a
//! convenience beside the sandbox, not a wall.

/// Characters that hide or make further commands, or write to files.
const UNCLEAR: &[char] = &['$', '`', '(', ')', '{', '}', '<', '>', '\\', '!'];
/// Characters between commands.
const SEPARATORS: &[char] = &[';', '&', '|', '\n'];
/// Characters between words.
const BLANKS: &[char] = &[' ', '\t'];
/// Programs whose `-c` takes a command.
const SHELLS: [&str; 6] = ["sh", "bash", "zsh", "dash", "/bin/sh", "/bin/bash"];

/// The simple commands that a text consists of, each with single spaces; `None` if it may hold
/// more than can be seen.
pub(super) fn parts(text: &str) -> Option<Vec<String>> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(UNCLEAR) || text.contains(is_control) {
        return None;
    }
    let parts: Vec<String> = if text.contains(['"', '\'']) {
        // Where quotes end is a shell's business; without a separator there is one command.
        if text.contains(SEPARATORS) {
            return None;
        }
        vec![text.trim_matches(BLANKS).to_owned()]
    } else {
        text.split(SEPARATORS).map(single_spaced).collect()
    };
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then_some(parts)
}

/// Everything in a text that may be a command, for rules that deny: the text itself, and what
/// stands between anything that separates.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let plain: String = text
        .chars()
        .filter(|c| !matches!(c, '"' | '\'' | '\\'))
        .map(|c| if c.is_control() { '\n' } else { c })
        .collect();
    let mut pieces = vec![text.trim().to_owned(), single_spaced(&plain)];
    let split = plain.split(|c| UNCLEAR.contains(&c) || SEPARATORS.contains(&c));
    pieces.extend(split.map(single_spaced));
    pieces
}

/// The command of a list of arguments; `None` if it cannot be written as plain words.
pub(super) fn of_arguments(arguments: &[&str]) -> Option<String> {
    if let [shell, flag, script] = arguments
        && SHELLS.contains(shell)
        && ["-c", "-lc"].contains(flag)
    {
        return Some((*script).to_owned());
    }
    let is_plain = |word: &&str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./=:@,+%".contains(c))
    };
    let is_plain = !arguments.is_empty() && arguments.iter().all(is_plain);
    is_plain.then(|| arguments.join(" "))
}

fn single_spaced(text: &str) -> String {
    let words = text.split(BLANKS).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn simple_commands_are_understood() {
        let parts = |text: &str| parts(text).unwrap();
        assert_eq!(parts("git  status\t-s "), ["git status -s"]);
        assert_eq!(parts("git commit -m \"a  b\""), ["git commit -m \"a  b\""]);
        assert_eq!(
            parts("git add . && git status | head; ls &"),
            ["git add .", "git status", "head", "ls"]
        );
    }

    #[test]
    fn what_may_be_more_is_not() {
        for text in [
            "git status $(rm -rf x)",
            "git status `rm -rf x`",
            "git status > /etc/passwd",
            "git status < x",
            "git status \"a; rm -rf x\"",
            "git status 'a' && rm -rf x",
            "git status \\\n rm",
            "(git status)",
            "{ rm -rf x; }",
            "git status ${x}",
            "git status\r\nrm",
            "git status\0",
            "diff <(rm x) y",
            "",
            " ;; ",
        ] {
            assert_eq!(parts(text), None, "{text:?}");
        }
        assert_eq!(parts("git status\nrm -rf x").unwrap()[1], "rm -rf x");
    }

    #[test]
    fn denials_look_everywhere() {
        for text in [
            "rm  -rf x",
            "git status; rm -rf x",
            "echo $(rm -rf x)",
            "echo `rm -rf x`",
            "git status\nrm -rf x",
            "'rm' -rf x",
        ] {
            let found = pieces(text);
            assert!(
                found.iter().any(|piece| piece.starts_with("rm -rf x")),
                "{text:?}: {found:?}"
            );
        }
    }

    #[test]
    fn arguments_are_words_or_a_script() {
        assert_eq!(
            of_arguments(&["git", "status"]).as_deref(),
            Some("git status")
        );
        assert_eq!(
            of_arguments(&["bash", "-lc", "a; b"]).as_deref(),
            Some("a; b")
        );
        assert_eq!(of_arguments(&["git", "a; rm -rf x"]), None);
        assert_eq!(of_arguments(&[]), None);
    }

    proptest! {
        #[test]
        fn no_part_holds_anything_between_commands(text in "\\PC{0,40}|[a-z ;&|\n$`()'\"]{0,20}") {
            for part in parts(&text).unwrap_or_default() {
                prop_assert!(!part.contains(SEPARATORS), "{part:?}");
                prop_assert!(!part.contains(UNCLEAR), "{part:?}");
            }
        }
    }
}
