//! The CLI's requests for permission: its `can_use_tool` lines as questions, answers as its
//! lines.
//!
//! What people allow for the session the dispatcher remembers, so every step still passes the
//! workspace's rules. Of the CLI's own suggestions only rules about a tool are taken up, for
//! this conversation alone: its other modes would let steps pass that nobody is asked about,
//! and other places would write into the repository.

use clawlink_shared::approval::QuestionKind;
use serde_json::{Value, json};

use crate::agents::desk::{Answer, Question};

/// The tool with which the CLI shows a plan.
const PLAN_TOOL: &str = "ExitPlanMode";

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Permission {
    /// To be named in the answer.
    pub request_id: String,
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    pub input: Value,
    /// What the CLI would remember of a lasting permission.
    pub suggestions: Value,
}

impl Permission {
    /// Reads a `control_request` line, if it is one.
    pub(super) fn read(line: &Value) -> Option<Self> {
        let request = &line["request"];
        if request["subtype"] != "can_use_tool" {
            return None;
        }
        Some(Self {
            request_id: line["request_id"].as_str()?.to_owned(),
            tool: request["tool_name"].as_str().unwrap_or_default().to_owned(),
            input: request["input"].clone(),
            suggestions: request["permission_suggestions"].clone(),
        })
    }

    /// The plan that it shows, if it does.
    pub(super) fn plan(&self) -> Option<&str> {
        let plan = self.input["plan"].as_str().unwrap_or_default();
        (self.tool == PLAN_TOOL).then_some(plan)
    }

    /// As people are asked.
    pub(super) fn question(&self) -> Question {
        let (kind, input) = match self.plan() {
            Some(plan) => (QuestionKind::Plan, json!({ "plan": plan })),
            None => (QuestionKind::Tool, self.input.clone()),
        };
        Question {
            kind,
            tool: self.tool.clone(),
            input,
        }
    }

    /// Whether this answer ends a run that was to make a plan: it is not wanted, and nobody says
    /// what to change.
    pub(super) fn is_ended_by(&self, answer: &Answer) -> bool {
        let is_denied = matches!(answer, Answer::Deny { .. });
        self.plan().is_some() && is_denied && answer.words().is_none()
    }

    /// The line that answers.
    pub(super) fn line(&self, answer: &Answer) -> String {
        let mut response = match answer {
            Answer::Allow { for_session } => {
                let mut response = json!({"behavior": "allow", "updatedInput": self.input});
                let updates = self.updates();
                if *for_session && !updates.is_empty() {
                    response["updatedPermissions"] = Value::Array(updates);
                }
                response
            }
            Answer::Deny { message } => json!({"behavior": "deny", "message": message}),
        };
        if self.is_ended_by(answer) {
            response["interrupt"] = json!(true);
        }
        let line = json!({
            "type": "control_response",
            "response": {
                "subtype": "success", "request_id": self.request_id, "response": response,
            },
        });
        line.to_string()
    }

    fn updates(&self) -> Vec<Value> {
        let suggestions = self.suggestions.as_array().into_iter().flatten();
        let rules = suggestions
            .filter(|update| update["type"] == "addRules" && update["behavior"] == "allow");
        rules
            .map(|update| {
                let mut update = update.clone();
                update["destination"] = json!("session");
                update
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::desk::UNEXPLAINED;

    fn permission(tool: &str, input: Value, suggestions: Value) -> Permission {
        let line = json!({"type": "control_request", "request_id": "r", "request": {
            "subtype": "can_use_tool", "tool_name": tool, "input": input,
            "permission_suggestions": suggestions,
        }});
        Permission::read(&line).unwrap()
    }

    fn response(permission: &Permission, answer: &Answer) -> Value {
        let line: Value = serde_json::from_str(&permission.line(answer)).unwrap();
        assert_eq!(line["response"]["request_id"], "r");
        line["response"]["response"].clone()
    }

    #[test]
    fn only_rules_are_remembered_and_only_in_the_conversation() {
        let rule = json!({"type": "addRules", "behavior": "allow", "destination": "localSettings",
            "rules": [{"toolName": "Bash", "ruleContent": "git status:*"}]});
        let mode = json!({"type": "setMode", "mode": "acceptEdits", "destination": "session"});
        let input = json!({"command": "git status"});
        let asked = permission("Bash", input.clone(), json!([mode, rule]));
        let once = response(&asked, &Answer::Allow { for_session: false });
        assert_eq!(once, json!({"behavior": "allow", "updatedInput": input}));
        let lasting = response(&asked, &Answer::Allow { for_session: true });
        let updates = lasting["updatedPermissions"].as_array().unwrap();
        assert_eq!(updates.len(), 1);
        assert_eq!(updates[0]["destination"], "session");
        assert_eq!(updates[0]["rules"], rule["rules"]);
    }

    #[test]
    fn a_plan_that_is_refused_without_a_word_ends_the_run() {
        let plan = permission("ExitPlanMode", json!({"plan": "p", "x": 1}), Value::Null);
        let question = plan.question();
        assert_eq!(question.kind, QuestionKind::Plan);
        assert_eq!(question.input, json!({"plan": "p"}));
        let deny = |message: &str| Answer::Deny {
            message: message.to_owned(),
        };
        assert_eq!(response(&plan, &deny(UNEXPLAINED))["interrupt"], true);
        let revise = response(&plan, &deny("smaller"));
        assert_eq!(revise, json!({"behavior": "deny", "message": "smaller"}));
        let tool = permission("Bash", json!({}), Value::Null);
        assert!(response(&tool, &deny(UNEXPLAINED))["interrupt"].is_null());
    }

    #[test]
    fn other_requests_are_none() {
        for line in [json!({}), json!({"request": {"subtype": "hook_callback"}})] {
            assert_eq!(Permission::read(&line), None);
        }
    }
}
