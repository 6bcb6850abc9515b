//! Which repository a URL names. Pure; whether a host is served is [`super::Github`]'s to say.

use reqwest::Url;

/// Longest name of an owner or a repository, in bytes.
const MAX_NAME: usize = 100;

/// A repository by its host, owner and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// In lower case; with the port if an http(s) URL has an unusual one.
    pub host: String,
    /// A user or an organization.
    pub owner: String,
    /// Without `.git`.
    pub name: String,
}

impl Repository {
    /// Reads `https://host/owner/name`, `ssh://git@host/owner/name` and `git@host:owner/name`,
    /// each with or without `.git`; `None` for everything else.
    pub fn from_url(text: &str) -> Option<Self> {
        let (host, path) = match text.contains("://") {
            true => {
                let url = Url::parse(text).ok()?;
                let host = url.host_str()?;
                let host = match (url.scheme(), url.port()) {
                    ("http" | "https", Some(port)) => format!("{host}:{port}"),
                    // The port of ssh says nothing about the web's.
                    ("http" | "https" | "ssh", _) => host.to_owned(),
                    _ => return None,
                };
                (host, url.path().to_owned())
            }
            false => {
                let (user_and_host, path) = text.split_once(':')?;
                let host = user_and_host.rsplit('@').next()?;
                (host.to_owned(), path.to_owned())
            }
        };
        let host = host.to_lowercase();
        let host = match host.as_str() {
            "" => return None,
            "www.github.com" | "ssh.github.com" => "github.com".to_owned(),
            _ => host,
        };
        let (owner, name) = path.trim_matches('/').split_once('/')?;
        let name = name.strip_suffix(".git").unwrap_or(name);
        (is_name(owner) && is_name(name)).then(|| Self {
            host,
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// What may stand in a path of the API.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(is_plain)
        && !matches!(text, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::Repository;

    #[test]
    fn the_usual_spellings_name_one_repository() {
        for url in [
            "https://github.com/acme/app",
            "https://github.com/acme/app/",
            "https://GitHub.com/acme/app.git",
            "https://www.github.com/acme/app.git",
            "https://x-access-token@github.com/acme/app",
            "ssh://git@github.com/acme/app.git",
            "ssh://git@ssh.github.com:443/acme/app.git",
            "git@github.com:acme/app.git",
            "github.com:acme/app",
        ] {
            let found = Repository::from_url(url).expect(url);
            let parts = (&*found.host, &*found.owner, &*found.name);
            assert_eq!(parts, ("github.com", "acme", "app"), "{url}");
        }
        let other = Repository::from_url("https://ghe.example:8443/a/b.c.git").expect("a URL");
        assert_eq!((&*other.host, &*other.name), ("ghe.example:8443", "b.c"));
    }

    #[test]
    fn what_is_no_repository_is_none() {
        for url in [
            "",
            "https://github.com",
            "https://github.com/acme",
            "https://github.com/acme/",
            "https://github.com/acme/app/pull/1",
            "https://github.com/acme/..",
            "https://github.com/a%2Fb/app",
            "https://github.com/acme/.git",
            "file:///acme/app",
            "/acme/app",
            "git@:acme/app",
            "git@github.com:acme/app?x",
        ] {
            assert_eq!(Repository::from_url(url), None, "{url}");
        }
    }
}
