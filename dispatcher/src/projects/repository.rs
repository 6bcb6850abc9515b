//! A repository's owner and name, read from the address that people paste.

/// What an address says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is hosted, lower case, with a port if one is given.
    pub host: String,
    /// The owner; of nested groups all of them: `group/subgroup`.
    pub owner: String,
    /// The name, without `.git`.
    pub name: String,
}

/// Longest address, in characters.
pub const MAX_URL: usize = 2000;

/// Reads `https://host/owner/name`, `ssh://git@host/owner/name` and `git@host:owner/name`, with
/// or without `.git`. `None` for anything else, and for addresses that hold a credential.
pub fn parse(address: &str) -> Option<Repository> {
    let address = address.trim();
    if address.chars().count() > MAX_URL || address.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let (authority, path, may_have_user) = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/')?;
            let is_ssh = scheme.eq_ignore_ascii_case("ssh");
            let is_http = ["https", "http"]
                .iter()
                .any(|s| scheme.eq_ignore_ascii_case(s));
            (is_ssh || is_http).then_some((authority, path, is_ssh))?
        }
        None => {
            let (authority, path) = address.split_once(':')?;
            (authority, path, true)
        }
    };
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => (may_have_user && !user.contains(':')).then_some(host)?,
        None => authority,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let (owner, name) = path.rsplit_once('/')?;
    let is_good = |part: &str| {
        !part.is_empty()
            && part.split('/').all(|one| {
                !matches!(one, "" | "." | "..")
                    && one
                        .chars()
                        .all(|c| c.is_alphanumeric() || "-_.~+".contains(c))
            })
    };
    let is_host = |host: &str| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c))
    };
    (is_host(host) && is_good(owner) && is_good(name)).then(|| Repository {
        host: host.to_ascii_lowercase(),
        owner: owner.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_people_paste_are_read() {
        for (address, host, owner, name) in [
            ("https://github.com/acme/app", "github.com", "acme", "app"),
            (
                "https://GitHub.com/acme/app.git/",
                "github.com",
                "acme",
                "app",
            ),
            ("git@github.com:acme/app.git", "github.com", "acme", "app"),
            ("ssh://git@host:22/acme/app.git", "host:22", "acme", "app"),
            ("https://gitlab.com/a/b/c", "gitlab.com", "a/b", "c"),
            (
                "https://github.com/acme/app?tab=x#y",
                "github.com",
                "acme",
                "app",
            ),
        ] {
            let read = parse(address).expect(address);
            let read = (&*read.host, &*read.owner, &*read.name);
            assert_eq!(read, (host, owner, name), "{address}");
        }
    }

    #[test]
    fn others_are_refused() {
        for address in [
            "",
            "app",
            "https://github.com/acme",
            "https://user:token@github.com/acme/app",
            "https://token@github.com/acme/app",
            "ssh://git:pw@host/acme/app",
            "file:///etc/passwd",
            "https://github.com/../app",
            "https://github.com/a//b",
            "javascript:alert(1)/x",
            "https://host/a/b c",
        ] {
            assert_eq!(parse(address), None, "{address}");
        }
    }
}
