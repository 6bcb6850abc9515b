//! What tokens cost where an agent does not say: a table of models, US dollars per million
//! tokens. The one of this build can be replaced by a file of the operator's.
//!
//! A model is found by its name without the provider's (`anthropic/claude-…`), else by the
//! longest entry that its name begins with, up to a separator: `gpt-5-mini-2025-08-07` is
//! `gpt-5-mini`, and `gpt-51` is nobody's. What is not found costs an unknown amount, never none.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clawlink_shared::execution::Usage;
use serde::Deserialize;

use super::money::Micros;

/// The table of this build.
const BUILT_IN: &str = include_str!("prices.json");

/// Largest file that is read as a table.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Tokens that a price is for.
const TOKENS: u128 = 1_000_000;

/// Prices by model.
#[derive(Debug)]
pub struct Prices(BTreeMap<String, Price>);

/// Micro-dollars per million tokens.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Price {
    #[serde(deserialize_with = "decimal")]
    input: u64,
    #[serde(deserialize_with = "decimal")]
    output: u64,
    /// Absent: as other input.
    #[serde(default, deserialize_with = "maybe_decimal")]
    cache_read: Option<u64>,
    /// Absent: as other input.
    #[serde(default, deserialize_with = "maybe_decimal")]
    cache_write: Option<u64>,
}

impl Prices {
    /// The table in this file, else the one of this build.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let Some(file) = file else {
            return Self::parse(BUILT_IN).context("read built-in prices");
        };
        let action = || format!("read prices from {}", file.display());
        let size = std::fs::metadata(file).with_context(action)?.len();
        ensure!(
            size <= MAX_FILE_BYTES,
            "{}: the file is too large",
            action()
        );
        let text = std::fs::read_to_string(file).with_context(action)?;
        Self::parse(&text).with_context(action)
    }

    /// Reads `{"model": {"input": "3", "output": "15", "cacheRead"?, "cacheWrite"?}}`.
    fn parse(text: &str) -> Result<Self> {
        let read: BTreeMap<String, Price> = serde_json::from_str(text)?;
        let mut prices = BTreeMap::new();
        for (model, price) in read {
            let name = name(&model);
            if prices.insert(name.clone(), price).is_some() {
                bail!("{name} is there twice");
            }
        }
        Ok(Self(prices))
    }

    /// What this much of the model costs; `None` for a model that is not in the table. A part
    /// of a micro-dollar is rounded.
    pub fn cost(&self, model: &str, usage: &Usage) -> Option<Micros> {
        let price = self.of(&name(model))?;
        let read = usage.cache_read_tokens.unwrap_or(0);
        let written = usage.cache_write_tokens.unwrap_or(0);
        let plain = usage
            .input_tokens
            .saturating_sub(read.saturating_add(written));
        let parts = [
            (plain, price.input),
            (read, price.cache_read.unwrap_or(price.input)),
            (written, price.cache_write.unwrap_or(price.input)),
            (usage.output_tokens, price.output),
        ];
        let sum: u128 = parts
            .iter()
            .map(|(tokens, price)| u128::from(*tokens) * u128::from(*price))
            .sum();
        let micros = (sum + TOKENS / 2) / TOKENS;
        Some(Micros(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    fn of(&self, model: &str) -> Option<Price> {
        let mut name = model;
        loop {
            if let Some(price) = self.0.get(name) {
                return Some(*price);
            }
            let end = name.rfind(|c: char| !c.is_ascii_alphanumeric())?;
            name = &name[..end];
        }
    }
}

/// A model's name as the table has it.
fn name(model: &str) -> String {
    let model = model.trim().to_ascii_lowercase();
    let own = model.rsplit('/').next().unwrap_or(&model);
    own.to_owned()
}

fn decimal<'de, D: serde::Deserializer<'de>>(text: D) -> Result<u64, D::Error> {
    let text = String::deserialize(text)?;
    micros(&text).ok_or_else(|| {
        serde::de::Error::custom(format!(
            "{text:?} is not dollars per million tokens with at most six decimals"
        ))
    })
}

fn maybe_decimal<'de, D: serde::Deserializer<'de>>(text: D) -> Result<Option<u64>, D::Error> {
    decimal(text).map(Some)
}

/// `"1.25"` as 1,250,000.
fn micros(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !is_number(whole) || !is_number(part) {
        return None;
    }
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: u64, output: u64, read: u64, written: u64) -> Usage {
        Usage {
            input_tokens: input,
            output_tokens: output,
            cache_read_tokens: Some(read),
            cache_write_tokens: Some(written),
            ..Usage::default()
        }
    }

    #[test]
    fn each_kind_of_token_has_its_price() {
        let prices = Prices::load(None).expect("the built-in table");
        // 1,000 plain at 3, 2,000 from the cache at 0.3, 4,000 into it at 3.75, 500 out at 15.
        let cost = prices.cost("claude-sonnet-4-5", &usage(7_000, 500, 2_000, 4_000));
        assert_eq!(cost, Some(Micros(3_000 + 600 + 15_000 + 7_500)));
        // As the vendor's own program reckons it.
        let cost = prices.cost("claude-sonnet-4-5", &usage(100, 25, 0, 0));
        assert_eq!(cost, Some(Micros(675)));
        // Where the cache has no price of its own it is input.
        let cost = prices.cost("gpt-5-pro", &usage(100, 0, 50, 50));
        assert_eq!(cost, Some(Micros(1_500)));
    }

    #[test]
    fn models_are_found_by_their_family_and_never_guessed() {
        let prices = Prices::load(None).expect("the built-in table");
        let million = usage(1_000_000, 0, 0, 0);
        for (model, dollars) in [
            ("gpt-5", Some(1.25)),
            ("openai/gpt-5-mini-2025-08-07", Some(0.25)),
            ("GPT-5-Codex", Some(1.25)),
            ("claude-opus-4-1-20250805", Some(15.0)),
            ("claude-opus-4-5-20251101", Some(5.0)),
            ("openrouter/anthropic/claude-sonnet-4.5", Some(3.0)),
            ("claude-sonnet-4-5[1m]", Some(3.0)),
            ("gpt-51", None),
            ("llama3", None),
            ("", None),
        ] {
            let cost = prices.cost(model, &million).map(Micros::dollars);
            assert_eq!(cost, dollars, "{model}");
        }
    }

    #[test]
    fn huge_counts_do_not_overflow_and_parts_are_rounded() {
        let prices = Prices::parse(r#"{"m": {"input": "0.3", "output": "0"}}"#).expect("a table");
        assert_eq!(prices.cost("m", &usage(2, 0, 0, 0)), Some(Micros(1)));
        assert_eq!(prices.cost("m", &usage(1, 0, 0, 0)), Some(Micros(0)));
        let all = usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        assert!(prices.cost("m", &all).is_some());
    }

    #[test]
    fn a_table_says_what_is_wrong_with_it() {
        for (text, fault) in [
            (r#"{"m": {"input": "-1", "output": "1"}}"#, "six decimals"),
            (r#"{"m": {"input": "1"}}"#, "output"),
            (
                r#"{"m": {"input": "1", "output": "1", "cash": "1"}}"#,
                "cash",
            ),
            (
                r#"{"m": {"input": "0.0000001", "output": "1"}}"#,
                "six decimals",
            ),
            (
                r#"{"a/m": {"input": "1", "output": "1"}, "M": {"input": "1", "output": "1"}}"#,
                "twice",
            ),
        ] {
            let error = Prices::parse(text).expect_err(text);
            assert!(format!("{error:#}").contains(fault), "{error:#}");
        }
    }
}
