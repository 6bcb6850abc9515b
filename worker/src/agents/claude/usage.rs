//! What the CLI's lines say about tokens and cost, added up over one run of it.
//!
//! Each answer of the model is counted when its stream ends, so that a limit can stop a run in the
//! middle; the CLI's own sum at the end of a turn, which also has what it did not stream and what it
//! cost, replaces that. A turn's sum is its own and not the conversation's.

use clawlink_shared::execution::Usage;
use serde_json::Value;

/// Streams that may be open at once; agents below the agent have their own.
const MAX_STREAMS: usize = 64;

/// What was consumed since the CLI was started.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// In turns that have ended.
    ended: Usage,
    /// In answers of the turn that goes on.
    turn: Usage,
    /// Answers that are being streamed, each by the tool call that it belongs to.
    open: Vec<(Option<String>, Usage)>,
}

impl Tally {
    /// Hears a `stream_event`; at the end of an answer, what was consumed so far.
    pub(super) fn stream_event(&mut self, value: &Value) -> Option<Usage> {
        let parent = value["parent_tool_use_id"].as_str();
        let at = self.open.iter().position(|(of, _)| of.as_deref() == parent);
        let event = &value["event"];
        match (event["type"].as_str()?, at) {
            ("message_start", at) => {
                if let Some(at) = at {
                    self.open.swap_remove(at);
                }
                let message = &event["message"];
                let mut usage = tokens(&message["usage"])?;
                usage.model = message["model"].as_str().map(str::to_owned);
                if self.open.len() < MAX_STREAMS {
                    self.open.push((parent.map(str::to_owned), usage));
                }
                None
            }
            ("message_delta", Some(at)) => {
                let written = event["usage"]["output_tokens"].as_u64()?;
                self.open[at].1.output_tokens = written;
                None
            }
            ("message_stop", Some(at)) => {
                let (_, usage) = self.open.swap_remove(at);
                self.turn.add(&usage);
                Some(self.total())
            }
            _ => None,
        }
    }

    /// Hears a `result`: what was consumed so far, if anything is known.
    pub(super) fn result(&mut self, value: &Value) -> Option<Usage> {
        let counted = std::mem::take(&mut self.turn);
        let said = of_models(value).or_else(|| {
            let mut usage = tokens(&value["usage"])?;
            usage.cost_usd = value["total_cost_usd"].as_f64();
            Some(usage)
        });
        // An interrupted turn's own sum may lack what was streamed.
        let is_more = |said: &Usage| said.input_tokens >= counted.input_tokens;
        let turn = match said {
            Some(said) if is_more(&said) => said,
            None if counted.is_nothing() => return None,
            _ => counted,
        };
        self.ended.add(&turn);
        Some(self.ended.clone())
    }

    fn total(&self) -> Usage {
        let mut total = self.ended.clone();
        total.add(&self.turn);
        total
    }
}

/// The sum of each model's, if the CLI gives them; named after the one that wrote most.
fn of_models(value: &Value) -> Option<Usage> {
    let models = value["model_usage_since_last_result"].as_object();
    let models = models.filter(|models| !models.is_empty())?;
    let count = |model: &Value, name: &str| model[name].as_u64().unwrap_or(0);
    let counts = |name: &'static str| models.values().map(move |model| count(model, name));
    let sum = |name| counts(name).fold(0, u64::saturating_add);
    let (read, written) = (sum("cacheReadInputTokens"), sum("cacheCreationInputTokens"));
    let costs = models
        .values()
        .filter_map(|model| model["costUSD"].as_f64());
    let main = models
        .iter()
        .max_by_key(|(_, model)| count(model, "outputTokens"));
    Some(Usage {
        input_tokens: sum("inputTokens")
            .saturating_add(read)
            .saturating_add(written),
        output_tokens: sum("outputTokens"),
        cache_read_tokens: Some(read),
        cache_write_tokens: Some(written),
        cost_usd: Some(costs.sum()),
        model: main.map(|(name, _)| name.clone()),
    })
}

/// The model API's own shape.
fn tokens(usage: &Value) -> Option<Usage> {
    let usage = usage.as_object()?;
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let read = count("cache_read_input_tokens");
    let written = count("cache_creation_input_tokens");
    Some(Usage {
        input_tokens: count("input_tokens")
            .saturating_add(read)
            .saturating_add(written),
        output_tokens: count("output_tokens"),
        cache_read_tokens: Some(read),
        cache_write_tokens: Some(written),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_beyond_all_bounds_do_not_overflow() {
        let model = json!({"inputTokens": u64::MAX, "cacheReadInputTokens": 1});
        let models = json!({"one": model, "other": model});
        let result = json!({"model_usage_since_last_result": models});
        let usage = Tally::default().result(&result).unwrap();
        assert_eq!(usage.input_tokens, u64::MAX);
    }
}
