//! What the app-server asks for, as questions to people, and their answers in its words.

use serde_json::{Value, json};

use crate::agents::desk::{Answer, Question, QuestionKind};

/// Code of an answer to a request that we do not know.
const METHOD_NOT_FOUND: i64 = -32601;

/// The question that a request of the app-server is; `input` is that of the step which it is
/// about. `None` if people are not asked that.
pub(super) fn question(method: &str, params: &Value, input: Value) -> Option<Question> {
    let (tool, mut input) = match method {
        "item/commandExecution/requestApproval" => {
            let own = json!({"command": params["command"], "cwd": params["cwd"]});
            let is_whole = params["command"].is_string();
            ("exec_command", if is_whole { own } else { input })
        }
        "item/fileChange/requestApproval" => ("apply_patch", input),
        _ => return None,
    };
    if let (Value::Object(input), Some(reason)) = (&mut input, params["reason"].as_str()) {
        input.insert("reason".to_owned(), json!(reason));
    }
    Some(Question {
        kind: QuestionKind::Tool,
        tool: tool.to_owned(),
        input,
    })
}

/// The answer to a request with this `id`.
pub(super) fn answer(id: &Value, answer: &Answer) -> String {
    let decision = match answer {
        Answer::Allow { for_session: true } => "acceptForSession",
        Answer::Allow { for_session: false } => "accept",
        Answer::Deny { .. } => "decline",
    };
    json!({"id": id, "result": {"decision": decision}}).to_string()
}

/// The answer to a request that nobody here answers.
pub(super) fn unknown(id: &Value, method: &str) -> String {
    let message = format!("{method} is not answered here");
    json!({"id": id, "error": {"code": METHOD_NOT_FOUND, "message": message}}).to_string()
}
