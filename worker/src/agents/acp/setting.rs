//! What of a request is set through the protocol once there is a conversation: the plan mode,
//! and the model of agents that take it in no other way.
//!
//! Agents announce what can be set in one of two shapes, as modes or as options of category
//! `mode` and `model`.

use clawlink_shared::control::Failure;
use clawlink_shared::execution::ErrorCode;
use serde_json::{Value, json};

/// What a request wants to be set.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// Names under which agents know a mode that only plans; empty: no such mode is wanted.
    pub(super) plan_modes: &'static [&'static str],
    /// The model, unless the agent was started with it.
    pub(super) model: Option<String>,
}

/// One request that sets something; the conversation's name is still to be added.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    pub(super) method: &'static str,
    pub(super) params: Value,
}

/// What must be sent, given how the agent described its new or loaded conversation.
pub(super) fn changes(agent: &str, state: &Value, wish: &Wish) -> Result<Vec<Change>, Failure> {
    let refuse = |what: &str| {
        let message = format!("{agent} {what}");
        Err(Failure::new(ErrorCode::ValidationError, message))
    };
    let mut changes = Vec::new();
    if !wish.plan_modes.is_empty() {
        match mode(state, wish.plan_modes) {
            Some(change) => changes.push(change),
            None => return refuse("has no mode that only plans"),
        }
    }
    if let Some(model) = &wish.model {
        match option(state, "model") {
            Some((id, _)) => changes.push(set_option(id, model)),
            None => return refuse("does not let its model be chosen"),
        }
    }
    Ok(changes)
}

/// What leads back from planning to the mode in which the conversation began.
pub(super) fn after_plan(state: &Value) -> Vec<Change> {
    let change = if let Some(id) = state["modes"]["currentModeId"].as_str() {
        Some(Change {
            method: "session/set_mode",
            params: json!({"modeId": id}),
        })
    } else {
        let kept = option(state, "mode");
        kept.and_then(|(id, option)| Some(set_option(id, option["currentValue"].as_str()?)))
    };
    change.into_iter().collect()
}

fn mode(state: &Value, names: &[&str]) -> Option<Change> {
    let modes = list(&state["modes"]["availableModes"]);
    let known = modes.filter_map(|mode| mode["id"].as_str());
    if let Some(id) = known.into_iter().find(|id| names.contains(id)) {
        return Some(Change {
            method: "session/set_mode",
            params: json!({"modeId": id}),
        });
    }
    let (id, option) = option(state, "mode")?;
    let mut values = list(&option["options"]).filter_map(|value| value["value"].as_str());
    let value = values.find(|value| names.contains(value))?;
    Some(set_option(id, value))
}

fn option<'a>(state: &'a Value, category: &str) -> Option<(&'a str, &'a Value)> {
    let mut options = list(&state["configOptions"]);
    let option = options.find(|option| option["category"] == category)?;
    Some((option["id"].as_str()?, option))
}

fn set_option(id: &str, value: &str) -> Change {
    Change {
        method: "session/set_config_option",
        params: json!({"configId": id, "value": value}),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
