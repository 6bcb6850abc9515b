//! What exactly will run: a request completed from its session and the settings. Pure, so the
//! rules of inheriting stand in one place. Credentials are never inherited.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::control::Credentials;
use clawlink_shared::execution::{PullRequestWish, Repository, Spec};
use clawlink_shared::id::{AgentId, SessionId};
use clawlink_shared::problem::FieldFault;
use clawlink_shared::prompt::{PromptPart, text_of};
use clawlink_shared::secret::Secret;
use clawlink_shared::telemetry::traces;
use serde_json::Value;

use super::request::{Github, MAX_SESSION_NAME, Request, is_on_host, same_repository};
use crate::config::Tuning;
use crate::error::{ApiError, ApiResult};
use crate::secrets::References;

/// Longest part of a generated branch name that comes from the session's name, in characters.
const MAX_SLUG: usize = 40;

/// Shorter values of a request's credentials and variables are ordinary words, in bytes.
const MIN_SECRET: usize = 8;

/// What a resumed session hands to its next turn.
#[derive(Debug, Clone)]
pub(crate) struct Inherited {
    pub(crate) agent: AgentKind,
    pub(crate) name: String,
    pub(crate) repository: Option<Repository>,
    pub(crate) working_branch: Option<String>,
    pub(crate) auto_commit: bool,
    /// Whether an earlier turn has not ended.
    pub(crate) busy: bool,
    /// The stored agent of its last turn that had one.
    pub(crate) stored_agent: Option<AgentId>,
}

/// A request that can be stored as it is.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) credentials: Credentials,
    /// Secrets that are handed out beside them.
    pub(crate) references: Option<References>,
    /// Sentences for `message` events.
    pub(crate) notes: Vec<String>,
}

/// Completes a request for session `id`; `session` is present when it is resumed.
pub(crate) fn complete(
    request: &mut Request,
    id: SessionId,
    session: Option<&Inherited>,
    tuning: &Tuning,
) -> ApiResult<Plan> {
    let mut faults = Vec::new();
    let mut notes = std::mem::take(&mut request.notes);
    let agent = agent(request, session, &mut faults);
    let github = request.github.take();
    let is_default_token = github
        .as_ref()
        .is_some_and(|github| github.is_default_token);
    let repository = match session {
        Some(session) => {
            if let Some(github) = github {
                compare(&github, session, &mut faults);
            }
            session.repository.clone()
        }
        None => github.and_then(|github| repository(github, tuning)),
    };
    if let Some(repository) = &repository
        && is_default_token
        && !is_on_host(&repository.url, &tuning.default_git_host)
    {
        let message = format!(
            "FROM_ENV is a token for {}; send the token of this repository's host, or ask the \
             operator to set CLAWLINK_DEFAULT_GIT_HOST",
            tuning.default_git_host
        );
        faults.push(fault("github.accessToken", message));
    }
    let wants_commit = request.auto_commit;
    let auto_commit =
        wants_commit.unwrap_or_else(|| session.is_none_or(|session| session.auto_commit));
    let auto_commit = auto_commit && repository.is_some();
    if repository.is_none() && (wants_commit == Some(true) || request.branch_name.is_some()) {
        notes.push("`autoCommit` and `branchName` have no effect without a repository".into());
    }
    let pull_request = pull_request(request, auto_commit, &mut notes);
    let session_name = request
        .session_name
        .take()
        .or_else(|| session.map(|session| session.name.clone()))
        .unwrap_or_else(|| name_of(&request.prompt, &secrets(&request.credentials)));
    let working_branch = working_branch(request, session, &mut faults)
        .or_else(|| auto_commit.then(|| generated_branch(&session_name, id)))
        .filter(|_| repository.is_some());
    let Some(agent) = agent.filter(|_| faults.is_empty()) else {
        return Err(ApiError::invalid_fields(faults));
    };
    Ok(Plan {
        spec: Spec {
            prompt: std::mem::take(&mut request.prompt),
            agent,
            repository,
            auto_commit,
            session_name,
            working_branch,
            pull_request,
            options: std::mem::take(&mut request.options),
            skills: Vec::new(),
            definition: request.definition.take(),
            traceparent: traces::traceparent(&tracing::Span::current()),
        },
        credentials: std::mem::take(&mut request.credentials),
        references: request.references.take(),
        notes,
    })
}

fn fault(field: &str, message: impl Into<String>) -> FieldFault {
    FieldFault {
        field: field.into(),
        message: message.into(),
    }
}

/// The agent that runs, with what it cannot do without.
fn agent(
    request: &Request,
    session: Option<&Inherited>,
    faults: &mut Vec<FieldFault>,
) -> Option<AgentKind> {
    let inherited = session.map(|session| session.agent);
    let agent = request.agent.or(inherited)?;
    // A script may run between the turns of any conversation; another agent cannot read it.
    if let Some(inherited) = inherited
        && ![agent, inherited].contains(&AgentKind::Shell)
        && agent != inherited
    {
        let message = format!("this session is a conversation with {inherited}");
        faults.push(fault("codingAssistantProvider", message));
    }
    let is_text = |part: &PromptPart| matches!(part, PromptPart::Text { .. });
    if !agent.takes_images() && !request.prompt.iter().all(is_text) {
        faults.push(fault("userRequest", format!("{agent} takes text only")));
    }
    if matches!(agent, AgentKind::Acp | AgentKind::Http) && request.definition.is_none() {
        let message = format!("is required: the stored agent of type {agent} to run");
        faults.push(fault("agentId", message));
    }
    if agent.needs_credential() {
        let references = request.references.as_ref();
        let has_secret = references.is_some_and(References::have_agent);
        if request.credentials.agent.is_none() && !has_secret {
            let message =
                format!("is required: this workspace has no secret for {agent} that you may use");
            faults.push(fault("codingAssistantAuthentication", message));
        }
    }
    Some(agent)
}

fn repository(github: Github, tuning: &Tuning) -> Option<Repository> {
    Some(Repository {
        url: github.url?,
        branch: github.branch,
        directory: github.directory,
        depth: github.depth.unwrap_or(tuning.clone_depth),
    })
}

/// A session keeps its repository: what a request says about it must be what it is.
fn compare(github: &Github, session: &Inherited, faults: &mut Vec<FieldFault>) {
    let Some(kept) = &session.repository else {
        if github.url.is_some() {
            let message = "this session has no repository; start a new one for it";
            faults.push(fault("github.repoUrl", message));
        }
        return;
    };
    let differs = |sent: &Option<String>, kept: &Option<String>| sent.is_some() && sent != kept;
    let other_repository = github
        .url
        .as_ref()
        .is_some_and(|url| !same_repository(url, &kept.url));
    let checks = [
        ("github.repoUrl", other_repository),
        ("github.branch", differs(&github.branch, &kept.branch)),
        (
            "github.directory",
            differs(&github.directory, &kept.directory),
        ),
        (
            "github.depth",
            github.depth.is_some_and(|depth| depth != kept.depth),
        ),
    ];
    for (field, differs) in checks {
        if differs {
            let message = "differs from the session's; leave it out, or start a new session";
            faults.push(fault(field, message));
        }
    }
}

/// The wished pull request, without secrets; there is none without a push.
fn pull_request(
    request: &mut Request,
    auto_commit: bool,
    notes: &mut Vec<String>,
) -> Option<PullRequestWish> {
    let mut wish = request.pull_request.take()?;
    if !auto_commit {
        let note = "`createPullRequest` has no effect without a repository and `autoCommit`";
        notes.push(note.into());
        return None;
    }
    let secrets = secrets(&request.credentials);
    for text in [&mut wish.title, &mut wish.body].into_iter().flatten() {
        *text = without(std::mem::take(text), &secrets);
    }
    Some(wish)
}

fn working_branch(
    request: &mut Request,
    session: Option<&Inherited>,
    faults: &mut Vec<FieldFault>,
) -> Option<String> {
    let asked = request.branch_name.take();
    let kept = session.and_then(|session| session.working_branch.clone());
    if let (Some(asked), Some(kept)) = (&asked, &kept)
        && asked != kept
    {
        let message = format!("this session works on {kept}; leave it out");
        faults.push(fault("branchName", message));
    }
    kept.or(asked)
}

/// Texts of the request's own credentials, longest first, so that one within another leaves
/// nothing of it behind. Of a credential in JSON these are its strings.
fn secrets(credentials: &Credentials) -> Vec<String> {
    fn strings(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
            Value::Object(map) => map.values().for_each(|item| strings(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let values = credentials.env.values();
    let mut found: Vec<String> = values.map(|value| value.expose().to_owned()).collect();
    for secret in [&credentials.agent, &credentials.git_token] {
        let Some(text) = secret.as_ref().map(Secret::expose) else {
            continue;
        };
        found.push(text.to_owned());
        if let Ok(value) = serde_json::from_str(text) {
            strings(&value, &mut found);
        }
    }
    found.retain(|text| text.len() >= MIN_SECRET);
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
}

/// The first words of a prompt, on one line, without secrets.
fn name_of(prompt: &[PromptPart], secrets: &[String]) -> String {
    let mut name = String::new();
    let mut length = 0;
    let text = without(text_of(prompt), secrets);
    for word in text.split_whitespace() {
        let word: String = word.chars().filter(|c| !c.is_control()).collect();
        let longer = length + word.chars().count() + usize::from(length > 0);
        if longer > MAX_SESSION_NAME {
            if length == 0 {
                name.extend(word.chars().take(MAX_SESSION_NAME));
            }
            break;
        }
        if length > 0 {
            name.push(' ');
        }
        name.push_str(&word);
        length = longer;
    }
    if name.is_empty() {
        name.push_str("Untitled");
    }
    name
}

fn without(text: String, secrets: &[String]) -> String {
    let hide = |text: String, secret: &String| text.replace(secret, "***");
    secrets.iter().fold(text, hide)
}

/// `clawlink/<slug>-<8 hex>`.
fn generated_branch(name: &str, id: SessionId) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if slug.len() >= MAX_SLUG {
            break;
        }
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = match slug.trim_end_matches('-') {
        "" => "session",
        slug => slug,
    };
    let hex = id.0.simple().to_string();
    // What an id begins with is the time.
    format!("clawlink/{slug}-{}", &hex[hex.len() - 8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> String {
        name_of(&[PromptPart::Text { text: text.into() }], &[])
    }

    #[test]
    fn names_hold_no_credential_of_the_request() {
        let credentials = Credentials {
            agent: Some(Secret::new(r#"{"apiKey":"sk-ant-api-1234"}"#)),
            git_token: Some(Secret::new("ghp_12345678")),
            env: [("A".to_owned(), Secret::new("of the variable"))].into(),
        };
        let text = "use sk-ant-api-1234 and ghp_12345678 of the variable".to_owned();
        let name = name_of(&[PromptPart::Text { text }], &secrets(&credentials));
        assert_eq!(name, "use *** and *** ***");
    }

    #[test]
    fn names_are_the_first_words() {
        assert_eq!(named("  fix\nthe   bug "), "fix the bug");
        assert_eq!(named(&"word ".repeat(50)).chars().count(), 79);
        assert_eq!(named(&"ü".repeat(200)).chars().count(), 80);
        assert_eq!(named("\u{1}"), "Untitled");
    }

    #[test]
    fn branches_are_plain() {
        let id = SessionId(
            "00000000-0000-7000-8000-00000123abcd"
                .parse()
                .expect("uuid"),
        );
        assert_eq!(
            generated_branch("Add Hello File!", id),
            "clawlink/add-hello-file-0123abcd"
        );
        assert_eq!(generated_branch("日本語", id), "clawlink/session-0123abcd");
        assert!(generated_branch(&"a b".repeat(99), id).len() < 70);
    }
}
