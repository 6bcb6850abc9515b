//! What a run consumes, counted while its events pass: every agent's, in one place.
//!
//! Agents say in `usage` what one run of theirs has consumed so far. The meter makes of it what the
//! attempt has consumed, because a run that waited for the model's limit is followed by another.
//! It also ends what costs more than the request allows, where the agent says what it costs; the
//! dispatcher, which knows prices, does so for all.
//!
//! What must never happen: something is counted twice, or a number goes down.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clawlink_shared::event::EventType;
use clawlink_shared::execution::{AgentOptions, Usage};
use serde_json::value::{RawValue, to_raw_value};

use crate::agents::StopReason;
use crate::control::Stop;

/// Counts for one attempt; clones share what they count.
#[derive(Debug, Clone)]
pub struct Meter {
    counts: Arc<Mutex<Counts>>,
    /// US dollars that the run may cost.
    max_budget_usd: Option<f64>,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of runs that are over.
    before: Usage,
    /// Of the run that goes on.
    now: Usage,
    has_reports: bool,
}

impl Counts {
    fn total(&self) -> Usage {
        let mut total = self.before.clone();
        total.add(&self.now);
        total
    }

    /// Takes a report of the run that goes on, unless it says less than an earlier one.
    fn report(&mut self, usage: &Usage) {
        let tokens = |usage: &Usage| usage.input_tokens.saturating_add(usage.output_tokens);
        if tokens(usage) >= tokens(&self.now) {
            self.now = usage.clone();
        }
        self.has_reports = true;
    }
}

impl Meter {
    /// A meter for a request with these options.
    pub fn new(options: &AgentOptions, stop: Stop) -> Self {
        Self {
            counts: Arc::default(),
            max_budget_usd: options.max_budget_usd,
            stop,
        }
    }

    /// Looks at an event on its way, and answers its fields as they are to be told.
    pub fn pass(&self, kind: EventType, fields: Box<RawValue>) -> Box<RawValue> {
        match kind {
            EventType::Usage => self.usage(fields),
            _ => fields,
        }
    }

    /// A run is over, whose end said this; another may follow.
    pub fn run_ended(&self, usage: Option<&Usage>) {
        let mut counts = self.counts();
        if let Some(usage) = usage {
            counts.report(usage);
        }
        counts.before = counts.total();
        counts.now = Usage::default();
    }

    /// What was consumed so far; `None` if no agent said anything.
    pub fn total(&self) -> Option<Usage> {
        let counts = self.counts();
        counts.has_reports.then(|| counts.total())
    }

    fn usage(&self, fields: Box<RawValue>) -> Box<RawValue> {
        let Ok(usage) = serde_json::from_str::<Usage>(fields.get()) else {
            return fields;
        };
        let mut counts = self.counts();
        counts.report(&usage);
        let total = counts.total();
        drop(counts);
        if let (Some(cost), Some(budget)) = (total.cost_usd, self.max_budget_usd)
            && cost >= budget
        {
            let words = format!("the run has cost ${cost} of ${budget}");
            self.stop.request_saying(StopReason::Budget, words);
        }
        to_raw_value(&total).unwrap_or(fields)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meter(options: AgentOptions) -> (Meter, Stop) {
        let stop = Stop::default();
        (Meter::new(&options, stop.clone()), stop)
    }

    fn tell(meter: &Meter, kind: EventType, fields: serde_json::Value) -> serde_json::Value {
        let told = meter.pass(kind, to_raw_value(&fields).expect("fields"));
        serde_json::from_str(told.get()).expect("fields")
    }

    #[test]
    fn a_second_run_adds_to_the_first_and_nothing_is_counted_twice() {
        let (meter, _) = meter(AgentOptions::default());
        assert_eq!(meter.total(), None);
        let say = |input: u64, output: u64| {
            let fields = json!({"inputTokens": input, "outputTokens": output});
            let told = tell(&meter, EventType::Usage, fields);
            (told["inputTokens"].as_u64(), told["outputTokens"].as_u64())
        };
        assert_eq!(say(100, 10), (Some(100), Some(10)));
        assert_eq!(say(300, 30), (Some(300), Some(30)), "cumulative");
        assert_eq!(say(200, 20), (Some(300), Some(30)), "never less");
        let end = Usage {
            input_tokens: 300,
            output_tokens: 30,
            cost_usd: Some(0.5),
            ..Usage::default()
        };
        meter.run_ended(Some(&end));
        assert_eq!(say(50, 5), (Some(350), Some(35)));
        meter.run_ended(None);
        let total = meter.total().expect("reports");
        assert_eq!((total.input_tokens, total.output_tokens), (350, 35));
        assert_eq!(total.cost_usd, None, "a part of it is not known");
    }

    #[test]
    fn a_cost_that_the_agent_says_is_held_against_the_request() {
        let options = AgentOptions {
            max_budget_usd: Some(1.0),
            ..AgentOptions::default()
        };
        let (meter, stop) = meter(options);
        let say = |cost: f64| {
            let fields = json!({"inputTokens": 1, "outputTokens": 1, "costUsd": cost});
            tell(&meter, EventType::Usage, fields);
        };
        say(0.99);
        assert_eq!(stop.reason(), None);
        say(1.0);
        assert_eq!(stop.reason(), Some(StopReason::Budget));
        assert_eq!(stop.words().as_deref(), Some("the run has cost $1 of $1"));
    }
}
