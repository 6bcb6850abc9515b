//! Who answers by themselves: the workspace's rules and what was allowed for the session. Pure.
//!
//! A rule that denies wins over everything, what a person allowed for the session wins over a
//! rule that asks, and that over a rule that allows; without any, people are asked. No rule
//! allows what it cannot see whole, nor what one that denies cannot.

use clawlink_shared::agent::AgentKind;
use clawlink_shared::approval::QuestionKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::command;
use crate::policies::matches;
use crate::secrets::hash_token;

/// Fields of inputs that hold a shell command, whatever the tool is called.
const COMMANDS: [&str; 3] = ["command", "cmd", "script"];
/// Fields that say what is touched.
const THINGS: [&str; 8] = [
    "file_path",
    "filePath",
    "notebook_path",
    "path",
    "paths",
    "abs_path",
    "url",
    "uri",
];

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ApprovalVerdict)]
pub(super) enum Verdict {
    /// People decide.
    Ask,
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

impl Verdict {
    /// The name in SQL and JSON.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// Reads the name back.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Ask, Self::Allow, Self::Deny]
            .into_iter()
            .find(|verdict| verdict.as_str() == name)
    }
}

/// One rule of a workspace.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: i64,
    /// `None`: all.
    pub(super) agent: Option<AgentKind>,
    /// `*` stands for any run of characters; case does not matter.
    pub(super) tool: String,
    /// `None`: whatever it is.
    pub(super) input: Option<String>,
    pub(super) verdict: Verdict,
}

/// A question as rules see it.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) agent: AgentKind,
    pub(super) kind: QuestionKind,
    pub(super) tool: &'a str,
    /// `Null` if it cannot be read.
    pub(super) input: Value,
    /// Part of the input is missing.
    pub(super) is_partial: bool,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// People.
    Ask,
    /// This rule.
    ByRule {
        /// Which.
        rule: i64,
        /// What it says.
        allow: bool,
    },
    /// Somebody, earlier in the session.
    BySession,
}

/// Judges a question; `is_granted`: its like was allowed for the session.
pub(super) fn judge(rules: &[Rule], is_granted: bool, asked: &Asked<'_>) -> Judged {
    let of = |verdict: Verdict| {
        let rules = rules.iter().filter(move |rule| rule.verdict == verdict);
        rules.filter(move |rule| rule.is_about(asked))
    };
    let denying = of(Verdict::Deny).find(|rule| rule.touches(asked));
    if let Some(rule) = denying {
        return Judged::ByRule {
            rule: rule.id,
            allow: false,
        };
    }
    let is_unseen = asked.is_partial || asked.input.is_null();
    if is_unseen && of(Verdict::Deny).next().is_some() {
        // It might be just what that rule denies.
        return Judged::Ask;
    }
    if is_granted {
        return Judged::BySession;
    }
    if of(Verdict::Ask).any(|rule| rule.touches(asked)) {
        return Judged::Ask;
    }
    let allowing: Vec<&Rule> = of(Verdict::Allow).collect();
    match allowed_by(&allowing, asked) {
        Some(rule) => Judged::ByRule { rule, allow: true },
        None => Judged::Ask,
    }
}

/// What stands for a question when its like is allowed for the session: the tool alone, and
/// where it runs commands the very command. `None`: nothing does.
pub(super) fn grant_of(asked: &Asked<'_>) -> Option<Vec<u8>> {
    if asked.kind == QuestionKind::Plan {
        return None;
    }
    let commands: Vec<String> = COMMANDS
        .iter()
        .filter_map(|field| Some(format!("{field}={}", asked.input.get(field)?)))
        .collect();
    if commands.is_empty() {
        return (!asked.input.is_null()).then(Vec::new);
    }
    (!asked.is_partial).then(|| hash_token(&commands.join("\n")).to_vec())
}

impl Rule {
    /// Whether agent and tool are those of the question. Only a rule that names the tool of a
    /// plan speaks of plans.
    fn is_about(&self, asked: &Asked<'_>) -> bool {
        let (pattern, tool) = (self.tool.to_lowercase(), asked.tool.to_lowercase());
        let is_tool = match asked.kind {
            QuestionKind::Tool => matches(&pattern, &tool),
            QuestionKind::Plan => pattern == tool,
        };
        is_tool && self.agent.is_none_or(|agent| agent == asked.agent)
    }

    /// Whether anything in the input looks like this, for rules that deny or ask.
    fn touches(&self, asked: &Asked<'_>) -> bool {
        let Some(pattern) = &self.input else {
            return true;
        };
        let subjects = Subjects::of(&asked.input);
        let commands = subjects.commands.iter().flatten();
        let mut pieces = commands.flat_map(|text| command::pieces(text));
        pieces.any(|piece| matches(pattern, &piece))
            || subjects.things.iter().any(|thing| matches(pattern, thing))
            || matches(pattern, &asked.input.to_string())
    }
}

/// The first of the rules that together allow all of the question.
fn allowed_by(rules: &[&Rule], asked: &Asked<'_>) -> Option<i64> {
    if let Some(rule) = rules.iter().find(|rule| rule.input.is_none()) {
        return Some(rule.id);
    }
    if asked.is_partial {
        return None;
    }
    let subjects = Subjects::of(&asked.input);
    let mut wanted: Vec<String> = Vec::new();
    for text in &subjects.commands {
        wanted.extend(command::parts(text.as_deref()?)?);
    }
    for thing in subjects.things {
        if thing.split(['/', '\\']).any(|part| part == "..") {
            return None;
        }
        wanted.push(thing);
    }
    let by = |text: &String| {
        let mut rules = rules.iter();
        rules.find(|rule| {
            let pattern = rule.input.as_deref();
            pattern.is_some_and(|pattern| matches(pattern, text))
        })
    };
    let all: Option<Vec<&&Rule>> = wanted.iter().map(by).collect();
    all?.first().map(|rule| rule.id)
}

/// What an input is about.
#[derive(Debug, Default)]
struct Subjects {
    /// Shell commands; `None` for one that cannot be read.
    commands: Vec<Option<String>>,
    /// Files and addresses.
    things: Vec<String>,
}

impl Subjects {
    fn of(input: &Value) -> Self {
        let mut subjects = Self::default();
        for field in COMMANDS {
            let Some(value) = input.get(field) else {
                continue;
            };
            subjects.commands.push(match value {
                Value::String(text) => Some(text.clone()),
                Value::Array(items) => {
                    let words: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
                    words.and_then(|words| command::of_arguments(&words))
                }
                _ => None,
            });
        }
        for field in THINGS {
            match input.get(field) {
                Some(Value::String(text)) => subjects.things.push(text.clone()),
                Some(Value::Array(items)) => {
                    let texts = items.iter().map(|item| match item {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    });
                    subjects.things.extend(texts);
                }
                Some(other) => subjects.things.push(other.to_string()),
                None => {}
            }
        }
        subjects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(id: i64, tool: &str, input: Option<&str>, verdict: Verdict) -> Rule {
        Rule {
            id,
            agent: None,
            tool: tool.to_owned(),
            input: input.map(str::to_owned),
            verdict,
        }
    }

    fn bash(command: &str) -> Asked<'static> {
        Asked {
            agent: AgentKind::Claude,
            kind: QuestionKind::Tool,
            tool: "Bash",
            input: json!({"command": command, "description": "d"}),
            is_partial: false,
        }
    }

    fn by(rule: i64, allow: bool) -> Judged {
        Judged::ByRule { rule, allow }
    }

    #[test]
    fn compound_commands_need_a_rule_for_each_part() {
        let rules = [
            rule(1, "bash", Some("git status*"), Verdict::Allow),
            rule(2, "Bash", Some("git diff*"), Verdict::Allow),
        ];
        for (command, expected) in [
            ("git status", by(1, true)),
            ("git status -s", by(1, true)),
            ("git diff && git status", by(2, true)),
            ("git status && rm -rf x", Judged::Ask),
            ("git status; rm -rf x", Judged::Ask),
            ("git status | sh", Judged::Ask),
            ("git status\nrm -rf x", Judged::Ask),
            ("git status $(rm -rf x)", Judged::Ask),
            ("git status `rm -rf x`", Judged::Ask),
            ("git status & rm -rf x", Judged::Ask),
            ("git status > x", Judged::Ask),
            ("git status \"x\" ; rm", Judged::Ask),
        ] {
            assert_eq!(judge(&rules, false, &bash(command)), expected, "{command}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_cannot_be_seen_whole() {
        let rules = [rule(1, "Bash", Some("git status*"), Verdict::Allow)];
        let mut partial = bash("git status ***");
        partial.is_partial = true;
        assert_eq!(judge(&rules, false, &partial), Judged::Ask);
        let mut two = bash("git status");
        two.input["cmd"] = json!("rm -rf x");
        assert_eq!(judge(&rules, false, &two), Judged::Ask);
        let mut odd = bash("");
        odd.input = json!({"command": {"a": "git status"}});
        assert_eq!(judge(&rules, false, &odd), Judged::Ask);
        odd.input = json!({"other": "git status"});
        assert_eq!(judge(&rules, false, &odd), Judged::Ask);
        odd.input = Value::Null;
        assert_eq!(judge(&rules, false, &odd), Judged::Ask);
    }

    #[test]
    fn denials_win_and_find_commands_in_commands() {
        let rules = [
            rule(1, "*", None, Verdict::Allow),
            rule(2, "Bash", Some("rm *"), Verdict::Deny),
            rule(3, "Bash", Some("git push*"), Verdict::Ask),
        ];
        assert_eq!(judge(&rules, true, &bash("ls; rm  -rf x")), by(2, false));
        assert_eq!(judge(&rules, false, &bash("git push -f")), Judged::Ask);
        assert_eq!(judge(&rules, true, &bash("git push")), Judged::BySession);
        assert_eq!(judge(&rules, false, &bash("make $(x)")), by(1, true));
    }

    #[test]
    fn what_a_denial_cannot_see_whole_is_asked() {
        let rules = [
            rule(1, "*", None, Verdict::Allow),
            rule(2, "Bash", Some("rm *"), Verdict::Deny),
        ];
        let mut partial = bash("ls; ***");
        partial.is_partial = true;
        assert_eq!(judge(&rules, true, &partial), Judged::Ask);
        assert_eq!(judge(&rules[..1], false, &partial), by(1, true));
        let unreadable = Asked {
            input: Value::Null,
            ..bash("")
        };
        assert_eq!(judge(&rules, false, &unreadable), Judged::Ask);
        let write = Asked {
            tool: "Write",
            ..partial
        };
        assert_eq!(judge(&rules, false, &write), by(1, true), "no denial of it");
    }

    #[test]
    fn files_are_matched_without_going_up() {
        let rules = [rule(7, "Write", Some("/work/src/*"), Verdict::Allow)];
        let write = |path: &str| Asked {
            tool: "Write",
            input: json!({"file_path": path, "content": "x"}),
            ..bash("")
        };
        assert_eq!(judge(&rules, false, &write("/work/src/a.rs")), by(7, true));
        assert_eq!(judge(&rules, false, &write("/work/a.rs")), Judged::Ask);
        let up = write("/work/src/../.git/hooks/x");
        assert_eq!(judge(&rules, false, &up), Judged::Ask);
    }

    #[test]
    fn agents_and_plans_are_told_apart() {
        let mut only_codex = rule(1, "*", None, Verdict::Allow);
        only_codex.agent = Some(AgentKind::Codex);
        assert_eq!(judge(&[only_codex], false, &bash("ls")), Judged::Ask);
        let plan = Asked {
            kind: QuestionKind::Plan,
            tool: "ExitPlanMode",
            input: json!({"plan": "do it"}),
            ..bash("")
        };
        let all = rule(2, "*", None, Verdict::Allow);
        assert_eq!(judge(std::slice::from_ref(&all), false, &plan), Judged::Ask);
        let plans = rule(3, "exitplanmode", None, Verdict::Allow);
        assert_eq!(judge(&[all, plans], false, &plan), by(3, true));
        assert_eq!(grant_of(&plan), None);
    }

    #[test]
    fn a_grant_is_for_the_tool_or_the_very_command() {
        let hash = |command: &str| grant_of(&bash(command)).unwrap();
        assert_eq!(hash("git status"), hash("git status"));
        assert_ne!(hash("git status"), hash("git status; rm x"));
        let write = Asked {
            tool: "Write",
            input: json!({"file_path": "/a"}),
            ..bash("")
        };
        assert_eq!(grant_of(&write), Some(Vec::new()));
        let mut partial = bash("a");
        partial.is_partial = true;
        assert_eq!(grant_of(&partial), None);
    }
}
