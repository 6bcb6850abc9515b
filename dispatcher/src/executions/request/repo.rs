//! `github`, and the rules for URLs, branches and directories in it. Whether an address may be
//! dialled is the worker's check, made on the address that it dials.

use clawlink_shared::secret::Secret;
use reqwest::Url;

use super::credential;
use super::fields::{Faults, Fields};
use crate::config::Tuning;
use crate::secrets::Reference;

/// Longest repository URL, in bytes.
const MAX_URL: usize = 2048;
/// Longest branch name, in bytes; git hosts refuse longer ones.
const MAX_BRANCH: usize = 200;
/// Longest directory, in bytes.
const MAX_DIRECTORY: usize = 1024;
/// Most commits of history that can be asked for; 0 means all.
const MAX_DEPTH: u64 = 1_000_000;

/// `github` as it was sent; on a resumed session everything may be absent.
#[derive(Debug, Default)]
pub(crate) struct Github {
    pub(crate) url: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) directory: Option<String>,
    pub(crate) depth: Option<u32>,
    pub(crate) token: Option<Secret>,
    /// Whether `token` is the operator's.
    pub(crate) is_default_token: bool,
}

pub(super) fn read(
    body: &mut Fields,
    resuming: bool,
    tuning: &Tuning,
    references: &mut Vec<Reference>,
    faults: &mut Faults,
) -> Option<Github> {
    let mut github = body.object("github", faults)?;
    if github.get("repoUrl").is_none() && !resuming {
        faults.add(github.path("repoUrl"), "is required");
    }
    let url = checked(&mut github, "repoUrl", MAX_URL, url_fault, faults);
    let branch = branch(&mut github, "branch", faults);
    let directory = checked(
        &mut github,
        "directory",
        MAX_DIRECTORY,
        directory_fault,
        faults,
    );
    let depth = github
        .whole("depth", 0..=MAX_DEPTH, faults)
        .and_then(|depth| u32::try_from(depth).ok());
    let token = credential::git_token(&mut github, tuning, references, faults);
    let is_default_token = credential::is_default_git_token(&mut github);
    github.finish(faults);
    Some(Github {
        url,
        branch,
        directory: directory.and_then(|directory| tidy(&directory)),
        depth,
        token,
        is_default_token,
    })
}

/// `branchName`.
pub(super) fn branch_name(body: &mut Fields, faults: &mut Faults) -> Option<String> {
    branch(body, "branchName", faults)
}

/// The name of a branch.
pub(super) fn branch(
    fields: &mut Fields,
    key: &'static str,
    faults: &mut Faults,
) -> Option<String> {
    checked(fields, key, MAX_BRANCH, branch_fault, faults)
}

fn checked(
    fields: &mut Fields,
    key: &'static str,
    max: usize,
    fault: fn(&str) -> Option<&'static str>,
    faults: &mut Faults,
) -> Option<String> {
    let text = fields.text(key, max, faults)?;
    if let Some(message) = fault(text) {
        faults.add(fields.path(key), message);
        return None;
    }
    Some(text.to_owned())
}

fn url_fault(text: &str) -> Option<&'static str> {
    const FORM: &str =
        "must be an http or https URL of a repository, such as https://github.com/owner/name";
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        return Some("must not contain spaces, control characters or backslashes");
    }
    let Ok(url) = Url::parse(text) else {
        return Some(FORM);
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Some(FORM);
    }
    // `https://@host` has empty credentials, which the parser drops.
    let authority = text
        .split("//")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Some("must not carry credentials; use accessToken");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("must not have a query or a fragment");
    }
    (url.path().trim_matches('/').is_empty()).then_some(FORM)
}

/// The rules of `git check-ref-format --branch`.
fn branch_fault(name: &str) -> Option<&'static str> {
    let forbidden =
        |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let bad_component =
        |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    let bad = name.contains(forbidden)
        || name.contains("..")
        || name.contains("@{")
        || name.starts_with('-')
        || name.ends_with('.')
        || matches!(name, "@" | "HEAD")
        || name.split('/').any(bad_component);
    bad.then_some("is not a valid branch name (see `git help check-ref-format`)")
}

fn directory_fault(path: &str) -> Option<&'static str> {
    if path.starts_with('/') || path.contains('\\') || path.contains(char::is_control) {
        return Some("must be a path relative to the repository, with forward slashes");
    }
    if path.split('/').any(|part| part == "..") {
        return Some("must not contain `..`");
    }
    path.split('/')
        .any(|part| part.eq_ignore_ascii_case(".git"))
        .then_some("must not lead into .git")
}

/// Without empty and `.` components; the root itself is absent.
fn tidy(path: &str) -> Option<String> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Whether two URLs name the same repository: `.git`, a final slash and the case of scheme
/// and host do not matter.
pub(crate) fn same_repository(one: &str, other: &str) -> bool {
    fn name(url: &str) -> String {
        let url = Url::parse(url).map_or_else(|_| url.to_owned(), String::from);
        let url = url.trim_end_matches('/');
        url.strip_suffix(".git").unwrap_or(url).to_owned()
    }
    name(one) == name(other)
}

/// Whether a repository is on this host, given as `host` or `host:port`; without a port it is
/// the scheme's own.
pub(crate) fn is_on_host(url: &str, host: &str) -> bool {
    let Ok(url) = Url::parse(url) else {
        return false;
    };
    let name = url.host_str().unwrap_or_default();
    let authority = match url.port() {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    authority.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_names_follow_git() {
        for good in ["main", "feature/x", "v1.2", "a-b_c", "ümlaut", "a@b"] {
            assert_eq!(branch_fault(good), None, "{good}");
        }
        for bad in [
            "", "a..b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a b", "a~1", "a^",
            "a:b", "a?", "a*", "a[", "a\\b", "a.", "@", "a@{1}", "-a", "HEAD", "a\tb",
        ] {
            assert!(branch_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn urls_are_http_without_credentials() {
        for good in [
            "https://github.com/a/b",
            "http://127.0.0.1:3000/a.git",
            "https://host/a/b@c",
        ] {
            assert_eq!(url_fault(good), None, "{good}");
        }
        for bad in [
            "git@github.com:a/b",
            "ssh://h/a",
            "file:///etc",
            "ext::sh",
            "https://t@h/a",
            "https://@h/a",
            "https://u:p@h/a",
            "https://h/a b",
            "https://h/a?x",
            "https://h/a#x",
            "https://h",
            "https:///a",
            "/etc/passwd",
            "https://h\\a",
        ] {
            assert!(url_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn directories_stay_inside() {
        assert_eq!(tidy("./a//b/"), Some("a/b".into()));
        assert_eq!(tidy("."), None);
        for bad in ["../a", "a/../..", "/a", "a\\b", "a/.git/hooks", ".GIT"] {
            assert!(directory_fault(bad).is_some(), "{bad}");
        }
        assert_eq!(directory_fault("a/..b/c"), None);
    }

    #[test]
    fn a_host_is_its_whole_name_and_port() {
        assert!(is_on_host("https://GitHub.com:443/a/b", "github.com"));
        assert!(is_on_host("http://127.0.0.1:3000/a", "127.0.0.1:3000"));
        for other in [
            "https://github.com.evil.example/a",
            "https://evilgithub.com/a",
            "https://github.com:8443/a",
            "https://evil.example/github.com",
        ] {
            assert!(!is_on_host(other, "github.com"), "{other}");
        }
    }

    #[test]
    fn spellings_of_one_repository() {
        assert!(same_repository(
            "https://GitHub.com/a/b.git",
            "https://github.com/a/b/"
        ));
        assert!(!same_repository(
            "https://github.com/a/b",
            "https://github.com/a/c"
        ));
    }
}
