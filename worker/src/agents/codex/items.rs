//! Items of a turn that are uses of tools, in the words that all agents share.

use serde_json::{Value, json};

/// What came of a tool.
pub(super) struct Outcome {
    /// Whether it did what it was asked for.
    pub(super) ok: bool,
    /// What it said.
    pub(super) output: String,
}

/// The tool that an item uses, and what it is given; `None` if it is no use of a tool.
pub(super) fn call(item: &Value) -> Option<(String, Value)> {
    let text = |name: &str| item[name].as_str().unwrap_or_default();
    Some(match item["type"].as_str()? {
        "commandExecution" => (
            "exec_command".to_owned(),
            json!({"command": item["command"], "cwd": item["cwd"]}),
        ),
        "fileChange" => (
            "apply_patch".to_owned(),
            json!({"changes": item["changes"]}),
        ),
        "mcpToolCall" => (
            format!("{}.{}", text("server"), text("tool")),
            item["arguments"].clone(),
        ),
        "dynamicToolCall" => (text("tool").to_owned(), item["arguments"].clone()),
        "webSearch" => ("web_search".to_owned(), json!({"query": item["query"]})),
        "imageView" => ("view_image".to_owned(), json!({"path": item["path"]})),
        _ => return None,
    })
}

/// What came of the tool that an item used.
pub(super) fn result(item: &Value) -> Option<Outcome> {
    call(item)?;
    let is_refused = matches!(
        item["status"].as_str(),
        Some("failed" | "declined" | "inProgress")
    );
    let exit = item["exitCode"].as_i64().unwrap_or_default();
    let is_error = !item["error"].is_null();
    Some(Outcome {
        ok: !is_refused && !is_error && exit == 0,
        output: output(item),
    })
}

fn output(item: &Value) -> String {
    if let Some(output) = item["aggregatedOutput"].as_str() {
        return output.to_owned();
    }
    if let Some(error) = item["error"]["message"].as_str() {
        return error.to_owned();
    }
    let parts = item["result"]["content"].as_array();
    let parts = parts.or(item["contentItems"].as_array());
    let texts = parts
        .into_iter()
        .flatten()
        .filter_map(|part| part["text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}
